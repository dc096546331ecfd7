# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documents say is so: the reference is the code's, links lead somewhere, commands are commands."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from glixctl import cli
from glixctl.errors import UsageError
from glixd.model import manifest
from glixd.protocol import DEFAULT_CORE_URL
from scripts import performance, reference

CHECKOUT = Path(__file__).resolve().parents[2]
README = CHECKOUT / "README.md"
DOCUMENTS = [README, CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
GUIDES = [
    README,
    *(path for part in ("tutorials", "how-to") for path in sorted((CHECKOUT / "docs" / part).glob("*.md"))),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^( *)```\w*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def name_of(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return FENCED.sub("", text)


def anchors(path: Path) -> set[str]:
    """The anchors of the headings of a page, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", prose(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(path: Path) -> list[str]:
    """The links of a page to files or headings that are not there."""
    dead = []
    for link in LINK.findall(prose(path.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


def commands(path: Path) -> Iterator[list[str]]:
    """The words behind `glixctl` of every command line in a block of code."""
    for _, block in FENCED.findall(path.read_text()):
        for line in block.splitlines():
            if (words := line.strip().removeprefix("$ ")).startswith("glixctl "):
                yield shlex.split(words.partition(" | ")[0], comments=True)[1:]


GIVEN = [pytest.param(words, id=f"{name_of(path)}: {' '.join(words)}") for path in GUIDES for words in commands(path)]


@pytest.mark.parametrize("page", reference.pages())
def test_the_reference_is_the_one_that_the_code_makes(page: str) -> None:
    assert (reference.FOLDER / page).read_text() == reference.pages()[page], "run scripts/reference.py"


def test_a_stale_page_of_the_reference_is_found(tmp_path: Path) -> None:
    reference.write(tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == reference.pages()
    (tmp_path / "errors.md").write_text(written["errors.md"].replace("Busy", "Bussy"))
    assert (tmp_path / "errors.md").read_text() != reference.pages()["errors.md"]


def test_every_key_of_the_manifest_is_explained() -> None:
    assert set(reference.PACKAGE_KEYS) == manifest.PACKAGE_KEYS
    assert set(reference.SETTING_KEYS) == {key.name for key in fields(manifest.Settings)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_relative_link_of_a_document_leads_somewhere(path: Path) -> None:
    assert dead_links(path) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Here\n[a](#here) [b](#there) [c](gone.md) [d](page.md#here) [e](https://example.org)\n")
    assert dead_links(page) == ["#there", "gone.md"]


@pytest.mark.parametrize("words", GIVEN)
def test_every_command_of_a_guide_is_understood(words: list[str]) -> None:
    cli.parse(words)


def test_a_command_that_is_none_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ glixctl add firefox --scoop home\n```\n")
    [words] = commands(page)
    with pytest.raises(UsageError):
        cli.parse(words)


def test_the_readme_quotes_the_default_core_and_the_two_commands() -> None:
    text = README.read_text()
    assert f"`{DEFAULT_CORE_URL}`" in text
    assert set(re.findall(r"github:glixos/[\w/-]+", text)) == {DEFAULT_CORE_URL}
    assert "    ./demo " in text
    assert "    ./check " in text


def test_the_readme_says_how_it_works_in_ten_lines() -> None:
    _, _, section = README.read_text().partition("## How it works, in ten lines\n")
    assert len(re.findall(r"^\d+\. ", section.partition("\n## ")[0], re.MULTILINE)) == 10


def test_every_decision_is_in_the_list_of_decisions() -> None:
    folder = CHECKOUT / "docs" / "adr"
    listed = LINK.findall((folder / "README.md").read_text())
    assert listed == sorted(path.name for path in folder.glob("[0-9]*.md"))


# -- performance ---------------------------------------------------------------------------------------------------


def test_the_figures_of_the_page_about_performance_are_those_of_the_kept_run() -> None:
    text = performance.PAGE.read_text()
    results = json.loads(performance.RESULTS.read_text())
    assert performance.rendered(text, results) == text, "run scripts/performance.py"
    assert [place["name"] for place in performance.PLACE.finditer(text)] == sorted(
        performance.TABLES, key=lambda name: text.index(f"<!-- figures: {name} -->")
    )


def test_other_figures_make_another_page() -> None:
    text = performance.PAGE.read_text()
    results = json.loads(performance.RESULTS.read_text())
    for name in ("parts: glixctl list", "100 packages, writing: add NAME", "memory: idle, 0 packages"):
        figures = results["figures"]
        changed = {**figures, name: {**figures[name], "median": 2 * figures[name]["median"] + 1}}
        assert performance.rendered(text, {**results, "figures": changed}) != text


def test_a_goal_is_told_with_how_far_it_is_missed() -> None:
    figures = {
        "fast": {"unit": "ms", "median": 20.0, "ratio": 2.0, "baseline": "floor", "goal": 2.5},
        "slow": {"unit": "ms", "median": 30.0, "ratio": 3.0, "baseline": "floor", "goal": 2.5},
        "rate": {"unit": "1/s", "median": 50.0, "goal": 100.0},
    }
    page = performance.rendered(
        "<!-- figures: goals -->\n<!-- end of figures -->\n", {"machine": {}, "figures": figures}
    )
    assert "| fast | ≤ 2.5 × floor | 2.00 × (20.0 ms) | met |" in page
    assert "| slow | ≤ 2.5 × floor | 3.00 × (30.0 ms) | missed by 20 % |" in page
    assert "| rate | ≥ 100 a second | 50.0 a second | missed by 100 % |" in page
    assert "1 of 3 goals are met." in page
    assert performance.rendered(page, {"machine": {}, "figures": figures}) == page
