# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl apply`: several changes from a file as one commit."""

from __future__ import annotations

import sys

from glixctl.commands._common import mutate, mutation_flags
from glixctl.errors import UsageError

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "apply"
SUMMARY = "make several changes from a file, as one commit"
ABOUT = (
    "The file is TOML: a list [[operations]], each with `operation` (Add, Remove, Enable, Disable, Set, Move or SetHost) beside the parameters of that operation, as the reference names them.",
)
EXAMPLES = (
    ("apply -f changes.toml", "from a file"),
    ("apply -f - --dry-run", "from standard input, and change nothing"),
)
ANSWER = "Transaction"
PARAMETERS = (("operations", "file"),)


def arguments(parser: ArgumentParser) -> None:
    """The file."""
    parser.add_argument("-f", "--file", required=True, metavar="FILE", help="the changes; - is standard input")
    mutation_flags(parser)


def run(options: Namespace, client: Client) -> int:
    """Apply."""
    return mutate(options, client, "Apply", {"operations": _operations(options.file)})


def _operations(name: str) -> list[object]:
    """The list that a file holds."""
    import tomllib

    try:
        if name == "-":
            document = tomllib.loads(sys.stdin.read())
        else:
            with open(name, "rb") as file:
                document = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"{name} can't be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{_shown(name)} is no TOML: {error}.") from None
    operations = document.get("operations")
    if not isinstance(operations, list) or not operations:
        raise UsageError(f"{_shown(name)} has no list of operations.", "Begin each change with [[operations]].")
    return operations


def _shown(name: str) -> str:
    return "Standard input" if name == "-" else name
