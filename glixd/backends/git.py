# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to git: reading objects, writing a commit beside the work tree, moving refs. No hook, filter or user setting runs.

Reading goes through one long-lived `git cat-file --batch`; new objects are made by `objects`; refs move by compare-and-swap
in one `git update-ref --stdin`. None of them touches the work tree or the index of the user.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from glixd.backends.objects import GLIXD, Commit, Entry, Object, Pending, Person, entries_of
from glixd.backends.process import Cancellation, Completed, Processes
from glixd.errors import Failed
from glixd.protocol import ErrorCode

SETTINGS: Final = (
    ("core.fsync", "all"),
    ("core.fsyncMethod", "fsync"),
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.autocrlf", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("commit.gpgsign", "false"),
    ("log.showSignature", "false"),
    ("protocol.ext.allow", "never"),
)
"""Pinned on every call, above whatever the repository's own configuration says."""
ENVIRONMENT: Final = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_COMMITTER_NAME": GLIXD.name,  # for the reflog: else git asks the system for a name at each move
    "GIT_COMMITTER_EMAIL": GLIXD.email,
    "LC_ALL": "C",
}
Staged = Mapping[str, Entry | None]
"""Paths with what becomes of them in an index; None takes one out."""
BACKGROUND_MEMORY: Final = 2 * 1024**3
"""Bytes of address space of a git in the background, which maps the packs that it reads."""
EMPTY_TREE: Final = {
    40: "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    64: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}
"""The name of the empty tree, which git knows without an object, by the length of a repository's object names."""


class LogEntry(NamedTuple):
    """A commit of the history."""

    oid: str
    time: int
    author: str
    subject: str
    trailers: Mapping[str, str]
    """By name; the values of one that stands there several times are joined by line feeds."""
    body: str = ""
    """The message below the subject, without its trailers."""

    @property
    def transaction(self) -> str | None:
        """The transaction that made it, or brought what a person made; None for one that came without glixd."""
        return self.trailers.get("Glix-Transaction") or self.trailers.get("Glix-Pushed")


class RefUpdate(NamedTuple):
    """Move `ref` from `old` (None: it must not exist; "": whatever it is) to `new`."""

    ref: str
    new: str
    old: str | None


class Git:
    """One repository with a work tree. Every method may be called from any thread."""

    def __init__(self, root: Path, processes: Processes) -> None:
        self.root = root
        self.directory = root / ".git"
        self._processes = processes
        self._reader: subprocess.Popen[bytes] | None = None
        self._reading = threading.Lock()
        self.pending = Pending(self.directory / "objects", self.tree)

    # -- reading -------------------------------------------------------------------------------------------------

    def version(self) -> str:
        """What git calls itself; raises UnsupportedHere where there is none."""
        done = self._processes.run(["git", "version"], environment=ENVIRONMENT)
        if done.status:
            raise self._failure("version", done)
        return done.stdout.decode(errors="replace").strip()

    def read(self, name: str) -> Object | None:
        """The object of that name (a ref, `commit:path`, an oid); None when there is none.

        Raises Failed (ReadOnly) when there is one that can't be read.
        """
        name = self.pending.named(name)
        if not name or "\n" in name:
            return None
        if made := self.pending.get(name):
            return made
        with self._reading:
            try:
                return self._ask(name)
            except (BrokenPipeError, ValueError, IndexError):
                self._end_reader()
            try:
                return self._ask(name)
            except (BrokenPipeError, ValueError, IndexError) as error:
                words = self._end_reader()
                raise self._unreadable(words or str(error)) from error

    def ref(self, name: str) -> str | None:
        """The commit that a ref names."""
        found = self.read(name)
        return found.oid if found else None

    def refs(self, prefix: str) -> list[str]:
        """The refs below a prefix that ends in a slash."""
        return self._done("for-each-ref", "--format=%(refname)", "--", prefix).stdout.decode().splitlines()

    def tree(self, name: str) -> dict[str, Entry]:
        """The entries of the tree of that name; empty when there is none."""
        found = self.read(name)
        return dict(entries_of(found)) if found and found.kind == "tree" else {}

    def head_ref(self) -> str | None:
        """The branch that HEAD points to, as `refs/heads/…`; None when it is detached."""
        content = (self.directory / "HEAD").read_text().strip()
        if content.startswith("ref: ") and not content.endswith(".invalid"):
            return content.removeprefix("ref: ")
        # detached, or kept in a store whose HEAD file only says so (gitrepository-layout): git knows
        done = self._git("symbolic-ref", "--quiet", "HEAD")
        return done.stdout.decode().strip() if done.status == 0 else None

    def log(self, revision: str, *, limit: int, skip: int = 0, paths: Sequence[str] = ()) -> list[LogEntry]:
        """At most `limit` commits that lead to `revision`, the newest first; only those that changed `paths`, if any.

        The first `skip` of them are left out.
        """
        form = "%H%x00%at%x00%an%x00%s%x00%(trailers:only,unfold,separator=%x01)%x00%b%x00"
        chosen = (f"--max-count={limit}", f"--skip={skip}")
        words = ("log", *chosen, "-z", f"--format={form}", "--end-of-options", revision, "--", *paths)
        done = self._done(*words, environment={"GIT_LITERAL_PATHSPECS": "1"})
        fields = done.stdout.decode(errors="replace").split("\0")
        return [log_entry(fields[start : start + 6]) for start in range(0, len(fields) - 6, 7)]

    def changed_paths(self, old: str | None, new: str) -> dict[str, tuple[Entry | None, Entry | None]]:
        """The files in which two commits differ, with what each has there; without `old`, all files of `new`."""
        old = old or EMPTY_TREE[len(new)]
        done = self._done("diff-tree", "-r", "-z", "--no-renames", "--no-abbrev", old, new)
        words = done.stdout.decode(errors="surrogateescape").split("\0")
        changes: dict[str, tuple[Entry | None, Entry | None]] = {}
        for raw, path in zip(words[0::2], words[1::2], strict=False):
            old_mode, new_mode, old_oid, new_oid, _ = raw.removeprefix(":").split(" ")
            changes[path] = (
                Entry(old_mode, old_oid) if old_mode.strip("0") else None,
                Entry(new_mode, new_oid) if new_mode.strip("0") else None,
            )
        return changes

    def modified(self, commit: str) -> dict[str, Entry]:
        """The files of a commit that may differ in the work tree, with what the commit has there."""
        words = ("diff-index", "-z", "--no-renames", "--no-abbrev", commit, "--")
        fields = self._done(*words, environment=self._no_filters()).stdout.decode(errors="replace").split("\0")
        found = {}
        for raw, path in zip(fields[0::2], fields[1::2], strict=False):
            mode, _, oid, _, _ = raw.removeprefix(":").split(" ")
            if mode.strip("0"):
                found[path] = Entry(mode, oid)
        return found

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether `old` is `new` or leads to it."""
        return self._git("merge-base", "--is-ancestor", old, new).status == 0

    def last_change(self, revision: str, path: str) -> str | None:
        """The newest commit up to `revision` that changed `path`."""
        while parent := self.pending.parent(revision):
            if self.ref(f"{revision}:{path}") != self.ref(f"{parent}:{path}"):
                return revision
            revision = parent
        done = self._done("log", "--max-count=1", "--format=%H", "--end-of-options", revision, "--", path)
        return done.stdout.decode().strip() or None

    def commits_between(self, old: str, new: str) -> list[str]:
        """The commits that `new` has beyond `old`, the oldest first."""
        return self._done("rev-list", "--reverse", f"{old}..{new}").stdout.decode().split()

    def files_with(self, commit: str, words: Iterable[str], names: str) -> list[str]:
        """The files of a commit, of these names, that hold one of these words as it stands."""
        patterns = [argument for word in sorted(set(words)) for argument in ("-e", word)]
        if not patterns:
            return []
        done = self._git("grep", "-l", "-z", "-I", "--fixed-strings", *patterns, commit, "--", names)
        if done.status > 1:
            raise self._failure("grep", done)
        found = done.stdout.decode(errors="surrogateescape").split("\0")
        return [path.removeprefix(f"{commit}:") for path in found if path]

    def dirty(self) -> list[str]:
        """The paths that git calls changed or untracked; untracked folders count once.

        No filter is asked, so a file that one rewrites may count as changed when it is not.
        """
        words = ("status", "--porcelain=v1", "-z", "--untracked-files=normal", "--no-renames")
        done = self._done(*words, environment=self._no_filters())
        return [entry[3:] for entry in done.stdout.decode(errors="replace").split("\0") if entry]

    def pack(self, commit: str, *, cancellation: Cancellation | None = None) -> bytes:
        """A pack with a commit, its tree and everything in it, and the bare commits that lead to it.

        Enough for nix to count revisions and to build exactly this one; older trees stay at home.
        """
        listing = ("rev-list", "--objects", "--no-object-names", "--no-walk", commit)
        with self._begun("rev-list", commit) as history, self._begun(*listing) as tree:
            listed = history() + tree()
        words = ("pack-objects", "--stdout", "--quiet", "--delta-base-offset", "--threads=1")
        done = self._git(*words, stdin=listed, cancellation=cancellation)
        if done.status:
            raise self._failure("pack-objects", done)
        return done.stdout

    # -- writing -------------------------------------------------------------------------------------------------

    def make_commit(self, commit: Commit) -> str:
        """Make the objects of a commit, which can be read here at once; `pending` writes them. Its name."""
        return self.pending.commit(commit, len(commit.base) if commit.base else self._width())

    def _width(self) -> int:
        """Digits of an object name, in a repository that has no commit to tell it by."""
        done = self._done("rev-parse", "--show-object-format")
        return 64 if done.stdout.strip() == b"sha256" else 40

    def make_tag(self, name: str, commit: str, tagger: Person, when: int, message: str) -> str:
        """Make an annotated tag of a commit, which can be read here at once; `pending` writes it, and no ref names it yet."""
        return self.pending.tag(name, commit, tagger, when, message)

    def update_refs(self, updates: Iterable[RefUpdate], *, keep: Sequence[int]) -> bool:
        """Move refs together, or none of them; False when one was not where it should be, or is locked.

        Raises Failed when git was killed in the middle, and may have left locks behind.
        """
        with self.moving(keep=keep) as move:
            return move(updates)

    @contextmanager
    def moving(self, *, keep: Sequence[int]) -> Iterator[Callable[[Iterable[RefUpdate]], bool]]:
        """The same by a git that starts while something else is done; it moves nothing before it is told what."""
        argv = self._argv("update-ref", "--stdin", "-m", "glixd")
        with self._processes.begun(argv, cwd=self.root, environment=ENVIRONMENT, keep=keep) as begun:

            def move(updates: Iterable[RefUpdate]) -> bool:
                begun.tell(_told(updates))
                done = begun.finish()
                if done.status < 0:
                    raise self._failure("update-ref", done)
                return done.status == 0

            yield move

    def delete_ref(self, ref: str) -> None:
        """Let a ref of ours go, whatever it names; one that is not there is no error."""
        self._git("update-ref", "--no-deref", "-d", ref)

    @contextmanager
    def staging(self, index: Path, entries: Staged, *, keep: Sequence[int]) -> Iterator[Callable[[], None]]:
        """Set entries of the index file `index` while something else is done.

        What is yielded waits until it is done; raises Failed where it can't be.
        """
        environment = {**ENVIRONMENT, **self._no_filters(), "GIT_INDEX_FILE": str(index)}
        argv = self._argv("update-index", "-z", "--index-info")
        try:
            with self._processes.begun(argv, cwd=self.root, environment=environment, keep=keep) as begun:
                width = max((len(entry.oid) for entry in entries.values() if entry), default=40)
                lines = [
                    f"{entry.mode} {entry.oid}\t{path}\0" if entry else f"0 {'0' * width}\t{path}\0"
                    for path, entry in entries.items()
                ]
                begun.tell("".join(lines).encode())

                def staged() -> None:
                    done = begun.finish()
                    if done.status:
                        raise self._failure("update-index", done)

                yield staged
        except BaseException:  # git is ended then, and may not have come to remove what it locks with
            Path(f"{index}.lock").unlink(missing_ok=True)
            raise

    def read_tree(self, commit: str, index: Path, *, keep: Sequence[int]) -> None:
        """Write an index file anew from a commit."""
        environment = self._no_filters() | {"GIT_INDEX_FILE": str(index)}
        done = self._git("read-tree", commit, keep=keep, environment=environment)
        if done.status:
            raise self._failure("read-tree", done)

    def merge(self, current: Path, base: Path, other: Path) -> bytes | None:
        """The three-way merge of three files; None when they conflict."""
        done = self._git("merge-file", "-p", "-q", str(current), str(base), str(other))
        return done.stdout if done.status == 0 else None

    def initialise(self, branch: str, object_format: str = "sha1") -> None:
        """Make the repository in an existing folder, with `branch` as its unborn branch."""
        words = (f"--object-format={object_format}", f"--initial-branch={branch}", "--template=")
        done = self._processes.run(["git", "init", "--quiet", *words, str(self.root)], environment=ENVIRONMENT)
        if done.status:
            raise self._failure("init", done)

    def bundle(self, ref: str, commit: str, target: Path, *, timeout: float) -> None:
        """Write a bundle of everything that leads to `commit`, which `ref` names or has left behind."""
        done = self._git("bundle", "create", "--quiet", str(target), ref, timeout=timeout)
        if done.status:
            raise self._failure("bundle", done)

    def fetch_bundle(self, bundle: Path, ref: str, *, timeout: float, cancellation: Cancellation | None = None) -> bool:
        """Take the commits of a bundle in, every object checked, and let `ref` name its HEAD; False where that can't be."""
        words = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", str(bundle), f"HEAD:{ref}")
        checks = ("-c", "fetch.fsckObjects=true", "-c", "fetch.unpackLimit=1", "-c", "core.bigFileThreshold=16m")
        done = self._git(*checks, *words, timeout=timeout, cancellation=cancellation)
        return done.status == 0

    def merge_base(self, one: str, other: str) -> str | None:
        """The newest commit that leads to both."""
        done = self._git("merge-base", one, other)
        return done.stdout.decode().split()[0] if done.status == 0 else None

    def sizes(self, oids: Iterable[str]) -> dict[str, int]:
        """The sizes of objects, without reading them."""
        asked = "".join(f"{oid}\n" for oid in oids).encode()
        done = self._git("cat-file", "--batch-check=%(objectname) %(objectsize)", stdin=asked)
        lines = [line.split() for line in done.stdout.decode().splitlines()]
        return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdecimal()}

    def in_background(
        self,
        *words: str,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        cancellation: Cancellation | None = None,
    ) -> bytes:
        """What a git that yields to everything else prints; raises Failed where it fails."""
        done = self._processes.run(
            self._argv(*words),
            stdin=stdin,
            cwd=self.root,
            environment={**ENVIRONMENT, **(environment or {})},
            cancellation=cancellation,
            memory=BACKGROUND_MEMORY,
        )
        if done.status:
            raise self._failure(words[0], done)
        return done.stdout

    def close(self) -> None:
        """End the long-lived reader; the next question starts another one."""
        with self._reading:
            self._end_reader()

    # -- plumbing ------------------------------------------------------------------------------------------------

    def _argv(self, *words: str) -> list[str]:
        settings = [word for name, value in SETTINGS for word in ("-c", f"{name}={value}")]
        return ["git", f"--git-dir={self.directory}", f"--work-tree={self.root}", *settings, *words]

    def _git(
        self,
        *words: str,
        stdin: bytes = b"",
        keep: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        cancellation: Cancellation | None = None,
        timeout: float | None = None,
    ) -> Completed:
        return self._processes.run(
            self._argv(*words),
            stdin=stdin,
            keep=keep,
            timeout=timeout,
            cwd=self.root,
            environment={**ENVIRONMENT, **(environment or {})},
            cancellation=cancellation,
        )

    def _done(self, *words: str, environment: Mapping[str, str] | None = None) -> Completed:
        done = self._git(*words, environment=environment)
        if done.status:
            raise self._failure(words[0], done)
        return done

    @contextmanager
    def _begun(self, *words: str) -> Iterator[Callable[[], bytes]]:
        """What git says to a question, while something else is done; raises Failed once it is wanted."""
        with self._processes.begun(self._argv(*words), cwd=self.root, environment=ENVIRONMENT) as begun:

            def answer() -> bytes:
                done = begun.finish()
                if done.status:
                    raise self._failure(words[0], done)
                return done.stdout

            yield answer

    def _no_filters(self) -> dict[str, str]:
        """The environment in which the filters of the repository's own configuration are empty, and so never run.

        Whatever compares files with the index would run them, even where it only writes the index.
        """
        if not self._may_filter():
            return {}
        listed = self._git("config", "--includes", "--null", "--name-only", "--get-regexp", r"^filter\..*\.")
        keys = dict.fromkeys(filter(None, listed.stdout.decode(errors="surrogateescape").split("\0")))
        environment = {"GIT_CONFIG_COUNT": str(len(keys))}
        for number, key in enumerate(keys):
            environment[f"GIT_CONFIG_KEY_{number}"] = key
            environment[f"GIT_CONFIG_VALUE_{number}"] = "false" if key.endswith(".required") else ""
        return environment

    def _may_filter(self) -> bool:
        """Whether the configuration may name filters; most do not, and then git need not be asked."""
        for name in ("config", "config.worktree"):
            with suppress(FileNotFoundError):
                text = (self.directory / name).read_bytes().lower()
                if b"filter" in text or b"include" in text:
                    return True
        return False

    def _failure(self, verb: str, done: Completed) -> Failed:
        words = done.stderr.decode(errors="replace").strip() or f"it ended with status {done.status}"
        return Failed(
            f"git {verb} failed in {self.root}: {words}", code=ErrorCode.READ_ONLY, hint="Run git fsck there."
        )

    def _ask(self, name: str) -> Object | None:
        if self._reader is not None and self._reader.poll() is not None:
            self._end_reader()
        if self._reader is None:
            self._reader = self._processes.start(
                self._argv("cat-file", "--batch"), cwd=self.root, environment=ENVIRONMENT
            )
            if self._reader.stderr is not None:
                os.set_blocking(self._reader.stderr.fileno(), False)
        reader = self._reader
        if reader.stdin is None or reader.stdout is None or reader.stderr is None:
            raise ValueError("the reader has no pipes")
        reader.stderr.read()  # what it said about others
        reader.stdin.write(name.encode(errors="surrogateescape") + b"\n")
        reader.stdin.flush()
        header = reader.stdout.readline()
        words = header.decode(errors="replace").split()
        if header.endswith((b" missing\n", b" ambiguous\n")):
            # what git says of an object that is there and can't be read is on standard error before the answer is out
            said = reader.stderr.read() or b""
            if b"error: " in said:
                raise self._unreadable(said.decode(errors="replace").strip())
            return None
        data = reader.stdout.read(int(words[2]) + 1)
        if len(data) <= int(words[2]):
            raise ValueError("the reader ended in the middle of an object")
        return Object(words[0], words[1], data[:-1])

    def _unreadable(self, words: str) -> Failed:
        return Failed(
            f"git can't read the repository {self.root}: {words}", code=ErrorCode.READ_ONLY, hint="Run git fsck there."
        )

    def _end_reader(self) -> str:
        reader, self._reader = self._reader, None
        if reader is None:
            return ""
        reader.kill()
        reader.wait()
        words = (reader.stderr.read() if reader.stderr else None) or b""
        for pipe in (reader.stdin, reader.stdout, reader.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        return words.decode(errors="replace").strip()


def _told(updates: Iterable[RefUpdate]) -> bytes:
    """What moves refs together, in the words of `git update-ref --stdin`."""
    lines = ["start"]
    for ref, new, old in updates:
        expected = "0" * len(new) if old is None else old
        lines.append(f"update {ref} {new} {expected}".rstrip())
    return "\n".join([*lines, "prepare", "commit", ""]).encode()


def log_entry(fields: Sequence[str]) -> LogEntry:
    """A commit as it is told: its name, moment, author and subject, its trailers, joined by a byte of 1, and all below the subject."""
    oid, moment, author, subject, trailers, body = fields
    found: dict[str, str] = {}
    for name, value in (line.partition(": ")[::2] for line in trailers.split("\x01") if line):
        found[name] = f"{found[name]}\n{value}" if name in found else value
    paragraphs = body.strip().split("\n\n")
    told = "\n\n".join(paragraphs[:-1] if found else paragraphs)
    return LogEntry(oid.strip(), int(moment), author, subject, found, told)
