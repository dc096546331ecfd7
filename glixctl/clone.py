# SPDX-License-Identifier: GPL-3.0-or-later
"""A working clone of the daemon's repository: what git is asked to do in it, and commits on their way there and back.

The person who edits needs no right to the repository itself: commits travel through the daemon, as bundles.
"""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile

from glixctl.errors import ClientError, UsageError
from glixd.protocol import UPLOAD_PIECE, ErrorCode, Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from glixctl.client import Client

REMOTE = "glixd"
TRACKING = f"refs/remotes/{REMOTE}"


def git(folder: str, *words: str) -> str:
    """What a git prints in the clone; raises ClientError with its words where it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", folder, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise _failed("git is not installed.", "Install it and try again.") from None
    if done.returncode:
        said = done.stderr.strip() or f"it ended with status {done.returncode}"
        raise _failed(f"git {words[0]} failed: {said}")
    return done.stdout.strip()


def fetch(client: Client, folder: str) -> str:
    """Bring what the clone knows of the repository to the newest state; the name of its branch."""
    with tempfile.TemporaryDirectory(prefix="glixctl-") as scratch:
        path = os.path.join(scratch, "bundle")
        branch = _receive(client, path)
        git(folder, "fetch", "--quiet", "--no-tags", path, f"+refs/heads/{branch}:{TRACKING}/{branch}")
    return branch


def send(client: Client, folder: str, base: str) -> str:
    """Send the commits of HEAD that are not in `base`; the name of the upload."""
    with tempfile.TemporaryDirectory(prefix="glixctl-") as scratch:
        path = os.path.join(scratch, "bundle")
        git(folder, "bundle", "create", "--quiet", path, f"{base}..HEAD", "HEAD")
        return _send(client, path)


def top(folder: str) -> str:
    """The clone that a folder is in; raises UsageError where it is in none."""
    try:
        root = git(folder, "rev-parse", "--show-toplevel")
        git(folder, "for-each-ref", "--count=1", TRACKING)
    except ClientError:
        root = ""
    if not root or not git(root, "for-each-ref", "--count=1", TRACKING):
        raise UsageError(
            f"{os.path.abspath(folder)} is no clone that glixctl made.", "Make one with: glixctl clone FOLDER"
        )
    return root


def _failed(message: str, hint: str = "") -> ClientError:
    return ClientError(message, name=ErrorCode.UNSUPPORTED_HERE, exit_code=Exit.FAILED, hint=hint)


def _receive(client: Client, path: str) -> str:
    parameters: dict[str, object] = {}
    with open(path, "wb") as file:
        while True:
            piece = client.call("GetBundle", parameters)
            file.write(base64.b64decode(piece["data"]))
            if piece.get("next") is None:
                return str(piece["branch"])
            parameters = {"commit": piece["commit"], "offset": piece["next"]}


def _send(client: Client, path: str) -> str:
    upload, offset = None, 0
    with open(path, "rb") as file:
        while data := file.read(UPLOAD_PIECE):
            parameters: dict[str, object] = {"data": base64.b64encode(data).decode(), "offset": offset}
            if upload is not None:
                parameters["upload"] = upload
            answer = client.call("Upload", parameters)
            upload, offset = str(answer["upload"]), int(answer["size"])
    return str(upload)
