# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl host list|set|remove|rename`: the machines of the repository."""

from __future__ import annotations

from glixctl import output
from glixctl.commands._common import changes_argument, mutate, mutation_flags_without_host
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "host"
SUMMARY = "list, change, remove or rename machines"

HEADER = ("HOST", "SYSTEM", "PRIMARY USER", "PACKAGES", "HEALTH")


class List:
    """`host list`."""

    NAME = "list"
    SUMMARY = "list the machines of the repository"
    EXAMPLES = (("host list", "every machine, with how many of its packages are enabled"),)
    ANSWER = "Hosts"

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        """Nothing."""

    @staticmethod
    def run(options: Namespace, client: Client) -> int:
        """ListHosts."""
        answer = client.call("ListHosts", {})
        if options.json:
            output.document(answer)
            return Exit.DONE
        output.print_table(
            HEADER,
            (
                (
                    host["name"],
                    host.get("system") or "",
                    host.get("primary_user") or "",
                    f"{host['enabled']}/{host['packages']}",
                    host["health"]["state"],
                )
                for host in answer["hosts"]
            ),
        )
        return Exit.DONE


class Set:
    """`host set`."""

    NAME = "set"
    SUMMARY = "change settings of a machine"
    EXAMPLES = (
        ("host set pi system=aarch64-linux", "another architecture"),
        ("host set laptop primary_user=alice default_scope=home", "whose home, and where packages go by default"),
    )
    ANSWER = "Transaction"

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        """The machine and its changes."""
        parser.add_argument("host", metavar="HOST", help="the machine")
        changes_argument(parser)
        mutation_flags_without_host(parser)

    @staticmethod
    def run(options: Namespace, client: Client) -> int:
        """SetHost."""
        return mutate(options, client, "SetHost", {"changes": dict(options.changes)})


class Remove:
    """`host remove`."""

    NAME = "remove"
    SUMMARY = "take a machine out of the repository, with everything in its folder"
    EXAMPLES = (("host remove pi --dry-run", "see what would go"),)
    ANSWER = "Transaction"

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        """The machine."""
        parser.add_argument("name", metavar="HOST", help="the machine")
        mutation_flags_without_host(parser)

    @staticmethod
    def run(options: Namespace, client: Client) -> int:
        """RemoveHost."""
        return mutate(options, client, "RemoveHost", {"name": options.name})


class Rename:
    """`host rename`."""

    NAME = "rename"
    SUMMARY = "give a machine another name"
    EXAMPLES = (("host rename pi attic", "its folder and its history move along"),)
    ANSWER = "Transaction"

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        """The machine and its new name."""
        parser.add_argument("name", metavar="HOST", help="the machine")
        parser.add_argument("to", metavar="NEW-NAME", help="its new name")
        mutation_flags_without_host(parser)

    @staticmethod
    def run(options: Namespace, client: Client) -> int:
        """RenameHost."""
        return mutate(options, client, "RenameHost", {"name": options.name, "to": options.to})


ACTIONS = (List, Set, Remove, Rename)
