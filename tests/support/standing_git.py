# SPDX-License-Identifier: GPL-3.0-or-later
"""A git in front of the real one that stands still at a chosen moment of a change, until it is let go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MOMENTS: Final = {
    "before the commit point": ("*update-ref*", "refs/heads/main", "before"),
    "after the commit point": ("*update-ref*", "refs/heads/main", "after"),
    "before publishing ends": ("*update-index*", "", "before"),
}
"""By name: the command, what its input has to name, and whether git stands before or after it."""

_SCRIPT: Final = """\
#!/bin/sh
PATH={path}
case "$*" in
{command}) ;;
*) exec git "$@" ;;
esac
kept=$(mktemp {folder}/input.XXXXXX)
cat >"$kept"
stand() {{
    if [ -e {folder}/armed ] && grep -qF "{named}" "$kept"; then
        rm {folder}/armed
        echo >{folder}/told
        read -r _ <{folder}/go
    fi
}}
[ {when} = after ] || stand
git "$@" <"$kept"
status=$?
[ {when} = before ] || stand
rm -f "$kept"
exit $status
"""


class StandingGit:
    """Stands once at its moment; whatever comes before `arm` or after `release` goes on."""

    def __init__(self, folder: Path, moment: str) -> None:
        command, named, when = MOMENTS[moment]
        folder.mkdir()
        self._folder = folder
        for name in ("told", "go"):
            os.mkfifo(folder / name)
        program = folder / "git"
        program.write_text(
            _SCRIPT.format(path=os.environ["PATH"], folder=folder, command=command, named=named, when=when)
        )
        program.chmod(0o755)
        self.path = f"{folder}:{os.environ['PATH']}"

    def arm(self) -> None:
        """Stand at the next such moment."""
        (self._folder / "armed").touch()

    def wait(self) -> None:
        """Return when it stands there."""
        (self._folder / "told").read_text()

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
