# SPDX-License-Identifier: GPL-3.0-or-later
"""A home that was built for its owner becomes the owner's home: its own program does that, as the owner, in a unit of theirs."""

from __future__ import annotations

import os

from glixctl import output
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

UNIT = "glix-home-activate"
"""One activation of a home at a time."""


def activate(rebuilt: Mapping[str, Any], *, quiet: bool) -> int:
    """Run the activation of a home that was built; whoever is not its owner is told how."""
    import pwd
    import subprocess

    program = os.path.join(str(rebuilt["path"]), "activate")
    owner = pwd.getpwuid(os.getuid()).pw_name
    if owner != rebuilt["home"]:
        output.warning(f"it is put into effect by {rebuilt['home']}, with: {output.escape(program)}")
        return Exit.FAILED
    words, environment = command(program, os.environ)
    done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        output.warning(f"the activation of the home failed with status {done.returncode}: {output.escape(program)}")
        return Exit.FAILED
    if not quiet:
        output.line(f"activated the home of {owner}")
    return Exit.DONE


def command(program: str, environment: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """In a unit of the user where there is a manager for units, so that the end of this terminal does not end it."""
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    bus = os.path.join(runtime, "bus")
    if not runtime or not os.path.exists(os.path.join(runtime, "systemd", "private")) or not os.path.exists(bus):
        return [program], dict(environment)
    how = ("--user", "--quiet", "--collect", "--pipe", "--wait", "--service-type=exec")
    # The manager is on the bus of the user, whichever bus the session has.
    manager = {**environment, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={bus}"}
    return ["systemd-run", f"--unit={UNIT}", *how, program], manager
