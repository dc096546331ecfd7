#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the figures of docs/explanation/performance.md from the run of ./bench that is kept: scripts/performance.py.

The page has places, each between two comments, and a table here for each of them; the words around them are written by
hand, and hold for whichever figures. `./bench --keep` does this, too.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

CHECKOUT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = CHECKOUT / "docs" / "explanation" / "performance.md"
RESULTS: Final = CHECKOUT / "tests" / "bench" / "results.json"
PLACE: Final = re.compile(r"<!-- figures: (?P<name>[a-z ]+) -->\n(.*?)<!-- end of figures -->\n", re.DOTALL)
NONE: Final = "–"

PYTHON: Final = "parts: python3 -I -c pass"
SIZES: Final = (0, 100, 1000, 10_000)
HOSTS: Final = (1, 10, 1000)
COMMITS: Final = (1, 1000, 10_000)
READING: Final = ("list", "show", "info", "history", "search hello")
WRITING: Final = (
    "add NAME",
    "add FLAKE, a new input",
    "remove",
    "enable",
    "set config",
    "add NAME --dry-run",
    "apply, 100 changes",
)


class Figures:
    """The figures of one run."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.all: Mapping[str, Mapping[str, Any]] = results["figures"]
        self.machine: Mapping[str, Any] = results["machine"]

    def median(self, name: str) -> float | None:
        """The median of a figure."""
        return self.all[name]["median"] if name in self.all else None

    def told(self, name: str) -> str:
        """The median with its unit."""
        value = self.median(name)
        return NONE if value is None else _with_unit(value, self.all[name]["unit"])


def rendered(text: str, results: Mapping[str, Any]) -> str:
    """The page with the figures of a run."""
    figures = Figures(results)

    def filled(place: re.Match[str]) -> str:
        name = place["name"]
        return f"<!-- figures: {name} -->\n\n{TABLES[name](figures)}\n\n<!-- end of figures -->\n"

    return PLACE.sub(filled, text)


def write(page: Path = PAGE, results: Path = RESULTS) -> None:
    """Write the figures of the kept run into the page."""
    page.write_text(rendered(page.read_text(), json.loads(results.read_text())))


# -- tables --------------------------------------------------------------------------------------------------------


def _machine(figures: Figures) -> str:
    told = ", ".join(f"{name} {value}" for name, value in figures.machine.items() if name not in ("cores", "arch"))
    return f"{len(figures.all)} figures of one run, on {figures.machine['cores']} cores ({figures.machine['arch']}), {told}."


def _goals(figures: Figures) -> str:
    rows = [_goal(name, figure) for name, figure in figures.all.items() if figure.get("goal")]
    met = sum(row[-1] == "met" for row in rows)
    return f"{_table(('what', 'goal', 'reached', ''), rows)}\n\n{met} of {len(rows)} goals are met."


def _goal(name: str, figure: Mapping[str, Any]) -> tuple[str, ...]:
    """A row: what a figure is meant to be, and is."""
    goal, unit, rises = figure["goal"], figure["unit"], figure["unit"].endswith("/s")
    reached = figure.get("ratio", figure["median"])
    met = reached >= goal if rises else reached <= goal
    share = goal / reached if rises and reached else reached / goal
    how = "met" if met else f"missed by {100 * (share - 1):.0f} %"
    if "ratio" in figure:
        told = f"{reached:.2f} × ({_with_unit(figure['median'], unit)})"
        return name, f"≤ {goal:g} × {figure['baseline']}", told, how
    return name, f"{'≥' if rises else '≤'} {_with_unit(goal, unit)}", _with_unit(reached, unit), how


def _short(figures: Figures) -> str:
    python, alone, whole = (
        figures.median(f"parts: {name}") for name in ("python3 -I -c pass", "glixctl, asking nobody", "glixctl list")
    )
    parts = [
        ("an interpreter that starts and ends", python),
        ("loading glixctl, reading the command line", _less(alone, python)),
        ("connecting, asking, answering, printing", _less(whole, alone)),
    ]
    return _shares(parts, whole)


def _change(figures: Figures) -> str:
    usual = "100 packages, writing: add NAME"
    whole, daemon = figures.median(usual), figures.median("parts: a package added, over an open connection")
    git, disk = (
        figures.median("parts: git update-ref, nothing to do"),
        figures.median("parts: a file written and synchronised"),
    )
    waits = figures.median("calls of a change: waits for the disk")
    computed = figures.median("parts: computing one addition")
    known = [2 * git if git is not None else None, _times(disk, waits), computed]
    parts = [
        ("glixctl: start, command line, connection, end", _less(whole, daemon)),
        ("the daemon, of which", daemon),
        ("– two processes of git, one after the other", known[0]),
        (f"– waits for the disk, {waits or 0:.0f} of them, one after the other", known[1]),
        ("– computing what the files become", known[2]),
        ("– the rest: reading, checking, threads, telling", _less(daemon, *known)),
    ]
    return _shares(parts, whole)


def _batch(figures: Figures) -> str:
    rows = [(name, figures.told(f"parts: {name}")) for name in ("computing one addition", "computing 100 additions")]
    rows += [(name, figures.told(f"100 packages, writing: {name}")) for name in ("add NAME", "apply, 100 changes")]
    return _table(("what", "time"), rows)


def _rebuild(figures: Figures) -> str:
    marks = ("the build begins", "built, and the activator is asked", "allowed, and switching", "done")
    rows = [(f"until: {name}", figures.told(f"phases of a rebuild: {name}")) for name in marks]
    for name in ("switching", "going back"):
        rows += [(one, figures.told(one)) for one in figures.all if one.startswith(f"{name}: ")]
    return _table(("what", "time"), rows)


def _floors(figures: Figures) -> str:
    names = (
        "python3 -I -c pass",
        "a program that does nothing",
        "git update-ref, nothing to do",
        "nix --version",
        "a file written and synchronised",
    )
    rows = [(name, figures.told(f"parts: {name}")) for name in names]
    rows += [
        (name, figures.told(f"100 packages, writing: {name}"))
        for name in ("git commit --only", "nix flake lock, nothing to do")
    ]
    rows += [(name, figures.told(name)) for name in figures.all if name.startswith("calls of a change")]
    return _table(("what", "median"), rows)


def _by_packages(figures: Figures) -> str:
    return _grown(figures, "packages", SIZES)


def _by_hosts(figures: Figures) -> str:
    return _grown(figures, "hosts", HOSTS)


def _by_commits(figures: Figures) -> str:
    rows = [
        (verb, *(figures.told(f"{number} commits: {verb}") for number in COMMITS))
        for verb in ("list", "history", "enable", "rollback")
    ]
    return _table(("", *(f"{number:,} commits" for number in COMMITS)), rows)


def _grown(figures: Figures, what: str, sizes: Sequence[int]) -> str:
    rows = [
        (verb, *(figures.told(f"{size} {what}, {kind}: {verb}") for size in sizes))
        for kind, verbs in (("reading", READING), ("writing", WRITING))
        for verb in verbs
    ]
    return _table(("", *(f"{size:,} {what}" for size in sizes)), rows)


def _beginning(*heads: str) -> Callable[[Figures], str]:
    def table(figures: Figures) -> str:
        rows = []
        for name, figure in figures.all.items():
            if name.startswith(heads):
                p99 = _with_unit(figure["p99"], figure["unit"]) if "p99" in figure else ""
                ratio = f"{figure['ratio']:.2f} × {figure['baseline']}" if "ratio" in figure else ""
                rows.append((name, _with_unit(figure["median"], figure["unit"]), p99, ratio))
        return _table(("what", "median", "p99", "against"), rows)

    return table


TABLES: Final[Mapping[str, Callable[[Figures], str]]] = {
    "machine": _machine,
    "goals": _goals,
    "floors": _floors,
    "short": _short,
    "change": _change,
    "batch": _batch,
    "rebuild": _rebuild,
    "packages": _by_packages,
    "hosts": _by_hosts,
    "commits": _by_commits,
    "clients": _beginning("mutation", "signals"),
    "transports": _beginning("socket", "bus"),
    "modes": _beginning("a change"),
    "search": _beginning("search"),
    "memory": _beginning("memory", "ready", "activation"),
}


# -- words ---------------------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _shares(parts: Sequence[tuple[str, float | None]], whole: float | None) -> str:
    rows = [
        (name, NONE, NONE)
        if value is None or not whole
        else (name, _with_unit(value, "ms"), f"{100 * value / whole:.0f} %")
        for name, value in parts
    ]
    total = NONE if whole is None else _with_unit(whole, "ms")
    return _table(("what", "time", "share"), [*rows, ("**whole**", total, "")])


def _less(whole: float | None, *parts: float | None) -> float | None:
    """What is left of a whole; nothing where a part is not known."""
    known = [part for part in parts if part is not None]
    return None if whole is None or len(known) < len(parts) else max(0.0, whole - sum(known))


def _times(value: float | None, often: float | None) -> float | None:
    return None if value is None or often is None else value * often


def _with_unit(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 100 or unit == "calls" else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit.replace('1/s', 'a second')}"


if __name__ == "__main__":
    write()
    sys.exit(0)
