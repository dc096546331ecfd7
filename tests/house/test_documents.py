# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents that are written from the code say what the code says."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from glixctl import commands
from glixd.protocol import Exit
from scripts import jsonschemas, manpages

PAGES = sorted(manpages.FOLDER.glob("*.[18]"))


def test_the_manual_pages_are_those_that_the_parsers_make(tmp_path: Path) -> None:
    manpages.write(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text() for path in PAGES}
    assert kept == made, "run scripts/manpages.py"


def test_a_page_of_a_verb_that_is_gone_goes_too(tmp_path: Path) -> None:
    (tmp_path / "glixctl-gone.1").touch()
    manpages.write(tmp_path)
    assert not (tmp_path / "glixctl-gone.1").exists()


def test_every_verb_both_programs_and_every_exit_code_have_their_place() -> None:
    assert {page.name for page in PAGES} == {"glixctl.1", "glixd.8", *(f"glixctl-{verb}.1" for verb in commands.VERBS)}
    assert set(manpages.EXITS) == set(Exit.all().values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_manual_page_is_shown_without_a_warning(page: Path) -> None:
    shown = subprocess.run(
        ["man", "--warnings=w", "--local-file", str(page)],
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MAN_KEEP_FORMATTING": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stderr == ""
    assert "NAME" in shown.stdout
    assert "\\" not in shown.stdout


def test_the_document_about_json_is_the_one_that_the_table_makes() -> None:
    assert jsonschemas.FILE.read_text() == jsonschemas.text(), "run scripts/jsonschemas.py"


def test_every_verb_that_prints_json_has_a_section_and_every_link_an_end() -> None:
    text = jsonschemas.text()
    sections = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    for verb in commands.VERBS:
        for name, command in commands.members(verb):
            assert (name in sections) is bool(command.ANSWER), name
    assert set(re.findall(r"\]\(#(\w+)\)", text)) <= {section.lower() for section in sections}
