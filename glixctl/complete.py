# SPDX-License-Identifier: GPL-3.0-or-later
"""What may stand at the cursor of a command line: verbs and flags from the parser, live words from the daemon.

The scripts of `glixctl completion` call `glixctl __complete PROGRAM WORD… CURRENT` and get a line for each candidate: the
word, a tab and what it is. The line `:files` or `:folders` asks the shell for names of its own. The daemon is asked only
where it runs already, and only for so long; whatever goes wrong, there are no candidates and no words about it.
"""

from __future__ import annotations

import contextlib
import os
import signal

from glixctl import cli, commands, output
from glixctl.client import Client, Target
from glixctl.errors import ClientError
from glixd.protocol import PAGE_SIZE, Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import FrameType
    from typing import NoReturn

    Candidate = tuple[str, str]
    """A word, and what it is."""
    Source = Callable[["_Asking"], Iterable[Candidate]]

LIMIT = 0.25
"""Seconds in which the daemon has to answer; with the start of the program it makes less than 300 ms."""
SEARCHED = 2
"""Letters of a package from which on it is searched for."""
FILES = ":files"
FOLDERS = ":folders"


def run(words: Sequence[str]) -> int:
    """Print the candidates for the last of `words`; the first is the name of the program."""
    *before, current = words[1:] or [""]
    for word, what in _candidates(before, current):
        if word.startswith((current, ":")) and word.isprintable():
            print(f"{word}\t{output.escape(what)}" if what else word)
    return Exit.DONE


def _candidates(before: Sequence[str], current: str) -> Iterable[Candidate]:
    found = cli.find(before)
    table = found.parser.table if found else cli.every_flag()
    parted = found.parted if found else cli.Parted(table, before)
    asking = _Asking(parted.flags, found.arguments if found else (), current, found.parser.prog if found else "")
    flag, equals, _ = current.partition("=")
    if parted.unfinished is not None:
        return _values(parted.unfinished, asking)
    if not parted.literal and current.startswith("-"):
        action = table.get(flag)
        if equals and action is not None:
            return ((f"{flag}={word}", what) for word, what in _values(action, asking) if word[:1] != ":")
        return _flags(table, parted.flags)
    if found is None:
        return _verbs([before[index] for index in parted.others])
    action = _positional(found.parser.positionals, len(found.arguments))
    return _values(action, asking) if action is not None else ()


def _verbs(others: Sequence[str]) -> Iterator[Candidate]:
    """The verbs, or the actions of the group that is named already."""
    if not others:
        yield from ((verb, commands.load(verb).SUMMARY) for verb in commands.VERBS)
    elif len(others) == 1 and others[0] in commands.VERBS:
        yield from ((action.NAME, action.SUMMARY) for _, action in commands.members(others[0]))


def _flags(table: Mapping[str, argparse.Action], given: Iterable[str]) -> Iterator[Candidate]:
    """The flags that can still be given; a short one only stands for its long one."""
    from argparse import SUPPRESS

    used = {table[word.partition("=")[0]].dest for word in given}
    for name, action in table.items():
        repeatable = type(action).__name__ == "_AppendAction"
        if name.startswith("--") and action.help != SUPPRESS and (repeatable or action.dest not in used):
            yield name, action.help or ""


def _positional(positionals: Sequence[argparse.Action], count: int) -> argparse.Action | None:
    """The argument that comes after `count` others."""
    if count < len(positionals):
        return positionals[count]
    return positionals[-1] if positionals and positionals[-1].nargs in ("+", "*") else None


def _values(action: argparse.Action, asking: _Asking) -> Iterable[Candidate]:
    """What an argument or a flag can be."""
    if action.choices is not None:
        return [(str(choice), "") for choice in action.choices]
    metavar = str(action.metavar)
    if metavar == "NAME" and action.option_strings:
        return ()  # a name that does not exist yet
    source = _SOURCES.get(metavar)
    return _within_limit(source, asking) if source is not None else ()


def _within_limit(source: Source, asking: _Asking) -> list[Candidate]:
    """What a source has said when it was done, went wrong, or the time was over."""
    said: list[Candidate] = []
    try:
        with _alarm(LIMIT):
            for candidate in source(asking):
                if candidate[0] not in asking.arguments:
                    said.append(candidate)  # noqa: PERF401 - what was said before an error counts
    except (_TimeIsOver, ClientError, OSError, LookupError, TypeError, ValueError, AttributeError):
        pass
    finally:
        asking.close()
    return said


class _TimeIsOver(Exception):
    """The daemon did not answer in time."""


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise _TimeIsOver in the body when it takes longer."""
    former = signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def _ring(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _TimeIsOver


class _Asking:
    """The daemon that the flags of the command line mean, where it runs, and what they say about the question."""

    def __init__(self, flags: Sequence[str], arguments: Sequence[str], current: str, verb: str) -> None:
        self.arguments = arguments
        self.current = current
        self.verb = verb
        self._flags = dict(word[2:].split("=", 1) for word in flags if word.startswith("--") and "=" in word)
        self._client: Client | None = None

    def call(self, method: str, **parameters: object) -> dict[str, list[dict[str, str]]]:
        """The answer to a query; never starts a daemon."""
        if self._client is None:
            directory = os.path.expanduser(self._flags.get("dir", "")) or None  # the shell has not expanded it yet
            target = Target.choose(os.environ, mode=self._flags.get("mode"), directory=directory)
            self._client = Client(Target(target.mode, target.socket, "socket"), os.environ)
        return self._client.call(method, parameters)

    @property
    def host(self) -> dict[str, str]:
        """The host that is named, as a parameter."""
        host = self._flags.get("host")
        return {"host": host} if host else {}

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._client.close()


def _packages(asking: _Asking) -> Iterator[Candidate]:
    cursor: dict[str, object] = {}
    while True:
        page = asking.call("List", include_disabled=True, limit=PAGE_SIZE, **asking.host, **cursor)
        yield from ((package["name"], package["flake"]) for package in page["packages"])
        if not page.get("next"):
            return
        cursor = {"after": page["next"]}


def _found(asking: _Asking) -> Iterator[Candidate]:
    """What could be added and begins like the word at the cursor; a letter alone would be half of nixpkgs."""
    if len(asking.current) >= SEARCHED:
        for match in asking.call("Search", query=asking.current, limit=PAGE_SIZE, **asking.host)["matches"]:
            yield match["name"], match.get("description") or match["flake"]


def _hosts(asking: _Asking) -> Iterator[Candidate]:
    for host in asking.call("ListHosts")["hosts"]:
        yield host["name"], host.get("system") or ""


def _users(asking: _Asking) -> Iterator[Candidate]:
    users = {user: host["name"] for host in asking.call("ListHosts")["hosts"] if (user := host.get("primary_user"))}
    yield from ((user, f"the primary user of {host}") for user, host in users.items())


def _inputs(asking: _Asking) -> Iterator[Candidate]:
    for entry in asking.call("Info")["inputs"]:
        yield entry["name"], entry.get("url") or ""


def _transactions(asking: _Asking) -> Iterator[Candidate]:
    for entry in asking.call("ListTransactions")["transactions"]:
        yield entry["id"], " ".join((entry["operation"], entry.get("host") or "", entry["state"]))


def _commits(asking: _Asking) -> Iterator[Candidate]:
    for entry in asking.call("History")["entries"]:
        yield output.short(entry["commit"]), entry["subject"]


def _generations(asking: _Asking) -> Iterator[Candidate]:
    for one in asking.call("ListGenerations", **asking.host)["generations"]:
        said = (output.moment(one["created"]), one.get("subject") or "no commit")
        yield str(one["number"]), " ".join(said)


def _commits_and_generations(asking: _Asking) -> Iterator[Candidate]:
    yield from _generations(asking)
    yield from _commits(asking)


def _changes(asking: _Asking) -> Iterator[Candidate]:
    """Every key of a host, or of a package: with its values where they are known, else for the person to go on."""
    known, user = (_OF_HOSTS, "primary_user") if asking.verb.endswith("host set") else (_OF_PACKAGES, "user")
    for key, values in known.items():
        if key == user and asking.current.startswith(user):
            yield from ((f"{user}={name}", what) for name, what in _users(asking))
        elif values:
            yield from ((f"{key}={value}", "") for value in values)
        else:
            yield (key if key.endswith(".") else f"{key}="), ""


def _topics(_asking: _Asking) -> Iterator[Candidate]:
    yield from ((task, title) for task, (title, _) in commands.TASKS.items())
    yield from _verbs(())


_TRUTHS = ("true", "false")
_SCOPES = ("system", "home")
_SYSTEMS = ("x86_64-linux", "aarch64-linux")
_OF_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "scope": _SCOPES,
    "enabled": _TRUTHS,
    "follows": _TRUTHS,
    "pin": (),
    "user": (),
    "flake": (),
    "config.": (),
}
_OF_HOSTS: Mapping[str, tuple[str, ...]] = {
    "default_scope": _SCOPES,
    "auto_apply": _TRUTHS,
    "core_modules": _TRUTHS,
    "system": _SYSTEMS,
    "primary_user": (),
    "registry_url": (),
    "state_version": (),
}
"""The keys of the table, each with the values that it can have where they are few."""

_SOURCES: Mapping[str, Source] = {
    "COMMIT": _commits,
    "COMMIT|GENERATION": _commits_and_generations,
    "GENERATION": _generations,
    "DIR": lambda _: [(FOLDERS, "")],
    "FILE": lambda _: [(FILES, "")],
    "FOLDER": lambda _: [(FOLDERS, "")],
    "HOST": _hosts,
    "ID": _transactions,
    "INPUT": _inputs,
    "KEY=VALUE": _changes,
    "NAME": _packages,
    "PATH": lambda _: [(FILES, "")],
    "PROFILE": lambda _: [("minimal", "without a screen"), ("desktop", "a graphical machine")],
    "REF": _found,
    "SYSTEM": lambda _: [(system, "") for system in _SYSTEMS],
    "TOPIC": _topics,
    "USER": _users,
    "WORD": _found,
}
"""Where the words for an argument or flag come from, by the word that stands for it in its help."""
