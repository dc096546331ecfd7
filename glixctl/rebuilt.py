# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of a machine, for people: packages with their versions, sizes, units, and what is left to do."""

from __future__ import annotations

from glixctl import output
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SHOWN = 40
"""Packages that are listed; --json has all."""
_SIGNS = {"added": "+", "removed": "-", "upgraded": "^", "downgraded": "v", "changed": "~"}


def exit_code(rebuild: Mapping[str, Any]) -> int:
    """What a rebuild that went well ends with: units that failed count more than a reboot that is needed."""
    if (rebuild.get("units") or {}).get("failed") and rebuild.get("activated"):
        return Exit.UNITS_FAILED
    return Exit.REBOOT_NEEDED if rebuild.get("reboot_needed") and rebuild.get("activated") else Exit.DONE


def print_report(rebuild: Mapping[str, Any]) -> None:
    """Everything below the one sentence that tells how it ended."""
    if change := rebuild.get("change"):
        print_change(change)
    for word in ("stopped", "restarted", "reloaded", "started"):
        if units := (rebuild.get("units") or {}).get(word):
            verb = word if rebuild.get("activated") else f"would be {word}"
            output.line(f"  units {verb}: {_listed(units)}")
    for title, names in (("would be built", rebuild.get("builds")), ("would be fetched", rebuild.get("fetches"))):
        if names and rebuild["action"] == "dry-build":
            output.line(f"  {title}: {_listed(names)}")
    if disabled := rebuild.get("disabled"):
        output.line(f"  disabled, since the host does not evaluate with it: {_listed(disabled)}")
    if path := rebuild.get("path"):
        output.line(f"  {output.escape(path)}")
    if command := rebuild.get("command"):
        output.line("This daemon does not switch the machine. An administrator does, with:")
        output.line(f"  {output.escape(command)}")


def print_change(change: Mapping[str, Any]) -> None:
    """What differs between two systems."""
    packages = change.get("packages") or ()
    for one in packages[:SHOWN]:
        before, after = (", ".join(map(output.escape, one.get(side) or ())) for side in ("before", "after"))
        versions = f"{before} -> {after}" if before and after else before or after
        output.line(f"  {_SIGNS.get(one['kind'], '~')} {output.escape(one['name'])} {versions}")
    if len(packages) > SHOWN:
        output.line(f"  and {len(packages) - SHOWN} more packages")
    if not packages:
        output.line("  no package has another version")
    if rebuilt := change.get("rebuilt"):
        output.line(f"  {rebuilt} {'package' if rebuilt == 1 else 'packages'} built anew in the same version")
    if small := change.get("size_before"):
        large = change.get("size_after") or 0
        sign = "+" if large >= small else "-"
        output.line(f"  size {output.size(large)} ({sign}{output.size(abs(large - small))})")
    if reboot := change.get("reboot"):
        output.line(f"  only a reboot makes effective: {_listed(reboot)}")


def _listed(names: Any) -> str:
    shown = ", ".join(output.escape(name) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
