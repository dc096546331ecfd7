# SPDX-License-Identifier: GPL-3.0-or-later
"""A git in front of the real one that stands still, or kills the daemon, at a chosen moment of a change."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PATIENCE: Final = 60.0
MOMENTS: Final = {
    "before the commit point": ("update-ref", "before", "refs/heads/main"),
    "after the commit point": ("update-ref", "after", "refs/heads/main"),
    "before publishing ends": ("update-index", "before", ""),
}
"""By name: the command, whether git stands before or after it, and what its input has to name."""

_SCRIPT: Final = """\
#!/bin/sh
PATH='{path}'
if [ -e {folder}/fatal ]; then
    read -r number when pid <{folder}/fatal
    if [ "$number" -gt 1 ]; then
        echo "$((number - 1)) $when $pid" >{folder}/fatal
    else
        rm -f {folder}/fatal
        [ "$when" = before ] || git "$@"
        kill -KILL "$pid"
        exit 1
    fi
fi
if [ -e {folder}/lying ]; then
    case "$*" in *update-ref*) cat >{folder}/unheard; exit 0 ;; esac
fi
[ -e {folder}/armed ] || exec git "$@"
read -r command when named <{folder}/armed
case "$*" in
*"$command"*) ;;
*) exec git "$@" ;;
esac
kept=$(mktemp {folder}/input.XXXXXX)
cat >"$kept"
stand() {{
    if grep -qF "$named" "$kept"; then
        rm -f {folder}/armed
        echo >{folder}/told
        read -r _ <{folder}/go
    fi
}}
[ "$when" = after ] || stand
git "$@" <"$kept"
status=$?
[ "$when" = before ] || stand
rm -f "$kept"
exit $status
"""


class StandingGit:
    """Stands, or kills, once after it was told to; everything else goes on as ever."""

    def __init__(self, folder: Path, moment: str = "before the commit point") -> None:
        folder.mkdir()
        self._moment = moment
        self._folder = folder
        for name in ("told", "go"):
            os.mkfifo(folder / name)
        program = folder / "git"
        program.write_text(_SCRIPT.format(path=os.environ["PATH"], folder=folder))
        program.chmod(0o755)
        self.path = f"{folder}:{os.environ['PATH']}"

    def arm(self, moment: str | None = None) -> None:
        """Stand when the next such moment comes."""
        (self._folder / "armed").write_text(" ".join(MOMENTS[moment or self._moment]) + "\n")

    def kill_at(self, number: int, when: str, pid: int) -> None:
        """Kill a process before or after the call of git of that number from now on, whoever makes it."""
        (self._folder / "fatal").write_text(f"{number} {when} {pid}\n")

    def lie(self) -> None:
        """Say from now on that refs were moved, and move none."""
        (self._folder / "lying").touch()

    def spare(self) -> None:
        """Kill nobody any more, and stand nowhere."""
        for name in ("fatal", "armed"):
            (self._folder / name).unlink(missing_ok=True)

    def wait(self) -> None:
        """Return when it stands."""
        told = os.open(self._folder / "told", os.O_RDONLY | os.O_NONBLOCK)
        try:
            assert select.select([told], [], [], PATIENCE)[0], "git was never started for what it was to stand at"
            os.read(told, 1)
        finally:
            os.close(told)

    def release(self) -> None:
        """Let it go on."""
        (self._folder / "go").write_text("\n")

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Within this it stands."""
        self.wait()
        try:
            yield
        finally:
            self.release()
