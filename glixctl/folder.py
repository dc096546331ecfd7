# SPDX-License-Identifier: GPL-3.0-or-later
"""The text files of a folder that is to become a host. The daemon opens no path of a caller, so they are read here and sent."""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path

from glixctl.errors import ClientError
from glixd.protocol import ERRORS, MAX_IMPORTED_BYTES, MAX_IMPORTED_FILES, ErrorCode

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LEFT_OUT = ("*~", "*.swp", "#*#", "result", "result-*")
"""What editors and nix leave behind; hidden files are left out too."""


def texts(folder: str, excluded: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The files below a folder by their path in it, and those that were left out because they are hidden or leftovers.

    Raises InvalidArgument for what is no text, a link that leads out of the folder, and for too much of it.
    """
    root = Path(os.path.realpath(folder))
    if not root.is_dir():
        raise _refused(f"{folder} is no folder.", "Name a folder such as /etc/nixos.")
    found: dict[str, str] = {}
    left_out: list[str] = []
    size = 0
    for name in _names(root, excluded, left_out):
        text = _text(root, name)
        size += len(text.encode())
        if size > MAX_IMPORTED_BYTES or len(found) == MAX_IMPORTED_FILES:
            raise _refused(
                f"{folder} has more than {MAX_IMPORTED_FILES} files or {MAX_IMPORTED_BYTES // 1024} KiB.",
                "Leave out what the configuration does not read, with --exclude PATTERN.",
            )
        found[name] = text
    return found, left_out


def _names(root: Path, excluded: Sequence[str], left_out: list[str]) -> Iterator[str]:
    """The files in the order of their names; no link to a folder is followed."""
    for folder, folders, files in os.walk(root):
        below = os.path.relpath(folder, root)
        for names in (folders, files):
            kept = []
            for name in sorted(names):
                path = name if below == os.curdir else f"{below}/{name}"
                if any(fnmatch(path, pattern) or fnmatch(name, pattern) for pattern in excluded):
                    continue
                if name.startswith(".") or any(fnmatch(name, pattern) for pattern in LEFT_OUT):
                    left_out.append(path)
                    continue
                kept.append(name)
            names[:] = kept
        for name in [*files, *(name for name in folders if os.path.islink(os.path.join(folder, name)))]:
            yield name if below == os.curdir else f"{below}/{name}"


def _text(root: Path, name: str) -> str:
    path = Path(os.path.realpath(root / name))
    if not path.is_relative_to(root):
        raise _refused(f"{name} is a link out of the folder.", f"Copy the file here, or leave it out: --exclude {name}")
    if not path.is_file():
        raise _refused(f"{name} is no plain file.", f"Leave it out: --exclude {name}")
    try:
        if path.stat().st_size > MAX_IMPORTED_BYTES:
            raise _refused(f"{name} is too large.", f"Leave it out: --exclude {name}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise _refused(f"{name} is no text.", f"Leave it out: --exclude {name}") from None
    except OSError as error:
        raise _refused(f"{name} can't be read: {error.strerror}.", "Run this as somebody who may read it.") from error


def _refused(message: str, hint: str) -> ClientError:
    code = ErrorCode.INVALID_ARGUMENT
    return ClientError(message, name=code, exit_code=ERRORS[code].exit_code, hint=hint)
