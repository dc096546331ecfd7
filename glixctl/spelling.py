# SPDX-License-Identifier: GPL-3.0-or-later
"""What the parameters of the daemon's operations are called on a command line, so that its errors name what was typed.

An argument or flag of a verb is kept under the name of its parameter. Where that can't be so, the verb says it in
`PARAMETERS`: pairs of a parameter and the name under which its argument or flag is kept.
"""

from __future__ import annotations

from glixctl.errors import ClientError

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import Action, Namespace
    from collections.abc import Mapping, Sequence

SHARED = {"evaluate": "no_evaluate"}
"""Parameters that several verbs keep under another name."""


class Spelling:
    """The words of one command line for the parameters that it stands for."""

    def __init__(self, actions: Sequence[Action], parameters: Mapping[str, str], options: Namespace) -> None:
        self._actions = actions
        self._kept_as = {**SHARED, **parameters}
        self._options = options

    def of(self, parameter: str) -> str:
        """How a parameter is given here; its own name where it can't be."""
        action = self._action(parameter)
        if action is None:
            return parameter
        if action.option_strings:
            return max(action.option_strings, key=len)
        return str(action.metavar or action.dest)

    def respelt(self, error: ClientError) -> ClientError:
        """The same error, of which the message names what was typed."""
        argument = str(error.details.get("argument") or "")
        part, message = self._part(error)
        before, found, reason = message.partition(f"{argument}: ")
        if not argument or before or not found:
            return self._with(error, part + message)
        if part:  # a batch is written with the parameters' own names
            return self._with(error, part + message)
        for other in error.details.get("others") or ():
            reason = _replaced(reason, str(other), self.of(str(other)))
        return self._with(error, f"{self._place(argument)}: {reason}")

    def _part(self, error: ClientError) -> tuple[str, str]:
        """Which part of a batch an error is about, in words, and what the rest of its message is."""
        number = error.details.get("part")
        before, found, rest = error.message.partition(f"operations.{number}: ")
        if number is None or before or not found:
            return "", error.message
        return f"operation {number} of {self.of('operations')}: ", rest

    def _place(self, argument: str) -> str:
        """Where in the command line something is, of which the daemon says where it is in the request."""
        parameter, _, within = argument.partition(".")
        spelt, action = self.of(parameter), self._action(parameter)
        if not within or action is None or within.endswith("[key]"):
            return spelt  # the message quotes a wrong key
        if not within.isdecimal():
            return f"{spelt}: {within}"
        given = getattr(self._options, action.dest, None)
        return f"{spelt} {int(within) + 1}" if isinstance(given, list) and len(given) > 1 else spelt

    def _action(self, parameter: str) -> Action | None:
        kept_as = self._kept_as.get(parameter, parameter)
        return next((action for action in self._actions if action.dest == kept_as), None)

    @staticmethod
    def _with(error: ClientError, message: str) -> ClientError:
        return ClientError(message, name=error.name, exit_code=error.exit_code, hint=error.hint, details=error.details)


def _replaced(text: str, word: str, by: str) -> str:
    """`text` with a word replaced wherever it stands alone."""
    import re  # only a wrong command line costs it

    return re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", lambda _: by, text)
