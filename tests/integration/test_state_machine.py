# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever happens in whatever order, the repository is what the model says: changes, crashes, edits, branches, restarts.

By default some sixty seconds of it, the same in every run. GLIX_FULL_MODEL=1 tries many more, and longer, stories.
"""

from __future__ import annotations

import copy
import itertools
import os
import tomllib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.support import model
from tests.support.daemon import Answer, RunningDaemon, Template, new_site
from tests.support.model import NEW, Change, Hosts, Model, Undo, normal, undone
from tests.support.standing_git import MOMENTS, StandingGit

pytestmark = [pytest.mark.integration, pytest.mark.nix, pytest.mark.timeout(4 * 3600)]

FULL: Final = os.environ.get("GLIX_FULL_MODEL") == "1"
STORIES: Final = int(os.environ.get("GLIX_STORIES", "60")) if FULL else 4
STEPS: Final = 80 if FULL else 20
LAPTOP: Final = "laptop"
OTHERS: Final = ("desk", "pi")
NAMES: Final = ("hello-0", "hello-1", "hello-2", "hello-3")
KEPT: Final = {"notes/tracked.txt": "as committed\n"}

names = st.sampled_from(NAMES)
numbers = itertools.count(1)


class Story(RuleBasedStateMachine):
    """One repository, one daemon after the other, and a person who does as people do."""

    told: ClassVar[Counter[str]] = Counter()
    """How often each thing has happened, in all stories."""

    def __init__(self, template: Template, folder: Path) -> None:
        super().__init__()
        self.folder = folder / str(next(numbers))
        self.ends = ExitStack()
        self.site = self.ends.enter_context(new_site(self.folder, template.nix, template))
        self.site.commit(dict(KEPT))
        self.git = StandingGit(self.folder / "programs")
        self.number = itertools.count(1)
        self.daemon = RunningDaemon(self.site, extra={"PATH": self.git.path, "GLIXD_INDEX": "false"})
        self.ends.enter_context(self.daemon)
        self.model = Model({LAPTOP: self.committed(LAPTOP)}, len(self.log()))
        self.elsewhere = False

    def teardown(self) -> None:
        """Whatever has happened, nothing is damaged."""
        try:
            assert self.site.git("fsck", "--strict", "--no-dangling", "--no-progress") == ""
            messages = self.site.git(
                "log", "main", "--format=%(trailers:key=Glix-Transaction,valueonly,separator=%x20)"
            )
            ids = [line for line in messages.splitlines() if line]
            assert len(ids) == len(set(ids)), "one commit each"
        finally:
            self.ends.close()

    # -- what a change is, in the model and in the daemon --------------------------------------------------------------

    def change(self, operation: str, change: Change, host: str = LAPTOP, **parameters: Any) -> None:
        """Let the daemon make a change, and the model too."""
        ended = self.daemon.run(operation, host=host, evaluate=False, **parameters)
        self.expect(ended, *self.predicted(host, change))
        self.told[operation] += 1

    def predicted(self, host: str, change: Change) -> tuple[Hosts, Hosts, str | None]:
        """The hosts as a change of one of them finds them and leaves them, and the error where it can't be made."""
        before = {
            name: self.model.seen(name) if not self.elsewhere else self.model.hosts[name] for name in self.model.hosts
        }
        after = copy.deepcopy(before)
        error = change(after[host])
        return before, after, error

    def expect(self, ended: Answer, before: Hosts, after: Hosts, error: str | None) -> None:
        """Compare how a transaction ended with what was predicted, and carry it over into the model."""
        if error:
            assert (ended["state"], ended.get("error", {}).get("name")) == ("failed", error), ended
            assert "commit" not in ended
            return
        assert ended["state"] == "succeeded", ended
        changed = _normal(before) != _normal(after)
        if not changed and not self.model.is_edited:
            assert "commit" not in ended, ended
            return
        self.carried(ended["commit"], before, after, undoable=changed)

    def carried(self, commit: str, before: Hosts, after: Hosts, *, undoable: bool = True) -> None:
        """The model makes the commit that the daemon has made."""
        assert commit == self.head(), "what is reported as done is the newest commit"
        if not self.elsewhere:
            self.model.adopt()
        self.model.committed(commit, before, after, undoable=undoable)

    @rule(name=names)
    def add(self, name: str) -> None:
        self.change("Add", model.adding(name), refs=["nixpkgs#hello"], name=name)

    @rule(name=names)
    def remove(self, name: str) -> None:
        self.change("Remove", model.removing(name), names=[name])

    @rule(name=names, enabled=st.booleans())
    def switch(self, name: str, enabled: bool) -> None:
        self.change("Enable" if enabled else "Disable", model.switching(name, enabled=enabled), names=[name])

    @rule(name=names, value=st.sampled_from(["", "dark", "light", 'a "quoted" # value']))
    def configure(self, name: str, value: str) -> None:
        self.change("Set", model.configuring(name, "theme", value), name=name, changes={"config.theme": value})

    @rule(name=names, scope=st.sampled_from(["home", "system"]))
    def move(self, name: str, scope: str) -> None:
        self.change("Move", model.moving(name, scope), names=[name], scope=scope)

    @rule(version=st.sampled_from(["24.05", "24.11", "25.05"]))
    def set_host(self, version: str) -> None:
        self.change("SetHost", model.setting("state_version", version), changes={"state_version": version})

    @rule(first=names, second=names)
    def batch(self, first: str, second: str) -> None:
        changes = model.one_after_the_other(
            model.adding(first), model.configuring(first, "a", "b"), model.removing(second)
        )
        operations = [
            {"operation": "Add", "refs": ["nixpkgs#hello"], "name": first},
            {"operation": "Set", "name": first, "changes": {"config.a": "b"}},
            {"operation": "Remove", "names": [second]},
        ]
        self.change("Apply", changes, operations=operations)

    @rule(name=names)
    def try_out(self, name: str) -> None:
        """A dry run changes nothing, and says what a change would say."""
        _, _, error = self.predicted(LAPTOP, model.adding(name))
        ended = self.daemon.run("Add", refs=["nixpkgs#hello"], name=name, evaluate=False, dry_run=True)
        assert ended.get("error", {}).get("name") == error
        assert "commit" not in ended
        self.told["dry run"] += 1

    @rule()
    def regenerate(self) -> None:
        self.change("Regenerate", lambda manifest: None)

    @precondition(lambda self: self.model.undo and self.model.undo[-1] and not self.model.is_edited)
    @rule()
    def roll_back(self) -> None:
        step = self.model.undo.pop()
        assert isinstance(step, Undo)
        before = self.model.hosts
        ended = self.daemon.run("Rollback", evaluate=False)
        assert ended["state"] == "succeeded", ended
        self.carried(ended["commit"], before, undone(before, step))
        self.model.undo.pop()
        self.told["Rollback"] += 1

    @precondition(lambda self: self.model.is_edited and not self.elsewhere)
    @rule()
    def adopt(self) -> None:
        ended = self.daemon.run("Adopt", evaluate=False)
        assert ended["state"] == "succeeded", ended
        before, after, _ = self.predicted(LAPTOP, lambda manifest: None)
        self.carried(ended["commit"], before, after, undoable=False)
        self.told["Adopt"] += 1

    # -- hosts ---------------------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.model.is_edited and not self.elsewhere and len(self.model.hosts) < 3)
    @rule(host=st.sampled_from(OTHERS))
    def new_host(self, host: str) -> None:
        if host in self.model.hosts:
            return
        before = copy.deepcopy(self.model.hosts)
        ended = self.daemon.run("Init", host=host, user="bob", system="aarch64-linux", evaluate=False)
        assert ended["state"] == "succeeded", ended
        made = self.committed(host)
        assert made.get("packages", {}) == {}
        assert (made["settings"]["primary_user"], made["settings"]["system"]) == ("bob", "aarch64-linux")
        self.carried(ended["commit"], before, {**before, host: made}, undoable=False)
        self.told["Init"] += 1

    @precondition(lambda self: not self.model.is_edited and not self.elsewhere and len(self.model.hosts) > 1)
    @rule(renamed=st.booleans())
    def host_goes(self, renamed: bool) -> None:
        host = next(name for name in self.model.hosts if name != LAPTOP)
        free = next((name for name in OTHERS if name not in self.model.hosts), None)
        before = copy.deepcopy(self.model.hosts)
        after = {name: manifest for name, manifest in before.items() if name != host}
        if renamed and free:
            ended = self.daemon.run("RenameHost", name=host, to=free, evaluate=False)
            after[free] = before[host]
            self.model.comments[free] = self.model.comments.pop(host, [])
        else:
            ended = self.daemon.run("RemoveHost", name=host, evaluate=False)
            self.model.comments.pop(host, None)
        assert ended["state"] == "succeeded", ended
        self.carried(ended["commit"], before, after, undoable=False)
        self.told["RenameHost" if renamed and free else "RemoveHost"] += 1

    @precondition(lambda self: len(self.model.hosts) > 1)
    @rule(name=names)
    def add_elsewhere(self, name: str) -> None:
        host = next(name for name in self.model.hosts if name != LAPTOP)
        self.change("Add", model.adding(name), host, refs=["nixpkgs#hello"], name=name)

    # -- what goes wrong -----------------------------------------------------------------------------------------------

    @rule(name=names)
    def cancel(self, name: str) -> None:
        """A change that waits for the repository is stopped."""
        with self.site.locked(), self.daemon.connect() as client:
            started = client.call("Set", name=name, changes={"config.never": "never"}, evaluate=False)["transaction"]
            _, _, error = self.predicted(LAPTOP, model.configuring(name, "never", "never"))
            if error:
                assert client.wait(started)["error"]["name"] == error
                return
            client.reach(started, "running")
            client.call("Cancel", transaction=started)
            assert client.wait(started)["state"] == "cancelled"
        self.told["cancel"] += 1

    @rule(name=names, call=st.integers(1, 8), when=st.sampled_from(["before", "after"]))
    def crash(self, name: str, call: int, when: str) -> None:
        """The daemon is killed at some call of git, in the middle of a change."""
        self.git.kill_at(call, when, self.daemon.pid)
        self.interrupted(name, lambda: None)

    @rule(name=names, moment=st.sampled_from(list(MOMENTS)))
    def crash_around_the_commit_point(self, name: str, moment: str) -> None:
        _, _, error = self.predicted(LAPTOP, model.adding(name))
        if error or (self.elsewhere and moment == "before publishing ends"):  # where the index is another branch's
            return
        self.git.arm(moment)

        def kill() -> None:
            self.git.wait()
            self.daemon.kill()

        self.interrupted(name, kill)
        self.told[f"crash {moment}"] += 1

    def interrupted(self, name: str, kill: Callable[[], None]) -> None:
        """A change whose daemon does not live to tell of it: it is there as a whole, or not at all."""
        before, after, error = self.predicted(LAPTOP, model.adding(name))
        head, started, ended = self.head(), None, None
        with suppress(EOFError, OSError), self.daemon.connect() as client:
            started = client.call("Add", refs=["nixpkgs#hello"], name=name, evaluate=False)["transaction"]
            kill()
            ended = client.wait(started)
        if ended is not None:
            self.git.spare()
            self.expect(ended, before, after, error)
            return
        if self.daemon.running or self.daemon._process is not None:
            self.daemon.wait()
        self.git.spare()
        self.daemon.start()
        self.told["crash"] += 1
        moved = self.head() != head
        if started:
            record = self.daemon.call("GetTransaction", transaction=started)
            assert record["state"] == ("succeeded" if moved else "failed"), record
            assert record.get("commit") == (self.head() if moved else None)
        if moved:
            assert error is None
            self.carried(self.head(), before, after)

    @rule()
    def restart(self) -> None:
        assert self.daemon.stop() == 0
        self.daemon.start()
        self.told["restart"] += 1

    # -- what a person does --------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.elsewhere)
    @rule(above=st.booleans())
    def comment(self, above: bool) -> None:
        """A remark in the manifest, above everything or below."""
        edit, line = self.model.edited(LAPTOP), f"# remark {next(self.number)}\n"
        if above:
            edit.above.insert(0, line)
        else:
            edit.below.append(f"\n{line}")
        self.write_manifest(LAPTOP)
        self.told["edit"] += 1

    @precondition(lambda self: not self.elsewhere)
    @rule()
    def add_by_hand(self) -> None:
        """A package that was written into the manifest, not asked for."""
        edit, name = self.model.edited(LAPTOP), f"by-hand-{next(self.number)}"
        edit.below.append(f'\n[packages.{name}]\nflake = "nixpkgs#hello"\nscope = "system"\n')
        edit.packages[name] = dict(NEW)
        self.write_manifest(LAPTOP)
        self.told["edit"] += 1

    def write_manifest(self, host: str) -> None:
        path = f"hosts/{host}/glix.toml"
        self.site.write({path: self.model.edited(host).around(self.site.committed(path, "main"))})

    @precondition(lambda self: not self.elsewhere and not self.model.is_edited)
    @rule(name=names, moment=st.sampled_from(["before the commit point", "after the commit point"]))
    def edit_during_a_change(self, name: str, moment: str) -> None:
        """What a person writes while a change is under way is kept, beside the change and not in its commit."""
        before, after, error = self.predicted(LAPTOP, model.adding(name))
        if error:
            return
        self.git.arm(moment)
        with self.daemon.connect() as client:
            started = client.call("Add", refs=["nixpkgs#hello"], name=name, evaluate=False)["transaction"]
            line = f"# remark {next(self.number)}\n"
            with self.git.standing():
                self.site.write({f"hosts/{LAPTOP}/glix.toml": line + self.site.read(f"hosts/{LAPTOP}/glix.toml")})
            ended = client.wait(started)
        self.expect(ended, before, after, error)
        self.model.edited(LAPTOP).above.insert(0, line)
        self.told["edit during a change"] += 1

    @rule(staged=st.booleans())
    def work(self, staged: bool) -> None:
        """A person works on files that are no business of the daemon."""
        number = next(self.number)
        self.put("notes/tracked.txt", f"changed {number}\n", " M")
        self.put(f"notes/{number}.txt", "mine\n", "A " if staged else "??")
        if staged:
            self.site.git("add", "--", f"notes/{number}.txt")
        self.told["work"] += 1

    def put(self, path: str, text: str, status: str) -> None:
        self.site.write({path: text})
        self.model.files[path] = text
        self.model.status[path] = status

    @rule()
    def commit_by_hand(self) -> None:
        """A person commits something of their own."""
        path = f"notes/committed-{next(self.number)}.txt"
        self.site.commit({path: "mine\n"})
        if not self.elsewhere:
            self.model.commits += 1
            self.model.files[path] = "mine\n"
        self.told["commit by hand"] += 1

    @precondition(lambda self: self.model.is_edited and not self.elsewhere)
    @rule()
    def commit_the_edit(self) -> None:
        """A person commits the edit of a manifest, as git lets them."""
        paths = [f"hosts/{host}/glix.toml" for host in self.model.edits]
        self.site.git("commit", "--quiet", "--message", "By hand", "--", *paths)
        self.model.adopt()
        self.model.commits += 1
        self.told["commit of an edit"] += 1

    @precondition(lambda self: not self.elsewhere and not self.model.is_edited)
    @rule(name=names)
    def commit_during_a_change(self, name: str) -> None:
        before, after, error = self.predicted(LAPTOP, model.adding(name))
        if error:
            return
        path = f"notes/committed-{next(self.number)}.txt"
        self.git.arm("before the commit point")
        with self.daemon.connect() as client:
            started = client.call("Add", refs=["nixpkgs#hello"], name=name, evaluate=False)["transaction"]
            with self.git.standing():
                self.site.commit({path: "mine\n"})
            ended = client.wait(started)
        self.model.commits += 1
        self.model.files[path] = "mine\n"
        self.expect(ended, before, after, error)
        self.told["commit during a change"] += 1

    @precondition(lambda self: not self.model.is_edited)
    @rule()
    def switch_branches(self) -> None:
        """A person looks at another branch, or comes back."""
        if self.elsewhere:
            self.site.git("checkout", "--quiet", "main")
        else:
            self.site.git("checkout", "--quiet", "-B", "elsewhere")
        self.elsewhere = not self.elsewhere
        self.told["branch"] += 1

    # -- what always holds ---------------------------------------------------------------------------------------------

    @invariant()
    def repository_is_what_the_model_says(self) -> None:
        log = self.log()
        assert len(log) == self.model.commits
        assert self.model.reported <= set(log)
        assert set(self.site.git("ls-tree", "--name-only", "main:hosts").splitlines()) == self.model.hosts.keys()
        for host, manifest in self.model.hosts.items():
            path = f"hosts/{host}/glix.toml"
            text = self.site.committed(path, "main")
            assert normal(tomllib.loads(text)) == normal(manifest)
            lines = {line.strip() for line in text.splitlines()}
            assert [line for line in self.model.comments.get(host, []) if line not in lines] == []
            if not self.elsewhere:
                edit = self.model.edits.get(host)
                assert self.site.read(path) == (edit.around(text) if edit else text)

    @invariant()
    def work_of_the_person_is_untouched(self) -> None:
        printed = self.site.git("status", "--porcelain", "--branch", "--untracked-files=all", "-z")
        expected = {f"{letters} {path}" for path, letters in self.model.status.items()}
        expected |= {f" M hosts/{host}/glix.toml" for host in self.model.edits}
        assert set(filter(None, printed.split("\0")[1:])) == expected
        for path, text in self.model.files.items():
            if not self.elsewhere or path in self.model.status:
                assert self.site.read(path) == text

    @invariant()
    def nothing_is_left_lying_about(self) -> None:
        git = self.site.repository / ".git"
        assert [path for path in git.rglob("*.lock") if path.name != "daemon.lock"] == []
        assert list((git / "glix" / "tmp").glob("*")) == []

    def log(self) -> list[str]:
        return self.site.git("rev-list", "main").splitlines()

    def head(self) -> str:
        return self.site.git("rev-parse", "main")

    def committed(self, host: str) -> model.Manifest:
        return tomllib.loads(self.site.committed(f"hosts/{host}/glix.toml", "main"))


def _normal(hosts: Hosts) -> Hosts:
    return {host: normal(manifest) for host, manifest in hosts.items()}


def test_everything_that_can_happen_happens_once(template: Template, tmp_path: Path) -> None:
    """Which of it the stories tell is left to chance; here nothing is."""
    story = Story(template, tmp_path)
    events: list[Callable[[], None]] = [
        partial(story.add, "hello-0"),
        partial(story.add, "hello-0"),
        partial(story.configure, "hello-0", 'a "quoted" # value'),
        story.roll_back,
        partial(story.comment, True),
        partial(story.switch, "hello-0", False),
        story.add_by_hand,
        partial(story.try_out, "hello-1"),
        story.adopt,
        partial(story.work, True),
        partial(story.edit_during_a_change, "hello-1", "before the commit point"),
        partial(story.move, "hello-1", "home"),
        partial(story.edit_during_a_change, "hello-2", "after the commit point"),
        story.commit_the_edit,
        partial(story.commit_during_a_change, "hello-3"),
        partial(story.new_host, "desk"),
        partial(story.add_elsewhere, "hello-0"),
        partial(story.crash, "hello-0", 1, "after"),
        partial(story.remove, "hello-0"),
        *(partial(story.crash, "hello-0", call, "before") for call in (1, 2, 3)),
        partial(story.remove, "hello-1"),
        *(partial(killed_while_adding, story, number) for number in range(len(MOMENTS))),
        story.switch_branches,
        partial(story.set_host, "24.11"),
        partial(story.work, False),
        story.commit_by_hand,
        partial(story.crash, "hello-2", 2, "after"),
        story.switch_branches,
        partial(story.host_goes, True),
        partial(story.cancel, "hello-3"),
        story.restart,
        partial(story.batch, "hello-1", "hello-3"),
        partial(story.host_goes, False),
        story.regenerate,
        story.commit_by_hand,
    ]
    try:
        for event in events:
            event()
            story.repository_is_what_the_model_says()
            story.work_of_the_person_is_untouched()
            story.nothing_is_left_lying_about()
    finally:
        story.teardown()


def killed_while_adding(story: Story, number: int) -> None:
    """A package that is not there is added by a daemon that dies around the commit point."""
    story.remove("hello-1")
    story.crash_around_the_commit_point("hello-1", list(MOMENTS)[number])


def test_repository_equals_the_model_whatever_happens(
    template: Template, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Story.told.clear()
    begin: Any = partial(Story, template, tmp_path)  # called like the class, and of each story anew
    run_state_machine_as_test(
        begin,
        settings=settings(
            max_examples=STORIES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=not FULL,
            database=None,
            phases=[Phase.generate, Phase.shrink] if FULL else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    with capsys.disabled():
        print(f"\n{STORIES} stories of {STEPS} steps: {dict(Story.told.most_common())}")
    if FULL:
        assert Story.told.keys() >= {"crash", "edit during a change", "branch", "Rollback", "restart", "cancel", "Init"}


def test_the_model_sees_a_success_that_is_not_there(template: Template, tmp_path: Path) -> None:
    """The control: a daemon that is lied to reports what has not happened."""
    story = Story(template, tmp_path)
    try:
        story.add("hello-0")
        story.repository_is_what_the_model_says()
        story.git.lie()
        with pytest.raises(AssertionError, match="what is reported as done"):
            story.add("hello-1")
    finally:
        story.ends.close()


def test_the_model_sees_a_lost_edit_and_a_foreign_change(template: Template, tmp_path: Path) -> None:
    """The control: what somebody else does to the files of a person or of the daemon."""
    story = Story(template, tmp_path)
    try:
        story.comment(above=True)
        story.repository_is_what_the_model_says()
        story.site.git("checkout", "--", ".")
        with pytest.raises(AssertionError):
            story.repository_is_what_the_model_says()
        story.model.edits = {}
        story.repository_is_what_the_model_says()
        story.work(staged=True)
        story.site.git("reset", "--quiet")
        with pytest.raises(AssertionError):
            story.work_of_the_person_is_untouched()
    finally:
        story.ends.close()
