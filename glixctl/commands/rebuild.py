# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl rebuild`: build what is committed, and switch the machine to it."""

from __future__ import annotations

from glixctl.commands._common import carry, given, host_flag

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

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
)
EXAMPLES = (
    ("rebuild", "build the newest commit and switch to it"),
    ("rebuild boot", "switch at the next boot"),
    ("rebuild --home", "put the packages of your own home into effect, without an administrator"),
    ("rebuild dry-activate", "see which packages and units would change"),
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


def run(options: Namespace, client: Client) -> int:
    """Rebuild."""
    return rebuild(options, client, options.action)


def rebuild(options: Namespace, client: Client, action: str) -> int:
    """Rebuild with one of the actions."""
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
