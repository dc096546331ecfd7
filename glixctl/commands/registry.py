# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl registry`: the registries of short names."""

from __future__ import annotations

from glixctl import output
from glixctl.commands._common import count, given, host_flag, pages
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any

    from glixctl.client import Client

NAME = "registry"
SUMMARY = "list, refresh and show the registries of short names"


class List:
    """`registry list`."""

    NAME = "list"
    SUMMARY = "list the registries, in the order in which they are asked"
    EXAMPLES = (("registry list", "where each stands, how old it is, and whether it is trusted"),)
    ANSWER = "RegistryList"

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        """Whose."""
        host_flag(parser)

    @staticmethod
    def run(options: Namespace, client: Client) -> int:
        """ListRegistries."""
        return _print_list(options, client.call("ListRegistries", given(host=options.host)))


class Refresh:
    """`registry refresh`."""

    NAME = "refresh"
    SUMMARY = "ask every registry for what is new"
    EXAMPLES = (("registry refresh", "what can't be had keeps its last good entries"),)
    ANSWER = "RegistryList"

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        """Whose."""
        host_flag(parser)

    @staticmethod
    def run(options: Namespace, client: Client) -> int:
        """RefreshRegistries; a registry that gave nothing good makes it a failure."""
        answer = client.call("RefreshRegistries", given(host=options.host))
        _print_list(options, answer)
        return Exit.FAILED if any(entry.get("problem") for entry in answer.get("registries") or ()) else Exit.DONE


class Show:
    """`registry show`."""

    NAME = "show"
    SUMMARY = "show what a registry lists"
    EXAMPLES = (("registry show https://example.org/registry.json", "every name, and what it stands for"),)
    ANSWER = "RegistryPage"

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        """Which."""
        parser.add_argument("url", metavar="URL", help="the URL of the registry, as `registry list` shows it")
        host_flag(parser)
        parser.add_argument("--limit", type=count, metavar="N", help="at most so many")

    @staticmethod
    def run(options: Namespace, client: Client) -> int:
        """ShowRegistry, page by page."""
        parameters = {"url": options.url, **given(host=options.host)}
        answer = pages(client, "ShowRegistry", parameters, items="entries", cursor="after", limit=options.limit)
        if options.json:
            output.document(answer)
            return Exit.DONE
        rows = [(entry["name"], entry["flake"], entry["description"]) for entry in answer["entries"]]
        if rows:
            output.print_table(("NAME", "FLAKE", "DESCRIPTION"), rows)
        if problem := answer["registry"].get("problem"):
            output.warning(f"{options.url}: {problem}")
        return Exit.DONE


ACTIONS = (List, Refresh, Show)


def _print_list(options: Namespace, answer: dict[str, Any]) -> int:
    if options.json:
        output.document(answer)
        return Exit.DONE
    registries = answer["registries"]
    if registries:
        output.print_table(("URL", "TRUST", "FROM", "ENTRIES", "FETCHED (UTC)"), (_row(entry) for entry in registries))
    elif not options.quiet:
        output.note("no registry is configured")
    for entry in registries:
        if problem := entry.get("problem"):
            output.warning(f"{entry['url']}: {problem}")
    return Exit.DONE


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    trust = "trusted" if entry["trusted"] else "untrusted"
    return (entry["url"], trust, entry["origin"], entry["entries"], output.moment(entry.get("fetched")) or "never")
