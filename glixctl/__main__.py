# SPDX-License-Identifier: GPL-3.0-or-later
"""glixctl: the command line in, one sentence and one exit code out. Errors become words here and nowhere else."""

from __future__ import annotations

import os
import sys

from glixctl import output, plain
from glixctl.client import Client, Target
from glixctl.errors import ClientError
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence
    from typing import NoReturn

    from glixctl.commands import Command

COMPLETE = "__complete"
"""The word behind which the completion scripts of shells hand over a command line."""


def program() -> NoReturn:
    """The process glixctl: run its command line, then end without the tidying that no short-lived process needs."""
    code = main()
    sys.stderr.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _be_printable()
    try:
        code = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        _be_deaf()
        return Exit.FAILED
    return code


def _run(words: Sequence[str]) -> int:
    if words[:1] == [COMPLETE]:
        from glixctl import complete  # what shells call

        return complete.run(words[1:])
    try:
        command, options = plain.parse(words) or _parse(words)
        return _obey(command, options)
    except ClientError as error:
        if "--json" in words:
            output.document(error.document())
            sys.stdout.flush()
        output.failure(error)
        return error.exit_code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def _parse(words: Sequence[str]) -> tuple[Command, Namespace]:
    """What a command line means that is not plain; prints help and raises SystemExit where it asks for it."""
    from glixctl import cli  # argparse is slow to load

    return cli.parse(words)


def _obey(command: Command, options: Namespace) -> int:
    target = Target.choose(os.environ, mode=options.mode, directory=options.dir, transport=options.transport)
    if target.note and not options.quiet:
        output.note(target.note)
    client = Client(target, os.environ, asks=not options.no_ask)
    try:
        return command.run(options, client)
    except ClientError as error:
        from glixd.protocol import ErrorCode

        if error.name == ErrorCode.NO_REPOSITORY and options.dir:
            error.hint = f"Run: glixctl init --dir {options.dir}"
        raise options.spelling.respelt(error) from error
    except KeyboardInterrupt:
        output.note(client.interrupt())
        return Exit.INTERRUPTED
    finally:
        client.close()


def _be_printable() -> None:
    """Let a locale that can't spell a character spell its number instead, and a closed stream swallow all."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open to the end
        elif reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def _be_deaf() -> None:
    """Let the interpreter flush its output into nothing: whoever read it has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    program()
