# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl completion bash|zsh|fish`: the script that lets a shell complete the command lines of glixctl."""

from __future__ import annotations

import os

from glixctl import output
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "completion"
SUMMARY = "print the completion script of a shell"
ABOUT = (
    "Verbs and flags come from this program; packages, hosts, users, inputs, commits and transactions from the daemon.",
    "Completing starts no daemon, and does not wait for one that is busy.",
)
EXAMPLES = (
    ("completion bash", "for ~/.bashrc: source <(glixctl completion bash)"),
    ("completion zsh", "for ~/.zshrc, behind compinit: source <(glixctl completion zsh)"),
    ("completion fish", "for config.fish: glixctl completion fish | source"),
)
ANSWER = ""

SCRIPTS = {"bash": "glixctl.bash", "zsh": "_glixctl", "fish": "glixctl.fish"}
"""The script of each shell, named as the shell wants it in a folder of completions."""


def arguments(parser: ArgumentParser) -> None:
    """The shell."""
    parser.add_argument("shell", choices=tuple(SCRIPTS), help="the shell that is to complete")


def run(options: Namespace, client: Client) -> int:
    """Print the script as it is installed with this program."""
    folder = os.path.join(os.path.dirname(os.path.dirname(__file__)), "completions")
    with open(os.path.join(folder, SCRIPTS[options.shell]), encoding="utf-8") as script:
        text = script.read()
    if options.json:
        output.document({"shell": options.shell, "script": text})
    else:
        output.line(text.rstrip("\n"))
    return Exit.DONE
