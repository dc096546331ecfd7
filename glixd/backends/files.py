# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to the file system: durable writes, atomic exchange, free space, and what an OSError means to a caller."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path, PurePosixPath
from typing import Final

from glixd.errors import Failed, GlixError
from glixd.protocol import ErrorCode

NEEDED_BYTES: Final = 64 * 1024 * 1024
NEEDED_INODES: Final = 1000
SUSPICIOUS_BYTES: Final = 1024 * 1024
"""Less free room than this explains why a program could not write."""
SUSPICIOUS_INODES: Final = 100
ATTEMPTS: Final = 10
"""How often a folder is made anew that git takes away, having packed what was in it."""
NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
SYNCING: Final = 8
"""Files that are synchronised beside each other."""
AT_FDCWD: Final = -100
RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)


def read_regular(path: Path) -> bytes | None:
    """The bytes of a plain file; None when nothing is there.

    Raises Failed (ReadOnly) when it is a link, a folder or can't be read: glixd follows no link out of the repository.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _not_regular(path) from None
        raise translated(error, path) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular(path)
    with translating(path), os.fdopen(descriptor, "rb") as file:
        return file.read()


def refuse_linked_folders(root: Path, path: str) -> None:
    """Raise Failed (ReadOnly) where a folder on the way from `root` to `path` is a link: it may lead out of the repository."""
    folder = root
    for name in PurePosixPath(path).parts[:-1]:
        folder /= name
        if folder.is_symlink():
            raise _not_regular(folder)


def write_durably(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a new file and wait until it is on the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def open_new(path: Path, mode: int) -> int:
    """A descriptor to write a file anew; its folder is made, and what is left there of an earlier attempt goes.

    Each is done where it turns out to be needed: a group of changes makes hundreds of files, in folders that are mostly there.
    The folder may be taken away again at any moment, by a git that has packed what was in it.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return os.open(path, NEW, mode)
        except FileNotFoundError:
            path.parent.mkdir(exist_ok=True)
        except FileExistsError:
            path.unlink(missing_ok=True)
    return os.open(path, NEW, mode)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of some bytes."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class Syncing:
    """Waits until files and folders are on the disk, beside each other: a journal writes what waits in one go.

    The threads are kept, since starting them took 3 ms of the 20 that a change takes in the daemon.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(SYNCING, thread_name_prefix="sync")

    def each(self, descriptors: Iterable[int]) -> None:
        """Wait for open files; when this returns, or raises, nothing waits for any of them."""
        waiting = [self._threads.submit(os.fsync, descriptor) for descriptor in descriptors]
        wait(waiting)
        for one in waiting:
            one.result()

    def each_there(self, folders: Iterable[Path]) -> None:
        """Wait for folders of which git may take one or the other away, having packed all that was in it, durably."""
        list(self._threads.map(_sync_if_there, folders))


def _sync_if_there(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        sync_folder(path)


def sync_file(path: Path) -> None:
    """Wait until a plain file, or the names in a folder, are on the disk, whoever wrote them."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Wait until every plain file and every name below a folder are on the disk, whoever wrote them."""
    for folder, _, names in os.walk(path):
        for name in names:
            if not os.path.islink(os.path.join(folder, name)):
                sync_file(Path(folder, name))
        sync_folder(Path(folder))


def exchange(first: Path, second: Path) -> bool:
    """Swap two files in one step; False where the file system can't."""
    return _renameat2(first, second, RENAME_EXCHANGE)


def rename_new(source: Path, target: Path) -> bool:
    """Rename only where nothing is at `target`; raises FileExistsError else, and answers False where it can't be done."""
    return _renameat2(source, target, RENAME_NOREPLACE)


def explain_full(folder: Path, needed_bytes: int, needed_inodes: int) -> None:
    """Raise NoSpace where a failure of a program that writes to `folder` is explained by a disk that is all but full."""
    require_space(folder, max(needed_bytes, SUSPICIOUS_BYTES), max(needed_inodes, SUSPICIOUS_INODES))


def require_space(folder: Path, needed_bytes: int = NEEDED_BYTES, needed_inodes: int = NEEDED_INODES) -> None:
    """Raise NoSpace when the file system of `folder` has less room than a mutation may need."""
    facts = os.statvfs(folder)
    free = facts.f_bavail * facts.f_frsize
    if free < needed_bytes:
        raise Failed(
            f"The file system of {folder} has {free // 1024} KiB free; a change needs {needed_bytes // 1024} KiB.",
            code=ErrorCode.NO_SPACE,
            hint="Free some room, for instance with nix-collect-garbage, and try again.",
        )
    if facts.f_files and facts.f_favail < needed_inodes:
        raise Failed(
            f"The file system of {folder} has {facts.f_favail} free inodes; a change needs {needed_inodes}.",
            code=ErrorCode.NO_SPACE,
            hint="Delete files that are not needed, and try again.",
        )


@contextlib.contextmanager
def translating(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into the error that says what it means."""
    try:
        yield
    except OSError as error:
        raise translated(error, path) from error


def translated(error: OSError, path: Path) -> GlixError:
    """The error that an OSError about `path` is to a caller."""
    place = error.filename if isinstance(error.filename, str) else str(path)
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return Failed(
                f"There is no room left to write {place}.",
                code=ErrorCode.NO_SPACE,
                hint="Free some room and try again.",
            )
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return Failed(
                f"{place} can't be written or read: {error.strerror}.",
                code=ErrorCode.READ_ONLY,
                hint="Look at the owner and the permissions of the repository.",
            )
        case _:
            return Failed(f"{place}: {error.strerror}.", code=ErrorCode.READ_ONLY)


def _not_regular(path: Path) -> Failed:
    return Failed(
        f"{path} is a link or no plain file; glixd reads and writes plain files only.",
        code=ErrorCode.READ_ONLY,
        hint="Replace it with the file itself.",
    )


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    result = _libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags)
    if result == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))
