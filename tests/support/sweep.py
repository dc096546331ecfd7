# SPDX-License-Identifier: GPL-3.0-or-later
"""The fault sweep of a mutation: disturb a whole daemon at every point, then look whether the repository is old or new.

Each point has a copy of one world of its own, in which a person has work of all kinds under way. The new state is known from
a run that nobody disturbed. What is wrong after a fault is told in sentences, so that a sweep over an unsafe way of working
can be seen to find something.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from glixd.errors import GlixError
from tests.support.beside import NOTHING, Nothing
from tests.support.daemon import RpcClient, RpcError
from tests.support.faults import KILL, KILLED, Call, Fault, Watch, calls, follow, hit, undisturbed
from tests.support.hermetic import git
from tests.support.inprocess import SAFE, World, serve

HEARD: Final = "heard"
"""The folder of a world that is made when a client has heard how its change ended, where that moment matters."""
NAMED: Final = "%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)"
"""What a tag names in the end: the object of an annotated one says when it was made."""
TOLD: Final = ("id", "state", "commit", "error", "warnings")


@dataclass(frozen=True)
class Facts:
    """What of a repository must be exactly old or exactly new."""

    commits: tuple[tuple[str, str], ...]
    """Each commit of HEAD with its tree, the oldest first."""
    refs: str
    """Every tag with the commit that it names, and what HEAD is."""
    status: str
    work: Mapping[str, str]
    """Mode and digest of each file of the work tree."""

    @classmethod
    def of(cls, root: Path) -> Facts | None:
        """The facts of a repository as it is now; None where there is none."""
        if not root.exists():
            return None
        log = git(root, "log", "--reverse", "--format=%H %T").splitlines()
        return cls(
            tuple((line[:40], line[41:]) for line in log),
            git(root, "for-each-ref", f"--format=%(refname) {NAMED}", "refs/tags")
            + (root / ".git" / "HEAD").read_text(),
            git(root, "--no-optional-locks", "status", "--porcelain", "--untracked-files=all"),
            digests(root),
        )

    @property
    def head(self) -> str:
        """The newest commit."""
        return self.commits[-1][0]

    def form(self, old: Facts | None) -> tuple[object, ...]:
        """What is the same whenever it is done: of the commits that are not `old` the trees, since their names are not."""
        return (*self.history(old), self.refs, self.status, self.work)

    def history(self, old: Facts | None) -> tuple[object, ...]:
        """The commits that are as old as `old`, and the trees of those that came since."""
        known = len(old.commits) if old else 0
        return (self.commits[:known], tuple(tree for _, tree in self.commits[known:]))


def digests(root: Path) -> dict[str, str]:
    """Mode and digest of each file of a work tree, by its path."""
    found = {}
    for folder, folders, names in os.walk(root):
        if folder == os.fspath(root):
            folders[:] = [name for name in folders if name != ".git"]
        for name in names:
            path = os.path.join(folder, name)
            facts = os.lstat(path)
            link = stat.S_ISLNK(facts.st_mode)
            content = os.fsencode(os.readlink(path)) if link else Path(path).read_bytes()
            found[os.path.relpath(path, root)] = f"{facts.st_mode:o} {hashlib.sha256(content).hexdigest()}"
    return found


def trace(root: Path) -> dict[str, str]:
    """Everything of a repository, git's own files too; the index is what git says of it, since reading refreshes it."""
    git_folder = root / ".git"
    left_out = ("index", "glix/daemon.lock", "glix/lock")
    return digests(root) | {
        f".git/{path}": digest for path, digest in digests(git_folder).items() if path not in left_out
    }


@dataclass(frozen=True)
class Case:
    """One mutation on one world, in one way of working."""

    name: str
    template: World
    operation: str
    parameters: Mapping[str, Any]
    next: tuple[str, Mapping[str, Any]]
    variant: str = SAFE
    without_room: bool = False
    beside: Nothing = NOTHING


@dataclass(frozen=True)
class Reference:
    """What a case does when nobody disturbs it."""

    old: Facts | None
    new: Facts
    calls: tuple[Call, ...]

    @property
    def changes(self) -> bool:
        """Whether the repository is another one afterwards."""
        return self.old is None or self.new.form(self.old) != self.old.form(self.old)

    def points(self, fault: Fault) -> list[Call]:
        """The calls that a fault may hit, with the number that they have among them."""
        return hit(self.calls, fault)


@dataclass(frozen=True)
class Told:
    """What a client heard: that a transaction was begun, how it ended, or an error."""

    begun: str | None = None
    ended: Mapping[str, Any] | None = None
    error: str | None = None

    @classmethod
    def of(cls, lines: Sequence[Mapping[str, Any]]) -> Told:
        """What the lines say that `_ask` wrote."""
        said: dict[str, Any] = {}
        for line in lines:
            said |= line
        return cls(**said)


def reference(case: Case, place: Path) -> Reference:
    """Run a case undisturbed; the points of its sweep."""
    copy = case.template.copy_to(place / "world")
    try:
        with case.beside.standing(case.template, copy) as world:
            return undisturbed_run(case, world, Facts.of(world.repository))[0]
    finally:
        shutil.rmtree(place)


def undisturbed_run(case: Case, world: World, old: Facts | None, copies: Path | None = None) -> tuple[Reference, Told]:
    """Run a case in its world without a fault, with a copy of each file that is made durable where `copies` says so."""
    told, status = tried(case, world, KILL, 0, copies)
    assert status == 0, (told, _log(world.beside))
    assert told.ended, (told, _log(world.beside))
    assert told.ended["state"] == "succeeded", told
    new = Facts.of(world.repository)
    assert new is not None
    return Reference(old, new, tuple(calls(world.beside / "calls"))), told


def problems(case: Case, known: Reference, fault: Fault, point: int, place: Path) -> list[str]:
    """What is wrong after a fault at one point; nothing when it is clean."""
    copy = case.template.copy_to(place / "world")
    with case.beside.standing(case.template, copy) as world:
        told, status = tried(case, world, fault, point)
        case.beside.settle(world)
        found = [*_ended_badly(place, status, fault, told), *aside(place, lambda: examine(case, world, known, told))]
    shutil.rmtree(place)
    return found


def aside(place: Path, work: Callable[[], list[str]]) -> list[str]:
    """What `work` finds in a child, which takes along all that a daemon leaves in its process."""
    answer = place / "found"

    def carry() -> None:
        _log_to(place)
        answer.write_text(json.dumps(work()))

    status = undisturbed(carry)
    return (
        json.loads(answer.read_text()) if status == 0 else [f"looking at it ended with {status}: {_log(place)[-3000:]}"]
    )


def tried(case: Case, world: World, fault: Fault, point: int, copies: Path | None = None) -> tuple[Told, int]:
    """Carry the mutation under a fault; what the client heard, and how the daemon ended."""
    place = world.beside
    reading, writing = os.pipe()
    log = place / "calls" if point == 0 else None
    watch = Watch(world.root, asides(world), log, copies)

    def work() -> None:
        _log_to(place)
        heard = world.root / HEARD if copies else None
        try:
            serve(
                world,
                lambda client: _ask(case, client, writing, heard),
                variant=case.variant,
                without_room=case.without_room,
            )
        except (GlixError, OSError) as error:  # as the program does: a sentence, and an exit code
            os.write(2, f"it could not serve: {error}\n".encode())
            _tell(writing, error=str(error) or type(error).__name__)

    status = follow(work, watch, fault, point)
    os.close(writing)
    with os.fdopen(reading, "rb") as lines:
        return Told.of([json.loads(line) for line in lines]), status


def asides(world: World) -> list[Path]:
    """The folders of a world that are no concern of a sweep: whatever happens to them, they are made anew."""
    return [world.state / "cache", world.state / "home"]


def _ask(case: Case, client: RpcClient, told: int, heard: Path | None) -> None:
    """Ask for the mutation as a client does, and pass on what it hears at the moment when it hears it.

    The folder `heard` is made at the moment when it hears the end, so that the log of the calls says when that was.
    """
    try:
        transaction = client.call(case.operation, **case.parameters)["transaction"]
        _tell(told, begun=transaction)
        ended = client.wait(transaction)
    except RpcError as error:
        _tell(told, error=error.name)
    else:
        if heard:
            heard.mkdir()
        _tell(told, ended={name: ended[name] for name in TOLD if name in ended})


def _tell(told: int, **words: Any) -> None:
    os.write(told, json.dumps(words).encode() + b"\n")


def _log_to(place: Path) -> None:
    output = os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 2)
    os.close(output)


def _log(place: Path) -> str:
    return (place / "log").read_text() if (place / "log").exists() else ""


def _ended_badly(place: Path, status: int, fault: Fault, told: Told) -> Iterator[str]:
    log = _log(place)
    if status not in (0, KILLED if fault.kills else 0):
        yield f"it ended with {status}: {log[-1500:]}"
    if "met a defect" in log:
        yield f"it met a defect: {log[log.index('met a defect') :][:3000]}"
    if not fault.kills and told.ended is None and told.error is None:
        yield f"the client was told nothing: {log[-1500:]}"


# -- afterwards ----------------------------------------------------------------------------------------------------


def examine(case: Case, world: World, known: Reference, told: Told) -> list[str]:
    """What is wrong with a world after a fault: before, during and after a recovery, and with the next change."""
    facts = Facts.of(world.repository)
    found = [*_torn(world, facts, known), *_told_wrongly(facts, known, told)]
    started: list[bool] = []

    def first(client: RpcClient) -> None:
        started.append(True)
        facts = Facts.of(world.repository)
        found.extend(_told_wrongly_after_all(case, facts, known, told))
        found.extend(_recovered(world, facts, known))
        record = _record(client, told)
        found.extend(_recorded(record, facts, known))
        found.extend(case.beside.problems(world, record or told.ended or {}, new=_is_new(facts, known)))

    def second(client: RpcClient) -> None:
        started.append(True)
        if trace_before != _trace(world):
            found.append("a second recovery changes what the first left")
        found.extend(_next_works(client, case, world))

    found.extend(_session(world, first, case))
    trace_before = _trace(world)
    found.extend(_session(world, second, case))
    if not found and len(started) != 2:
        found.append("the daemon did not come to serve again")
    with suppress(OSError):
        found.extend(f"something was left: {name}" for name in sorted(os.listdir(world.root)) if name.startswith("."))
    return found


def examine_full(case: Case, world: World, known: Reference, told: Told) -> list[str]:
    """What is wrong on a disk that is still full, after each of two recoveries: what is not published yet may be old."""
    found: list[str] = []
    for _ in range(2):
        asked = _session(
            world,
            lambda client: found.extend(_recorded(_record(client, told), Facts.of(world.repository), known)),
            case,
        )
        facts = Facts.of(world.repository)
        found.extend([*asked, *_torn(world, facts, known), *_told_wrongly_after_all(case, facts, known, told)])
        locks = (world.repository / ".git").rglob("*.lock")
        found.extend(f"a lock was left: {path}" for path in locks if path.name != "daemon.lock")
    return found


def _session(world: World, script: Callable[[RpcClient], None], case: Case) -> list[str]:
    """What a script finds beside a daemon of this very process; it goes wrong itself where the daemon can't serve."""
    found: list[str] = []
    try:
        serve(world, script, variant=case.variant, without_room=case.without_room)
    except (GlixError, RpcError, OSError, AssertionError, EOFError, subprocess.CalledProcessError) as error:
        found.append(f"the next daemon fails: {type(error).__name__} {error}")
    return found


def _trace(world: World) -> dict[str, str]:
    return trace(world.repository) if world.repository.exists() else {}


def _is_new(facts: Facts | None, known: Reference) -> bool:
    """Whether the change is there, as far as git goes."""
    if facts is None or known.old is None:
        return facts is not None
    if len(known.new.commits) == len(known.old.commits):
        return facts.refs == known.new.refs
    return facts.head != known.old.head


def _torn(world: World, facts: Facts | None, known: Reference) -> Iterator[str]:
    """What must hold at any moment: the history is old or new, and so is each file."""
    if facts is None:
        if known.old is not None:
            yield "the repository is gone"
        return
    old = known.old
    if old and facts.commits != old.commits and facts.history(old) != known.new.history(old):
        yield f"HEAD is neither old nor new: {facts.commits[len(old.commits) - 1 :]}"
    was = old.work if old else {}
    for path in {*facts.work, *was, *known.new.work}:
        if facts.work.get(path) not in (was.get(path), known.new.work.get(path)):
            yield f"the file {path} is neither old nor new"
    yield from _damage(world.repository)


def _told_wrongly(facts: Facts | None, known: Reference, told: Told) -> Iterator[str]:
    new = _is_new(facts, known)
    if told.error and new and known.changes:
        yield f"an error was told, and the change is there: {told}"
    if told.ended:
        yield from _says_wrongly(told.ended, facts, known, new=new)


def _told_wrongly_after_all(case: Case, facts: Facts | None, known: Reference, told: Told) -> Iterator[str]:
    """The same once another daemon was there, which may have finished what was told to be half done."""
    if not (_is_new(facts, known) and case.beside.may_be_finished(told.ended or {})):
        yield from _told_wrongly(facts, known, told)


def _says_wrongly(record: Mapping[str, Any], facts: Facts | None, known: Reference, *, new: bool) -> Iterator[str]:
    """What a record says that is not so."""
    if not known.changes:
        return
    commits = known.old is None or len(known.new.commits) > len(known.old.commits)
    error = record.get("error", {})
    interrupted = error.get("name") == "Interrupted" and "nothing was changed" not in error["message"]
    halfway = not commits and (interrupted or any("they stay" in words for words in record.get("warnings", ())))
    if (record["state"] == "succeeded") is not new and not halfway:
        yield f"the change is {'' if new else 'not '}there, and the record says: {dict(record)}"
    if commits and record.get("commit") != (facts.head if facts and new else None):
        yield f"the record has the commit {record.get('commit')}, and HEAD is {facts.head if facts else None}"


def _recovered(world: World, facts: Facts | None, known: Reference) -> Iterator[str]:
    """What is wrong once a daemon has started: everything is old, or everything is new."""
    if facts is None:
        if known.old is not None:
            yield "the repository is gone"
        return
    expected = known.new if _is_new(facts, known) else known.old
    if expected is None or facts.form(known.old) != expected.form(known.old):
        yield f"after recovery it is neither old nor new: {_difference(known.old, expected, facts)}"
    locks = (world.repository / ".git").rglob("*.lock")
    yield from (f"a lock was left: {path}" for path in locks if path.name != "daemon.lock")
    scratch = [*(world.repository / ".git" / "glix" / "tmp").glob("*"), *(world.state / "scratch").glob("*")]
    yield from (f"scratch was left: {path.name}" for path in scratch)
    yield from _damage(world.repository)


def _difference(old: Facts | None, expected: Facts | None, facts: Facts) -> str:
    if expected is None:
        return "there should be none"
    names = ("older commits", "new trees", "refs", "status", "work")
    pairs = [(name, a, b) for name, a, b in zip(names, expected.form(old), facts.form(old), strict=True) if a != b]
    return "; ".join(f"{name}: {_shown(a, b)}" for name, a, b in pairs)


def _shown(expected: object, found: object) -> str:
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        return str([path for path in {*expected, *found} if expected.get(path) != found.get(path)])
    return f"{expected!r} is {found!r}"


def _record(client: RpcClient, told: Told) -> Mapping[str, Any] | None:
    """The record of the transaction after a restart; a database that could not be written has none."""
    if told.begun is None:
        return None
    try:
        record: Mapping[str, Any] = client.call("GetTransaction", transaction=told.begun)
    except RpcError as error:
        if error.name != "UnknownTransaction":
            raise  # which is told as a daemon that fails
        return None
    return record


def _recorded(record: Mapping[str, Any] | None, facts: Facts | None, known: Reference) -> Iterator[str]:
    """What is wrong with the record after a restart."""
    if record is None:
        return
    if record["state"] not in ("succeeded", "failed", "cancelled"):
        yield f"the record has no end: {record}"
    yield from _says_wrongly(record, facts, known, new=_is_new(facts, known))


def _next_works(client: RpcClient, case: Case, world: World) -> Iterator[str]:
    """Whether the next change works, and does what it says."""
    before = Facts.of(world.repository)
    operation, parameters = case.next if before is None else ("Add", {"refs": ["nixpkgs#git"]})
    ended = client.run(operation, **parameters)
    after = Facts.of(world.repository)
    warnings = [words for words in ended.get("warnings", ()) if not words.startswith("Took over the edit of ")]
    if ended["state"] != "succeeded" or warnings:
        yield f"the next change does not go well: {ended}"
    elif after is None or after.head != ended["commit"] or after.commits[:-1] != (before.commits if before else ()):
        yield f"the next change did not make one commit: {ended}"
    elif before:
        changed = {path for path in {*before.work, *after.work} if before.work.get(path) != after.work.get(path)}
        if not changed or not all(path.endswith("/glix.toml") for path in changed):
            yield f"the next change changed {sorted(changed)}"


def _damage(root: Path) -> Iterator[str]:
    done = subprocess.run(
        ["git", "-C", os.fspath(root), "fsck", "--strict", "--no-dangling", "--no-progress"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or done.stderr:
        yield f"git fsck: {done.stdout}{done.stderr}"
