# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl rebuild`: build what is committed, and switch the machine to it."""

from __future__ import annotations

from glixctl import output
from glixctl.commands._common import carry, count, given, host_flag
from glixctl.errors import ClientError, UsageError
from glixctl.progress import Progress
from glixd.protocol import SUCCEEDED

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping
    from typing import Any

    from glixctl.client import Client

NAME = "rebuild"
SUMMARY = "build what is committed, and switch the machine to it"
ACTIONS_OF = {
    "switch": "make it the running system, now and at every boot",
    "boot": "make it the system from the next boot on",
    "test": "make it the running system until the next boot",
    "build": "only build it, and say what would change",
    "dry-build": "say what would be built and fetched",
    "dry-activate": "build it, and say what a switch would change and restart",
}
ABOUT = (
    "Builds the newest commit, never the work tree: edits in no commit are named, with the command that commits them.",
    "\n".join(f"  {name:<13} {what}" for name, what in ACTIONS_OF.items()),
    "Ctrl-C stops a build and changes nothing. Once the machine is being switched, nothing stops it.",
    "It ends with 8 when the machine is switched and units of it failed, and with 9 when a reboot is needed.",
    "With --target-host other machines are switched, over ssh, as you: the daemon only builds. Each machine is a line of the table; one that fails keeps no other from being switched. --dry-run says each command.",
)
EXAMPLES = (
    ("rebuild", "build the newest commit and switch to it"),
    ("rebuild boot", "switch at the next boot"),
    ("rebuild --home", "put the packages of your own home into effect, without an administrator"),
    ("rebuild dry-activate", "see which packages and units would change"),
    ("rebuild --host pi --target-host root@pi.lan", "switch another machine"),
    (
        "rebuild --target-host pi=root@pi.lan --target-host desk=root@desk.lan --confirm-within 60",
        "switch two, each of which goes back by itself when it can't be reached afterwards",
    ),
)
ANSWER = "Transaction"


def arguments(parser: ArgumentParser) -> None:
    """What to do with it."""
    parser.add_argument(
        "action",
        nargs="?",
        metavar="ACTION",
        choices=tuple(ACTIONS_OF),
        default="switch",
        help="what to do; else switch",
    )
    parser.add_argument("--home", action="store_true", help="build your own home instead, and put it into effect")
    rebuild_flags(parser)


def rebuild_flags(parser: ArgumentParser) -> None:
    """The flags of every way to rebuild."""
    host_flag(parser)
    parser.add_argument("--dry-run", action="store_true", help="build it, say what would change, and switch nothing")
    parser.add_argument("--reason", metavar="TEXT", help="why, in one line; part of the transaction")
    parser.add_argument(
        "--keep-going-without", action="store_true", help="disable packages that break the evaluation, and go on"
    )
    parser.add_argument(
        "--rollback-on-failure", action="store_true", help="go back to the generation before if the activation fails"
    )
    parser.add_argument(
        "--target-host",
        action="append",
        metavar="[HOST=]ADDRESS",
        help="switch another machine, over ssh; may be given several times, as HOST=ADDRESS",
    )
    parser.add_argument("--build-host", metavar="ADDRESS", help="build on another machine, over ssh")
    parser.add_argument(
        "--confirm-within",
        metavar="SECONDS",
        type=count,
        help="let the other machine go back by itself unless it is reached again in time",
    )
    parser.add_argument(
        "--parallel", metavar="COUNT", type=count, default=4, help="how many machines are switched at once; else 4"
    )


def run(options: Namespace, client: Client) -> int:
    """Rebuild."""
    return rebuild(options, client, options.action)


def rebuild(options: Namespace, client: Client, action: str) -> int:
    """Rebuild with one of the actions."""
    if options.target_host:
        return _elsewhere(options, client, action)
    if options.confirm_within or options.build_host:
        raise UsageError("--confirm-within and --build-host are for other machines.", "Name one with --target-host.")
    parameters = given(
        action=action,
        host=options.host,
        home=getattr(options, "home", None),
        dry_run=options.dry_run,
        reason=options.reason,
        keep_going_without=options.keep_going_without,
        rollback_on_failure=options.rollback_on_failure,
    )
    return carry(options, client, "Rebuild", parameters)


def _elsewhere(options: Namespace, client: Client, action: str) -> int:
    """Let the daemon build, and switch the machines that are named."""
    import os

    from glixctl.deployment import Deployment, targets  # most rebuilds are of this machine
    from glixctl.machine import parse_address
    from glixctl.switching import ACTIONS, Wanted

    if action not in ACTIONS or getattr(options, "home", False):
        raise UsageError(
            f"{'--home' if action in ACTIONS else action} is for no other machine.", "Leave --target-host out."
        )
    if action in ("boot", "dry-activate") and options.confirm_within:
        raise UsageError(f"{action} changes nothing that runs, so there is nothing to confirm.")
    wanted = Wanted(
        action,
        build_host=parse_address(options.build_host) if options.build_host else None,
        confirm_within=options.confirm_within,
        parallel=options.parallel,
        rollback_on_failure=options.rollback_on_failure,
        dry_run=options.dry_run,
    )
    deployment = Deployment(
        wanted, targets(options.target_host, options.host), os.environ, quiet=options.quiet or options.json
    )
    deployment.run(
        lambda host, action: _built(options, client, host, action),
        lambda transaction, generation: _remember(client, transaction, generation),
    )
    return deployment.report(documents=options.json)


def _remember(client: Client, transaction: str, generation: int) -> None:
    """Have what a machine was switched to tagged; raises ClientError where it was not."""
    progress = Progress(quiet=True, documents=False)
    ended = client.run("RememberGeneration", {"build": transaction, "generation": generation}, progress)
    if ended["state"] != SUCCEEDED:
        raise ClientError.from_wire(ended.get("error") or {})


def _built(options: Namespace, client: Client, host: str, action: str) -> Mapping[str, Any]:
    """The transaction that built a host."""
    progress = Progress(quiet=options.quiet, documents=options.json)
    parameters = given(action=action, host=host, reason=options.reason, keep_going_without=options.keep_going_without)
    try:
        transaction = client.run("Rebuild", parameters, progress)
    finally:
        progress.clear()
    for text in transaction.get("warnings") or ():
        output.warning(f"{host}: {text}")
    return transaction
