# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl info`: the repository, its hosts and its inputs."""

from __future__ import annotations

from glixctl import output
from glixctl.commands._common import note_health
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence
    from typing import Any

    from glixctl.client import Client

NAME = "info"
SUMMARY = "describe the repository, its hosts and its inputs"
EXAMPLES = (("info", "the repository, its hosts and its inputs"),)
ANSWER = "Info"


def arguments(parser: ArgumentParser) -> None:
    """Nothing of its own."""


def run(options: Namespace, client: Client) -> int:
    """Info."""
    info = client.call("Info")
    if options.json:
        output.document(info)
        return Exit.DONE
    output.print_fields(
        {
            "root": info["repository"],
            "mode": info["mode"],
            "branch": info["branch"],
            "head": f"{output.short(info.get('head'))} {info.get('subject') or ''}".strip(),
            "edited": ", ".join(info.get("edited") or ()),
            "dirty": ", ".join(info.get("dirty") or ()),
            "published": None if info.get("published", True) else "no, the work tree does not show the commit",
        }
    )
    _print_hosts(info.get("hosts") or ())
    _print_inputs(info.get("inputs") or ())
    if not options.quiet:
        for host in info.get("hosts") or ():
            note_health(host.get("health"), host["name"])
    return Exit.DONE


def _print_hosts(hosts: Sequence[dict[str, Any]]) -> None:
    output.line("hosts:")
    for host in hosts:
        output.line(f"  {_host(host)}")


def _host(host: dict[str, Any]) -> str:
    name = output.escape(host["name"])
    if problem := host.get("problem"):
        return f"{name} problem: {output.escape(problem)}"
    parts = [
        name,
        f"system={output.escape(host.get('system') or '')}",
        f"primary_user={output.escape(host.get('primary_user') or '')}",
        f"packages={host['enabled']}/{host['packages']} enabled",
    ]
    health = (host.get("health") or {}).get("state", "ok")
    if health != "ok":
        parts.append(f"health={output.escape(health)}")
    return " ".join(parts)


def _print_inputs(inputs: Sequence[dict[str, Any]]) -> None:
    if not inputs:
        return
    output.line("inputs:")
    rows = [
        (
            entry["name"],
            output.short(entry.get("revision")),
            (entry.get("modified") or "")[:10],
            output.age(entry.get("age")),
            entry.get("url") or "",
        )
        for entry in inputs
    ]
    for text in output.table([""] * 5, rows)[1:]:
        output.line(f"  {text}")
