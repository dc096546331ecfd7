# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl transaction list|show|log|cancel|watch`: look at transactions, stop one, or wait for its end."""

from __future__ import annotations

from glixctl import output
from glixctl.commands._common import count, given, report
from glixctl.errors import ClientError
from glixctl.progress import Progress
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence
    from typing import Any

    from glixctl.client import Client

NAME = "transaction"
SUMMARY = "look at transactions, stop one, or wait for its end"

HEADER = ("ID", "STATE", "OPERATION", "HOST", "BY", "CREATED (UTC)")


class List:
    """`transaction list`."""

    NAME = "list"
    SUMMARY = "list transactions, the newest first"
    EXAMPLES = (
        ("transaction list", "the last fifty transactions"),
        ("transaction list --state failed --limit 5", "the last five that failed"),
    )
    ANSWER = "Transactions"
    PARAMETERS = (("states", "state"),)

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        """Which, and how many."""
        from glixd.protocol import State  # slow to make: the other actions do without

        states = [state.value for state in State]
        parser.add_argument("--state", action="append", choices=states, help="only this state; may be repeated")
        parser.add_argument("--limit", type=count, metavar="N", help="at most so many (50)")

    @staticmethod
    def run(options: Namespace, client: Client) -> int:
        """ListTransactions."""
        answer = client.call("ListTransactions", given(states=options.state, limit=options.limit))
        if options.json:
            output.document(answer)
            return Exit.DONE
        if answer["transactions"]:
            output.print_table(HEADER, (_row(entry) for entry in answer["transactions"]))
        elif not options.quiet:
            output.note("no transactions")
        return Exit.DONE


class Show:
    """`transaction show`."""

    NAME = "show"
    SUMMARY = "show one transaction with its log"
    EXAMPLES = (("transaction show 01hzy7k3m5n8p0q2r4s6t8v0wx", "how a transaction ended, with its log"),)
    ANSWER = "Transaction"

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        """The transaction."""
        _id_argument(parser)

    @staticmethod
    def run(options: Namespace, client: Client) -> int:
        """GetTransaction."""
        transaction = client.call_interactively("GetTransaction", {"transaction": options.transaction})
        if options.json:
            output.document(transaction)
        else:
            _print(transaction)
        return Exit.DONE


class Log:
    """`transaction log`."""

    NAME = "log"
    SUMMARY = "show all that was said while a transaction ran, such as the log of a build"
    EXAMPLES = (
        ("transaction log", "the log of the newest transaction that is yours"),
        ("transaction log 01hzy7k3m5n8p0q2r4s6t8v0wx", "the log of one transaction"),
    )
    ANSWER = "LogPage"

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        """The transaction."""
        parser.add_argument("transaction", nargs="?", metavar="ID", help="the id of the transaction; else the newest")

    @staticmethod
    def run(options: Namespace, client: Client) -> int:
        """TransactionLog, page by page, as far as it goes now."""
        identifier = options.transaction or _newest(client)
        lines: list[str] = []
        offset = 0
        while True:
            page = client.call("TransactionLog", {"transaction": identifier, "offset": offset})
            if options.json:
                lines += page["lines"]
            else:
                for text in page["lines"]:
                    output.line(output.escape(text))
            if page.get("next") is None or not page["lines"]:
                break
            offset = page["next"]
        if options.json:
            output.document({**page, "lines": lines})
        return Exit.DONE


class Cancel:
    """`transaction cancel`."""

    NAME = "cancel"
    SUMMARY = "stop a transaction that has not reached its commit point"
    EXAMPLES = (("transaction cancel 01hzy7k3m5n8p0q2r4s6t8v0wx", "stop it, if nothing is committed yet"),)
    ANSWER = "Empty"

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        """The transaction."""
        _id_argument(parser)

    @staticmethod
    def run(options: Namespace, client: Client) -> int:
        """Cancel."""
        answer = client.call_interactively("Cancel", {"transaction": options.transaction})
        if options.json:
            output.document(answer)
        elif not options.quiet:
            output.line(f"asked transaction {output.escape(options.transaction)} to stop")
        return Exit.DONE


class Watch:
    """`transaction watch`."""

    NAME = "watch"
    SUMMARY = "follow a transaction until it ends, and end as it does"
    EXAMPLES = (("transaction watch 01hzy7k3m5n8p0q2r4s6t8v0wx", "follow it, and end with its exit code"),)
    ANSWER = "Transaction"

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        """The transaction."""
        _id_argument(parser)

    @staticmethod
    def run(options: Namespace, client: Client) -> int:
        """Watch and Wait."""
        progress = Progress(quiet=options.quiet, log=True, documents=options.json)
        try:
            transaction = client.watch(options.transaction, progress)
        finally:
            progress.clear()
        return report(options, transaction)


ACTIONS = (List, Show, Log, Cancel, Watch)


def _newest(client: Client) -> str:
    found = client.call("ListTransactions", {"limit": 1})["transactions"]
    if not found:
        from glixd.protocol import ErrorCode

        error = {"name": ErrorCode.UNKNOWN_TRANSACTION, "message": "There is no transaction yet."}
        raise ClientError.from_wire(error)
    return str(found[0]["id"])


def _id_argument(parser: ArgumentParser) -> None:
    parser.add_argument("transaction", metavar="ID", help="the id of the transaction")


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    created = output.moment(entry["created"])
    return (entry["id"], entry["state"], entry["operation"], entry.get("host") or "", entry["login"], created)


def _print(transaction: dict[str, Any]) -> None:
    outcome = transaction.get("outcome") or {}
    error = transaction.get("error") or {}
    output.print_fields(
        {
            "id": transaction["id"],
            "operation": transaction["operation"] + (" (dry run)" if transaction.get("dry_run") else ""),
            "host": transaction.get("host"),
            "state": transaction["state"],
            "step": transaction.get("step"),
            "by": f"{transaction['login']} ({transaction['uid']})",
            "reason": transaction.get("reason"),
            "created": output.moment(transaction["created"]),
            "finished": output.moment(transaction.get("finished")),
            "commit": transaction.get("commit"),
            "summary": outcome.get("summary"),
            "error": error.get("message"),
            "hint": error.get("hint"),
        }
    )
    _print_lines("warnings", transaction.get("warnings") or ())
    _print_lines("log", transaction.get("log") or ())


def _print_lines(title: str, lines: Sequence[object]) -> None:
    if lines:
        output.line(f"{title}:")
    for text in lines:
        output.line(f"  {output.escape(text)}")
