# SPDX-License-Identifier: GPL-3.0-or-later
"""How the activation of a home is started: in a unit of its owner where there can be one, else as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from glixctl.home import command

PROGRAM = "/nix/store/x-home/activate"


@pytest.mark.parametrize("there", [(), ("systemd/private",), ("bus",)])
def test_where_no_manager_can_be_asked_the_program_is_run_as_it_is(tmp_path: Path, there: tuple[str, ...]) -> None:
    for name in there:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    environment = {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": "/home/alice"}
    assert command(PROGRAM, environment) == ([PROGRAM], environment)
    assert command(PROGRAM, {}) == ([PROGRAM], {})


def test_a_manager_is_asked_on_the_bus_of_the_user_whatever_the_session_has(tmp_path: Path) -> None:
    (tmp_path / "systemd").mkdir()
    for name in ("systemd/private", "bus"):
        (tmp_path / name).touch()
    session = {"XDG_RUNTIME_DIR": str(tmp_path), "DBUS_SESSION_BUS_ADDRESS": "unix:path=/tmp/dbus-x11"}
    words, environment = command(PROGRAM, session)
    assert (words[0], words[-1]) == ("systemd-run", PROGRAM)
    assert environment == {**session, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={tmp_path}/bus"}
