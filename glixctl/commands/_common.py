# SPDX-License-Identifier: GPL-3.0-or-later
"""What several verbs share: their flags, reading page by page, and telling how a transaction ended."""

from __future__ import annotations

from glixctl import output
from glixctl.errors import ClientError
from glixctl.progress import Progress
from glixd.protocol import CANCELLED, PAGE_SIZE, SUCCEEDED, Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping
    from typing import Any

    from glixctl.client import Client

COMMIT_DIGITS = 7
"""Digits from which on a number is a commit and no generation."""


def host_flag(parser: ArgumentParser) -> None:
    """`--host`, for every verb that means one host."""
    parser.add_argument("--host", metavar="HOST", help="the host that is meant; by default the daemon's machine")


def mutation_flags(parser: ArgumentParser) -> None:
    """The flags of every verb that changes a host."""
    host_flag(parser)
    mutation_flags_without_host(parser)


def mutation_flags_without_host(parser: ArgumentParser) -> None:
    """The flags of a verb that changes something and names its host as an argument."""
    parser.add_argument("--dry-run", action="store_true", help="show the diff and change nothing")
    parser.add_argument("--no-evaluate", action="store_true", help="do not evaluate the host with the change")
    parser.add_argument("--reason", metavar="TEXT", help="why, in one line; part of the commit message")
    parser.add_argument("--apply", action="store_true", help="build it and switch the machine to it afterwards")


def consent_flags(parser: ArgumentParser) -> None:
    """The flags by which one consents to what nixpkgs refuses."""
    parser.add_argument("--allow-unfree", action="store_true", help="consent to an unfree licence")
    parser.add_argument("--allow-insecure", action="store_true", help="consent to known vulnerabilities")
    parser.add_argument("--allow-broken", action="store_true", help="consent to what is marked as broken")


def consents(options: Namespace) -> dict[str, object]:
    """What those flags said."""
    return given(
        allow_unfree=options.allow_unfree, allow_insecure=options.allow_insecure, allow_broken=options.allow_broken
    )


def names_argument(parser: ArgumentParser) -> None:
    """One package or more, as the manifest calls them."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="a package, as the manifest calls it")


def changes_argument(parser: ArgumentParser) -> None:
    """One change or more, as KEY=VALUE."""
    parser.add_argument("changes", nargs="+", type=change, metavar="KEY=VALUE", help="a new value; an empty one clears")


def change(text: str) -> tuple[str, str]:
    """One change of a key."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise _wrong(f"{text} has no value; write {text}=VALUE" if key else f"{text} names no key")
    return key, value


def count(text: str) -> int:
    """The value of a flag that limits how many are shown."""
    if not (text.isascii() and text.isdecimal() and int(text[:20])):
        raise _wrong(f"{text} is no number from 1 on")
    return int(text)


def _wrong(said: str) -> Exception:
    """What argparse tells about a value."""
    from argparse import ArgumentTypeError

    return ArgumentTypeError(said)


def generation(text: str | None) -> int | None:
    """The number of a generation; a commit has more digits than any of them."""
    short = text is not None and text.isascii() and text.isdecimal() and len(text) < COMMIT_DIGITS
    return int(text) if short and text is not None else None


def given(**parameters: object) -> dict[str, object]:
    """The parameters that were said; what was left out is the daemon's to decide."""
    return {name: value for name, value in parameters.items() if value is not None and value is not False}


def mutate(options: Namespace, client: Client, method: str, parameters: Mapping[str, object]) -> int:
    """Run a mutation with its own parameters and those of every mutation, and tell how it ended."""
    common = given(
        host=getattr(options, "host", None),
        dry_run=options.dry_run,
        reason=options.reason,
        apply=getattr(options, "apply", None),
    )
    if options.no_evaluate:
        common["evaluate"] = False
    return carry(options, client, method, {**parameters, **common})


def carry(options: Namespace, client: Client, method: str, parameters: Mapping[str, object]) -> int:
    """Run a mutation, show how far it is, and tell how it ended."""
    progress = Progress(quiet=options.quiet, documents=options.json)
    try:
        transaction = client.run(method, parameters, progress)
    finally:
        progress.clear()
    return report(options, transaction)


def report(options: Namespace, transaction: Mapping[str, Any]) -> int:
    """Tell how a transaction ended, and return the exit code that says the same."""
    for text in transaction.get("warnings") or ():
        output.warning(text)
    if options.json:
        output.document(transaction)
    if transaction.get("state") != SUCCEEDED:
        return _report_failure(options, transaction)
    outcome = transaction.get("outcome") or {}
    if not options.json:
        _report_success(options, transaction, outcome)
    if rebuild := outcome.get("rebuild"):
        from glixctl import rebuilt  # most changes switch nothing

        if not options.json and not options.quiet:
            rebuilt.print_report(rebuild)
        if rebuild.get("home") and rebuild.get("path"):
            from glixctl import home

            return home.activate(rebuild, quiet=options.quiet or options.json)
        return rebuilt.exit_code(rebuild)
    return Exit.DONE if outcome.get("changed", True) else Exit.NOTHING_TO_DO


def pages(
    client: Client, method: str, parameters: dict[str, object], *, items: str, cursor: str, limit: int | None
) -> dict[str, Any]:
    """A paged answer as one: page after page, until there is no other or `limit` is reached."""
    whole: dict[str, Any] = {}
    entries: list[object] = []
    while True:
        size = PAGE_SIZE if limit is None else min(PAGE_SIZE, limit - len(entries))
        page = client.call(method, {**parameters, "limit": size})
        entries += page.get(items) or ()
        whole = {**page, items: entries}
        following = page.get("next")
        if not following or (limit is not None and len(entries) >= limit):
            return whole
        parameters = {**parameters, cursor: following}


def note_health(health: Mapping[str, Any] | None, host: str | None = None) -> None:
    """Tell when the configuration of a host is not known to evaluate."""
    state = (health or {}).get("state", "ok")
    if health is None or state in ("ok", "unknown"):
        return
    subject = f"the configuration of {host}" if host else "the configuration"
    match state:
        case "evaluating":
            output.note(f"{subject} is being evaluated")
        case _:
            named, _, reason = (health.get("message") or "").partition(" does not evaluate: ")
            if host is None and reason:
                subject = named
            output.warning(f"{subject} does not evaluate" + (f": {reason or named}" if reason or named else ""))


def _report_success(options: Namespace, transaction: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
    summary = output.escape(outcome.get("summary") or transaction.get("operation") or "done").rstrip(".")
    commit = transaction.get("commit")
    if transaction.get("dry_run"):
        output.print_diff(outcome.get("diff") or "")
        if not options.quiet:
            output.line(f"dry run: {summary}; nothing was changed")
    elif not options.quiet:
        output.line(f"{summary} — commit {output.short(commit)}" if commit else summary)
        if offers := [output.escape(name) for name in outcome.get("offers") or ()]:
            output.line(f"Its files install these packages themselves: {', '.join(offers)}.")
            output.line(f"To manage them here, take them out of the files, then: glixctl add {' '.join(offers)}")


def _report_failure(options: Namespace, transaction: Mapping[str, Any]) -> int:
    failure = ClientError.from_wire(transaction.get("error") or _unexplained(transaction))
    error: ClientError = options.spelling.respelt(failure)
    if commit := transaction.get("commit"):
        output.warning(f"commit {output.short(commit)} stays: the failure came after it")
    output.failure(error)
    return error.exit_code


def _unexplained(transaction: Mapping[str, Any]) -> dict[str, object]:
    """The error of a transaction that ended badly and carries none."""
    from glixd.protocol import ErrorCode

    state = transaction.get("state")
    name = ErrorCode.CANCELLED if state == CANCELLED else ErrorCode.INTERNAL
    return {"name": name, "message": f"Transaction {transaction.get('id')} ended as {state}."}
