# SPDX-License-Identifier: GPL-3.0-or-later
"""Recorded streams of three nix versions, replayed: the share never falls, and the counts are those of the stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glixd.model.progress import Phase, Progress, Tracker, package_name

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "nix-internal-json"
STREAMS = sorted(FOLDER.glob("*.jsonl"))
VERSIONS = ("28", "26", "34")


def lines(name: str) -> list[str]:
    return (FOLDER / f"{name}.jsonl").read_text().split("\n")[:-1]


def events(name: str) -> Iterator[dict[str, Any]]:
    """The stream, read in the plainest way."""
    for line in lines(name):
        if line.startswith("@nix "):
            yield json.loads(line[5:])


def started(name: str, kind: int) -> set[str]:
    """What activities of a kind were about."""
    return {event["fields"][0] for event in events(name) if event["action"] == "start" and event["type"] == kind}


def copied(name: str) -> int:
    """The bytes of all copied paths, by the last word about each."""
    copies = {event["id"] for event in events(name) if event["action"] == "start" and event["type"] == 100}
    last = {
        event["id"]: event["fields"][0]
        for event in events(name)
        if event["action"] == "result" and event["type"] == 105 and event["id"] in copies
    }
    return sum(last.values())


def replay(name: str) -> tuple[Tracker, list[Progress]]:
    """The tracker after a stream, and how far it was after each line; a second passes between lines."""
    tracker, seen = Tracker(0.0), []
    for second, line in enumerate(lines(name)):
        tracker.feed(line, float(second))
        seen.append(tracker.progress(float(second)))
    return tracker, seen


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_share_counts_and_bytes_never_fall(path: Path) -> None:
    _, seen = replay(path.stem)
    assert len(seen) > 2
    for figure in ("built", "failed", "fetched", "bytes_done", "bytes_expected", "elapsed"):
        values = [getattr(progress, figure) for progress in seen]
        assert values == sorted(values), figure
    shares = [progress.share for progress in seen if progress.share is not None]
    assert shares == sorted(shares)
    assert all(0 <= share < 1 for share in shares)


@pytest.mark.parametrize("version", VERSIONS)
def test_each_derivation_is_counted_once(version: str) -> None:
    tracker, seen = replay(f"{version}.all")
    derivations = started(f"{version}.all", 105)
    assert len(derivations) == 8
    assert {package_name(path) for path in derivations} == set(tracker.derivations)
    assert seen[-1].built == seen[-1].to_build == len(derivations)
    assert (seen[-1].failed, seen[-1].to_fetch) == (0, 0)
    assert max(len(progress.current) for progress in seen) >= 2, "derivations are built beside each other"
    assert seen[-1].current == ()
    assert {progress.phase for progress in seen} == {Phase.EVALUATING, Phase.BUILDING}


@pytest.mark.parametrize("version", VERSIONS)
def test_logs_are_told_with_the_name_of_the_derivation(version: str) -> None:
    tracker, seen = replay(f"{version}.all")
    told = tracker.lines()
    written = sum(event["action"] == "result" and event["type"] == 101 for event in events(f"{version}.all"))
    assert written == len([line for line in told if "> " in line]) == 51
    assert "hello-2.12> hello: step 2" in told
    assert tracker.lines() == [], "each line is told once"
    assert any(current.line == "hello: step 2" for progress in seen for current in progress.current)
    assert tracker.tail("hello-2.12") == ["hello: step 0", "hello: step 1", "hello: step 2"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_failure_is_counted_and_told_in_the_words_of_nix(version: str) -> None:
    tracker, seen = replay(f"{version}.bad")
    assert (seen[-1].built, seen[-1].failed) == (0, 1)
    assert tracker.derivations == ["broken-1.0"]
    assert "failed" in tracker.errors[0]
    assert "broken-1.0.drv" in tracker.errors[0]
    assert "\x1b" not in "".join(tracker.errors)
    assert tracker.tail("broken-1.0") == ["about to fail", "error: boom"]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_evaluation_error_is_told_and_nothing_is_counted(version: str) -> None:
    tracker, seen = replay(f"{version}.evalerr")
    assert {progress.phase for progress in seen} == {Phase.EVALUATING}
    assert seen[-1].share is None
    assert "does not provide attribute" in tracker.errors[-1]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_there_already_is_no_work(version: str) -> None:
    tracker, seen = replay(f"{version}.cached")
    assert (seen[-1].to_build, seen[-1].to_fetch, tracker.derivations) == (0, 0, [])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_phase_of_a_build_is_told(version: str) -> None:
    _, seen = replay(f"{version}.phases")
    assert "buildPhase" in {current.phase for progress in seen for current in progress.current}


@pytest.mark.parametrize("version", VERSIONS)
def test_substitution_counts_paths_and_bytes(version: str) -> None:
    name = f"{version}.subst"
    _, seen = replay(name)
    paths = started(name, 100)
    assert len(paths) == 9
    assert (seen[-1].fetched, seen[-1].to_fetch, seen[-1].built) == (len(paths), len(paths), 0)
    assert seen[-1].bytes_done == copied(name)
    assert seen[-1].bytes_expected >= seen[-1].bytes_done > 24_000_000
    assert {progress.phase for progress in seen} >= {Phase.FETCHING}
    middle = [progress.share for progress in seen if progress.share and 0.1 < progress.share < 0.9]
    assert len(set(middle)) > 100, "the share follows the bytes and not only the nine paths"
    assert all(progress.remaining is not None and progress.remaining >= 0 for progress in seen[-100:])


def test_the_quick_way_and_the_plain_way_agree() -> None:
    """Progress is taken apart by hand where it has its usual spelling, and as JSON where it has another."""
    quick, plain = Tracker(0.0), Tracker(0.0)
    for line in lines("26.subst"):
        quick.feed(line, 1.0)
        plain.feed(line.replace('"type":105}', '"type":105 }'), 1.0)
    assert quick.progress(1.0) == plain.progress(1.0)


def test_what_is_no_event_is_a_line_of_the_log() -> None:
    tracker = Tracker(0.0)
    tracker.feed("\x1b[35;1mwarning:\x1b[0m something\n", 0.0)
    tracker.feed("GC Warning: Could not open /proc/stat", 0.0)
    assert tracker.lines() == ["warning: something"]


@pytest.mark.parametrize(
    "line",
    [
        "@nix {",
        "@nix []",
        '@nix {"action":"result","fields":[1],"id":"x","type":105}',
        '@nix {"action":"result","fields":["a","b","c","d"],"id":1,"type":105}',
        '@nix {"action":"start","id":1,"type":105,"fields":[]}',
        '@nix {"action":"start","id":1,"type":105,"fields":[7]}',
        '@nix {"action":"stop","id":99}',
        '@nix {"action":"result","fields":[],"id":1,"type":104}',
        '@nix {"action":"msg"}',
        '@nix {"action":"result","fields":[1,2,3,4],"id":1,"type":105}x"type":105}',
    ],
)
def test_events_of_another_form_are_passed_over(line: str) -> None:
    tracker = Tracker(0.0)
    tracker.feed('@nix {"action":"start","id":1,"level":0,"parent":0,"text":"","type":104}', 0.0)
    tracker.feed(line, 0.0)
    assert tracker.progress(1.0).built == 0


def test_expected_that_shrinks_does_not_move_the_share_back() -> None:
    tracker = Tracker(0.0)

    def tell(done: int, expected: int) -> float | None:
        tracker.feed(f'@nix {{"action":"result","fields":[{done},{expected},0,0],"id":1,"type":105}}', 1.0)
        return tracker.progress(1.0).share

    tracker.feed('@nix {"action":"start","id":1,"level":0,"parent":0,"text":"","type":104}', 0.0)
    assert tell(1, 2) == 0.5
    assert tell(1, 10) == 0.5, "more work was found: the share waits"
    assert tell(9, 10) == 0.9
    assert tell(9, 30) == 0.9
    assert tell(9, 8) == 0.99, "what has not ended is never whole"
