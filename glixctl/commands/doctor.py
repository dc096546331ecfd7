# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl doctor`: look for what is wrong with the machine, the daemon and the repository, and say how to mend it."""

from __future__ import annotations

from glixctl import output
from glixctl.commands._common import given
from glixctl.errors import ClientError, Unreachable
from glixd.protocol import COMMIT, SUCCEEDED, VERSION, Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any

    from glixctl.client import Client

    Check = dict[str, Any]

NAME = "doctor"
SUMMARY = "look for what is wrong, and say how to mend it"
ABOUT = (
    "It prints a line for each check: OK, WARN for what works and deserves a look, FAIL for what does not work.",
    "It ends with 1 when a check fails.",
    "With --fix it mends what needs no decision: what glixd writes and git's index, by the operation `regen`.",
)
EXAMPLES = (
    ("doctor", "look at everything that can be looked at without the network"),
    ("doctor --verify", "lock all inputs once more, too, and name those that moved on"),
    ("doctor --fix", "mend what can be mended without a question, and look again"),
)
ANSWER = "Diagnosis"

FAIL = "FAIL"
WIDTH = len("WARN")


def arguments(parser: ArgumentParser) -> None:
    """How thoroughly, and whether to mend."""
    parser.add_argument("--verify", action="store_true", help="lock everything once more; this may need the network")
    parser.add_argument("--fix", action="store_true", help="mend what needs no decision, and look again")


def run(options: Namespace, client: Client) -> int:
    """Doctor, and with --fix the operations that it names."""
    parameters = given(verify=options.verify)
    diagnosis = _examined(client, parameters)
    mended = _mended(client, diagnosis["checks"]) if options.fix else []
    if any(check["status"] == "OK" for check in mended):
        diagnosis = _examined(client, parameters)
    diagnosis["checks"] += mended
    if options.json:
        output.document(diagnosis)
    else:
        _print(options, diagnosis["checks"])
    return Exit.FAILED if any(check["status"] == FAIL for check in diagnosis["checks"]) else Exit.DONE


def _examined(client: Client, parameters: dict[str, object]) -> dict[str, Any]:
    """What the daemon found, below what this client found of the daemon."""
    try:
        diagnosis = client.call("Doctor", parameters)
        ping = client.call("Ping")
    except Unreachable as error:
        return {"checks": [_check("daemon", FAIL, error.message, error.hint or "glixctl ping")], "version": VERSION}
    return {**diagnosis, "checks": [_versions(ping), *diagnosis["checks"]]}


def _versions(ping: dict[str, Any]) -> Check:
    theirs, ours = (ping["version"], ping["commit"]), (VERSION, COMMIT)
    if theirs == ours:
        return _check("daemon", "OK", f"glixd {theirs[0]} answers, of the same version as this client")
    shown = " and ".join(f"{version} ({commit})" for version, commit in (theirs, ours))
    remedy = "Let the daemon end and start anew: systemctl --user restart glixd"
    return _check("daemon", "WARN", f"the daemon and this client differ: {shown}", remedy)


def _mended(client: Client, checks: list[Check]) -> list[Check]:
    """What became of the operations that mend something; nothing is done while a file has an edit in no commit."""
    operations = list(dict.fromkeys(check["fix"] for check in checks if check.get("fix")))
    if operations and any(
        check["name"] == "edits" and check["status"] != "OK" and check.get("path") for check in checks
    ):
        message = "nothing was mended: a managed file has an edit that is in no commit"
        return [_check("fix", "WARN", message, "glixctl adopt, and then glixctl doctor --fix")]
    return [_operated(client, operation) for operation in operations]


def _operated(client: Client, operation: str) -> Check:
    try:
        transaction = client.run(operation, {"reason": "glixctl doctor --fix"}, lambda _: None)
    except ClientError as error:
        return _check("fix", FAIL, error.message, error.hint or None)
    if transaction["state"] == SUCCEEDED:
        return _check("fix", "OK", f"{operation}: {transaction['outcome']['summary']}")
    error_info = transaction.get("error") or {}
    return _check(
        "fix", FAIL, f"{operation}: {error_info.get('message', transaction['state'])}", error_info.get("hint")
    )


def _check(name: str, status: str, message: str, remedy: str | None = None) -> Check:
    found = {"name": name, "status": status, "message": message}
    return found if remedy is None else {**found, "remedy": remedy}


def _print(options: Namespace, checks: list[Check]) -> None:
    width = max(len(check["name"]) for check in checks)
    for check in checks:
        if options.quiet and check["status"] == "OK":
            continue
        first, *more = output.escape_lines(check["message"])
        output.line(f"{check['status']:<{WIDTH}}  {output.escape(check['name']):<{width}}  {first}")
        indentation = " " * (WIDTH + width + 4)
        for text in more:
            output.line(f"{indentation}{text}")
        if check["status"] != "OK" and check.get("remedy"):
            output.line(f"{indentation}→ {output.escape(check['remedy'])}")
