# SPDX-License-Identifier: GPL-3.0-or-later
"""What a measurement is: cases that take turns in one run, and figures that are told against a baseline of that run."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Case = Callable[[], float]
"""Does one thing once, and returns how long it took, in seconds."""

WORSE: Final = 1.15
"""A figure that is more than this factor above the earlier one got worse; less is noise."""


@dataclass(frozen=True)
class Figure:
    """The values of one case, in `unit`, and the baseline of the same run that they are told against."""

    name: str
    values: tuple[float, ...]
    unit: str = "ms"
    baseline: str | None = None
    base: float | None = None
    """The median of the baseline, in the same unit."""
    goal: float | None = None
    """What the ratio, or without a baseline the median, is meant to be at most; for rates, at least."""

    @property
    def median(self) -> float:
        """The middle of the values."""
        return statistics.median(self.values)

    @property
    def ratio(self) -> float | None:
        """How many times the baseline it takes."""
        return None if not self.base else self.median / self.base

    @property
    def decisive(self) -> float:
        """What is compared: the ratio where there is one, since machines differ, else the median."""
        return self.ratio if self.ratio is not None else self.median

    @property
    def rises(self) -> bool:
        """Whether more is better."""
        return self.unit.endswith("/s")

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.goal is None:
            return None
        return self.decisive >= self.goal if self.rises else self.decisive <= self.goal

    def quantile(self, share: float) -> float:
        """The value below which that share of the values lies."""
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    def as_json(self) -> dict[str, Any]:
        """What is kept of it."""
        kept = {
            "unit": self.unit,
            "median": self.median,
            "low": min(self.values),
            "high": max(self.values),
            "p99": self.quantile(0.99) if len(self.values) >= 100 else None,
            "samples": len(self.values),
            "baseline": self.baseline,
            "ratio": self.ratio,
            "goal": self.goal,
        }
        return {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in kept.items()
            if value is not None
        }


@dataclass
class Report:
    """The figures of a run, in the order in which they were made."""

    figures: list[Figure] = field(default_factory=list)
    show: Callable[[str], None] = print

    def median(self, name: str) -> float | None:
        """The median of a figure of this run; None where it was not measured."""
        return next((figure.median for figure in self.figures if figure.name == name), None)

    def add(self, figure: Figure) -> None:
        """Keep a figure, and tell it."""
        self.figures.append(figure)
        self.show(line(figure))

    def interleaved(
        self,
        group: str,
        cases: Mapping[str, Case],
        rounds: int,
        *,
        baseline: str,
        goals: Mapping[str, float] | None = None,
        sums: Mapping[str, Sequence[str | tuple[float, str]]] | None = None,
    ) -> None:
        """Run cases in turns and keep a figure of each.

        Every ratio is to `baseline`, or to what `sums` says: names of cases, each with how often it counts where not once.
        """
        times = take_turns(cases, rounds)
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, values in times.items():
            parts = [part if isinstance(part, tuple) else (1.0, part) for part in (sums or {}).get(name, (baseline,))]
            is_base = name == baseline
            self.add(
                Figure(
                    f"{group}: {name}",
                    values,
                    baseline=None if is_base else " + ".join(_times(often, part) for often, part in parts),
                    base=None if is_base else sum(often * medians[part] for often, part in parts),
                    goal=(goals or {}).get(name),
                )
            )


def _times(often: float, name: str) -> str:
    return name if often == 1 else f"{often:g} × ({name})"


def take_turns(cases: Mapping[str, Case], rounds: int) -> dict[str, tuple[float, ...]]:
    """Run each case `rounds` times after one unmeasured round, one after the other in turns; milliseconds by case."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    gc.disable()  # a collection of ours in the middle of a case would count as its time
    try:
        for number in range(rounds + 1):
            for name, case in cases.items():
                took = case() * 1000
                if number:
                    times[name].append(took)
            gc.collect()
    finally:
        gc.enable()
    return {name: tuple(values) for name, values in times.items()}


def line(figure: Figure) -> str:
    """One figure as a person reads it."""
    shown = f"{figure.median:10.2f} {figure.unit:5} {min(figure.values):9.2f} – {max(figure.values):9.2f}"
    against = f"  {figure.ratio:6.2f} × {figure.baseline}" if figure.ratio is not None else ""
    goal = "" if figure.met is None else f"  goal {figure.goal:g}: {'met' if figure.met else 'MISSED'}"
    p99 = f"  p99 {figure.quantile(0.99):.2f}" if len(figure.values) >= 100 else ""
    return f"{figure.name:54} {shown}{p99}{against}{goal}"


def worse(figures: Sequence[Figure], earlier: Mapping[str, Any]) -> list[str]:
    """A sentence for each figure that got worse than in an earlier run's results."""
    found = []
    for figure in figures:
        before = earlier.get(figure.name)
        if not before or before["unit"] != figure.unit:
            continue
        then = before.get("ratio", before["median"])
        if not then or not figure.decisive:
            continue
        factor = (then / figure.decisive) if figure.rises else (figure.decisive / then)
        if factor > WORSE:
            found.append(f"{figure.name}: {figure.decisive:.2f}, was {then:.2f} ({factor:.2f} times as bad)")
    return found
