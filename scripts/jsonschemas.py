#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes what `--json` prints, verb by verb, from the table of the daemon: scripts/jsonschemas.py [FILE]."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from glixctl import commands
from glixd import api

if TYPE_CHECKING:
    from glixctl.commands import Command

FILE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference" / "json.md"

INTRODUCTION: Final = """\
<!-- SPDX-License-Identifier: GPL-3.0-or-later -->
<!-- Written by scripts/jsonschemas.py from the table of the daemon and the verbs of glixctl. -->

# What `--json` prints

With `--json` every verb prints one JSON document on standard output and nothing else there; warnings, notes and the
sentence of an error stay on standard error, and the exit code is the same as without the flag. The document is what the
daemon answers on the socket and on the bus.

- Names and meanings stay; new ones may be added. Ignore what you do not know.
- What is absent (`null` in the schemas) is left out.
- Times are RFC 3339 in UTC. Characters beyond ASCII are escaped as JSON escapes them.
- Pages are put together: `list` and `history` print one document, whatever its length.
- A change prints its transaction, whether it succeeded or failed. What failed before there was a transaction, or without
  one, prints `{"error": {…}}` with an [ErrorInfo](#errorinfo) whose `code` is `null` where no daemon was reached.
- `rebuild --target-host` prints what became of each machine instead of a transaction: `{"hosts": […]}`, as
  [the guide](../how-to/switch-other-machines.md) says.
- `clone` prints `{"folder": …, "branch": …, "commit": …}` and `completion` `{"shell": …, "script": …}`; what they do is done
  here and not by the daemon. `help` prints its text.
"""


def text() -> str:
    """The whole document."""
    members = [member for verb in commands.VERBS for member in commands.members(verb)]
    answers = {command.ANSWER for _, command in members if command.ANSWER} | {"ErrorInfo"}
    parts = [INTRODUCTION, "## Verbs\n"]
    parts += [_verb(name, command) for name, command in members if command.ANSWER]
    parts.append("## Values\n")
    parts += [_value(name) for name in sorted(answers)]
    return "\n".join(parts)


def schema(name: str) -> dict[str, Any]:
    """The JSON schema of a value of the table."""
    model: type[api.Value] = getattr(api, name)
    found = model.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **dict(_plain(found))}


def _verb(name: str, command: Command) -> str:
    example = next(
        (example for example, _ in command.EXAMPLES if "--json" in example), f"{command.EXAMPLES[0][0]} --json"
    )
    return f"### {name}\n\n{_sentence(command.SUMMARY)}\n\n    glixctl {example}\n\nPrints [{command.ANSWER}](#{command.ANSWER.lower()}).\n"


def _value(name: str) -> str:
    about = (getattr(api, name).__doc__ or "").strip()
    return f"### {name}\n\n{about}\n\n```json\n{json.dumps(schema(name), indent=2, ensure_ascii=False)}\n```\n"


def _plain(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A schema without titles that repeat its names, defaults of what is left out, and the promise of nothing more."""
    for key, value in found.items():
        match key, value:
            case ("title", str()) | ("default", None) | ("additionalProperties", False):
                continue
            case ("properties" | "$defs", dict()):
                yield key, {name: dict(_plain(inner)) for name, inner in value.items()}
            case (_, dict()):
                yield key, dict(_plain(value))
            case (_, list()):
                yield key, [dict(_plain(inner)) if isinstance(inner, dict) else inner for inner in value]
            case _:
                yield key, value


def _sentence(summary: str) -> str:
    return summary[:1].upper() + summary[1:] + "."


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text())
