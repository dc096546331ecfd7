# SPDX-License-Identifier: GPL-3.0-or-later
"""Nix source text for values that came from people: the one place where a string becomes Nix.

A JSON string is no Nix string: Nix evaluates `${…}` inside double quotes. Everything that goes into a generated file passes
through here.
"""

from __future__ import annotations

import re
from typing import Final

from glixd.errors import invalid

_SPECIAL: Final = re.compile(r'\\|"|\$\{|\n|\r|\t')
_ESCAPED: Final = {"\\": "\\\\", '"': '\\"', "${": "\\${", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_REFUSED: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def nix_string(text: str) -> str:
    """The double-quoted Nix string that evaluates to `text`; a control character other than tab and newline is refused."""
    if unwritable := _REFUSED.search(text):
        why = f"the character U+{ord(unwritable[0]):04X} at position {unwritable.start() + 1} can't be written in Nix"
        raise invalid("text", why)
    return '"' + _SPECIAL.sub(lambda match: _ESCAPED[match[0]], text) + '"'


def nix_key(name: str) -> str:
    """An attribute name for the left of an `=`, quoted always: a keyword such as `with` breaks a bare one."""
    return nix_string(name)
