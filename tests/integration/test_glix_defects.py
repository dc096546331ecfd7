# SPDX-License-Identifier: GPL-3.0-or-later
"""What went wrong in glix goes right here: one test for each of its known defects, by the defect's name."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from glixd.protocol import Exit
from tests.support.daemon import RunningDaemon, Site, glixctl_command
from tests.support.hermetic import make_git_flake
from tests.support.registry_server import document, serving
from tests.support.repositories import EXAMPLES, Sources

pytestmark = [pytest.mark.integration, pytest.mark.nix]

MANIFEST = "hosts/laptop/glix.toml"
HELLO = (EXAMPLES / "pkg-hello/flake.nix").read_text()
GREETING = (EXAMPLES / "pkg-greeting/flake.nix").read_text()


def run(site: Site, *words: str) -> str:
    """Run a command that must succeed; what it prints."""
    done = site.glixctl(*words)
    assert done.returncode == Exit.DONE, (words, done.stdout, done.stderr)
    return done.stdout


def refused(site: Site, status: int, *words: str) -> str:
    """Run a command that must be refused and leave no trace; what it says."""
    before = site.trace()
    done = site.glixctl(*words)
    assert done.returncode == status, (words, done.stdout, done.stderr)
    assert site.trace() == before
    return done.stderr


def packages(site: Site, host: str = "laptop") -> set[str]:
    """The names of the packages of a host as they are committed."""
    return set(tomllib.loads(site.committed(f"hosts/{host}/glix.toml")).get("packages", {}))


def test_lost_concurrent_adds(site: Site, daemon: RunningDaemon) -> None:
    names = ["firefox", "hello", "git", "tmux"]
    before = len(site.commits())
    clients = [
        subprocess.Popen(
            glixctl_command("add", name, "-q"),
            env=site.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    assert [(client.communicate()[1], client.returncode) for client in clients] == [("", 0)] * len(names)
    assert packages(site) == set(names)
    assert len(site.commits()) == before + len(names)


def test_rollback_toggling(site: Site) -> None:
    run(site, "add", "hello")
    run(site, "add", "git")
    run(site, "rollback")
    assert packages(site) == {"hello"}
    run(site, "rollback")
    assert packages(site) == set()
    assert site.glixctl("rollback").returncode == Exit.NOTHING_TO_DO
    assert packages(site) == set()


def test_foreign_commits_reverted(site: Site) -> None:
    run(site, "add", "hello")
    site.commit({"shared/base.nix": "{ } # mine\n"})
    run(site, "rollback")
    assert site.committed("shared/base.nix") == "{ } # mine\n"
    assert packages(site) == set()


def test_git_add_all(site: Site) -> None:
    site.commit({"shared/base.nix": "{ }\n"})
    site.write({"shared/base.nix": "{ } # mine\n", "secret.key": "mine\n", "staged": "mine\n"})
    site.git("add", "staged")
    run(site, "add", "hello")
    run(site, "rollback")
    for commit in ("HEAD", "HEAD~1"):
        assert site.git("diff", "--name-only", f"{commit}~1", commit) == MANIFEST
    status = {line.split()[-1]: line.split()[0] for line in site.git("status", "--porcelain").splitlines()}
    assert status == {"shared/base.nix": "M", "staged": "A", "secret.key": "??"}


def test_config_values_in_subjects(site: Site) -> None:
    run(site, "add", "hello")
    run(site, "set", "hello", "config.token=s3cret")
    assert "s3cret" in site.committed(MANIFEST)
    run(site, "set", "hello", "config.token=")
    assert "s3cret" not in site.git("log", "--format=%B")
    history = json.loads(run(site, "history", "--json"))
    assert "s3cret" not in json.dumps(history)


def test_same_name_on_two_hosts(site: Site) -> None:
    run(site, "init", "--host", "pi", "--user", "bob", "--system", "aarch64-linux")
    site.commit({"one/tool/flake.nix": HELLO, "two/tool/flake.nix": HELLO + "# another\n"})
    run(site, "add", "path:./one/tool")
    run(site, "add", "path:./two/tool", "--host", "pi")
    shown = [json.loads(run(site, "show", "tool", "--host", host, "--json")) for host in ("laptop", "pi")]
    assert [one["url"] for one in shown] == ["path:./one/tool", "path:./two/tool"]
    assert shown[0]["input"] != shown[1]["input"]
    assert (site.evaluated("laptop")["system"], site.evaluated("pi")["system"]) == (["pkg-hello"], ["pkg-hello"])


def test_folder_hosts_common_taken_for_a_host(site: Site) -> None:
    site.commit({"hosts/common/default.nix": "{ }\n", "hosts/README": "mine\n"})
    assert [host["name"] for host in json.loads(run(site, "info", "--json"))["hosts"]] == ["laptop"]
    run(site, "add", "hello")
    assert '"common"' not in site.committed("flake.nix")
    assert "laptop" in refused(site, Exit.NOT_FOUND, "add", "hello", "--host", "common")


def test_symlinked_flake_replaced_by_a_file(site: Site, tmp_path: Path) -> None:
    assert site.glixctl("ping").returncode == Exit.DONE
    elsewhere = tmp_path / "flake.nix"
    (site.repository / "flake.nix").rename(elsewhere)
    (site.repository / "flake.nix").symlink_to(elsewhere)
    text = elsewhere.read_text()
    said = refused(site, Exit.FAILED, "add", "hello")
    assert "flake.nix is a link" in said
    assert elsewhere.read_text() == text


def test_lost_comments(site: Site) -> None:
    run(site, "add", "hello", "git")
    text = site.committed(MANIFEST).replace("[packages.hello]\n", "# above\n[packages.hello] # beside\n# inside\n")
    site.commit({MANIFEST: text + "# at the end\n"})
    run(site, "add", "tmux")
    run(site, "disable", "hello")
    run(site, "set", "git", "config.a=b")
    run(site, "remove", "tmux")
    for comment in ("# above\n", "# beside\n", "# inside\n", "# at the end\n"):
        assert comment in site.committed(MANIFEST)


@pytest.mark.parametrize("value", ["\x1b[31mred", "\x1b]0;title\x07", "a\x9bb", "a\rb"])
def test_escape_in_a_value(site: Site, value: str) -> None:
    run(site, "add", "hello")
    said = refused(site, Exit.USAGE, "set", "hello", f"config.a={value}")
    assert "\x1b" not in said
    assert "\x9b" not in said
    refused(site, Exit.USAGE, "add", "git", "--reason", value)


def test_escape_that_is_there_already_reaches_no_terminal(site: Site) -> None:
    site.git("commit", "--quiet", "--allow-empty", "--message", "Red \x1b[31m and \x9b2J")
    shown = run(site, "history")
    assert "\x1b" not in shown
    assert "\x9b" not in shown


@pytest.mark.parametrize(
    "reference",
    ["github:o/${builtins.readFile /etc/passwd}", "path:./${x}", 'github:o/x";evil="', "git+https://h/''${x}"],
)
def test_interpolation_in_a_reference(site: Site, reference: str) -> None:
    run(site, "add", "hello")
    refused(site, Exit.REFUSED, "add", reference)
    refused(site, Exit.REFUSED, "set", "hello", f"flake={reference}")


def test_interpolation_in_a_value_stays_text(site: Site) -> None:
    site.commit({"pkgs/greeting/flake.nix": GREETING})
    run(site, "add", "path:./pkgs/greeting")
    value = "${builtins.readFile /etc/passwd} ''${x} \" \\"
    run(site, "set", "greeting", f"config.message={value}")
    assert site.evaluated()["etc"]["greeting"] == value


@pytest.mark.parametrize("host", ["../..", "..", "/etc", "laptop/..", ".git", ""])
def test_host_that_leads_out_of_the_repository(site: Site, host: str) -> None:
    assert site.glixctl("ping").returncode == Exit.DONE
    for words in (("add", "hello"), ("init", "--user", "bob"), ("list",), ("rollback",)):
        refused(site, Exit.USAGE, *words, f"--host={host}")
    for words in (("remove", host), ("rename", "laptop", host), ("set", host, "system=x86_64-linux")):
        refused(site, Exit.USAGE, "host", *words)


def test_set_of_an_absolute_path_past_the_guard(site: Site, tmp_path: Path) -> None:
    make_git_flake(tmp_path / "local", {"flake.nix": HELLO})
    run(site, "add", "hello")
    said = refused(site, Exit.REFUSED, "set", "hello", f"flake=path:{tmp_path}/local")
    assert "--allow-local" in said
    operations = f'[[operations]]\noperation = "Set"\nname = "hello"\nchanges = {{ flake = "path:{tmp_path}/local" }}\n'
    (site.home / "changes.toml").write_text(operations)
    refused(site, Exit.REFUSED, "apply", "-f", "changes.toml")


@pytest.mark.parametrize("name", ["self", "nixpkgs", "home-manager", "glixos-core"])
def test_reserved_name_breaks_the_flake(site: Site, name: str) -> None:
    site.commit({f"pkgs/{name}/flake.nix": HELLO})
    run(site, "add", f"path:./pkgs/{name}")
    assert packages(site) == {name}
    inputs = json.loads(run(site, "info", "--json"))["inputs"]
    assert [one["name"] for one in inputs if one["managed"]] == [f"p-{name}"]
    assert site.evaluated()["system"] == ["pkg-hello"]


@pytest.mark.parametrize("name", ["with", "inherit", "let", "in", "rec", "if", "or", "true", "null"])
def test_keyword_of_nix_as_a_name(site: Site, name: str) -> None:
    site.commit({f"pkgs/{name}/flake.nix": HELLO})
    run(site, "add", f"path:./pkgs/{name}")
    assert site.evaluated()["system"] == ["pkg-hello"]
    run(site, "remove", name)
    assert name not in site.lock_nodes()


def test_7zip(site: Site) -> None:
    run(site, "add", "7zip", "_1password")
    assert site.evaluated()["system"] == ["1password", "7zip"]
    site.commit({"pkgs/x/flake.nix": HELLO})
    run(site, "set", "7zip", "flake=path:./pkgs/x")
    assert site.evaluated()["system"] == ["1password", "pkg-hello"]
    run(site, "set", "7zip", "flake=nixpkgs#7zip")
    assert site.evaluated()["system"] == ["1password", "7zip"]
    run(site, "remove", "7zip", "_1password")


def test_follows_a_nixpkgs_that_is_not_there(site: Site, sources: Sources) -> None:
    own = HELLO.replace("github:NixOS/nixpkgs/nixos-unstable", sources.nixpkgs)
    lone = '{ outputs = _: { nixosModules.default = { environment.etc."lone".text = "here"; }; }; }\n'
    site.commit({"pkgs/lone/flake.nix": lone, "pkgs/own/flake.nix": own})
    run(site, "add", "path:./pkgs/lone")
    assert site.evaluated()["etc"]["lone"] == "here"
    run(site, "add", "path:./pkgs/own", "--no-follows")
    assert site.lock_nodes()["own"]["inputs"] == {"nixpkgs": "nixpkgs_2"}
    run(site, "set", "own", "follows=true")
    assert site.lock_nodes()["own"]["inputs"] == {"nixpkgs": ["nixpkgs"]}


def test_flags_after_positionals(site: Site) -> None:
    run(site, "add", "hello", "--scope", "home", "git", "--user=alice", "--reason", "both", "-q")
    assert site.evaluated()["homes"] == {"alice": ["git", "hello"]}
    run(site, "remove", "hello", "--host", "laptop")
    assert packages(site) == {"git"}


@pytest.mark.parametrize("words", [("-h",), ("--help",), ("add", "-h"), ("host", "rename", "--help"), ("help", "set")])
def test_help_exits_well(site: Site, words: tuple[str, ...]) -> None:
    assert run(site, *words)


def test_useless_rolled_back_exit_status_1(site: Site, tmp_path: Path) -> None:
    run(site, "add", "hello")
    broken = make_git_flake(tmp_path / "broken", {"flake.nix": "{ outputs = _: { }; inputs.x.url = 7; }"})
    said = refused(site, Exit.FAILED, "add", broken, "--allow-local", "--name", "broken")
    assert "exit status" not in said
    assert "could not be locked" in said
    assert "x.url" in said or "'url'" in said or "string" in said
    gone = refused(site, Exit.FAILED, "set", "hello", f"flake=git+file://{tmp_path}/nosuch", "--allow-local")
    assert str(tmp_path / "nosuch") in gone


def test_registry_cache_not_keyed_by_url(site: Site) -> None:
    folder = site.home / ".config" / "glixd"
    folder.mkdir(parents=True)
    with serving() as server:
        server.body = document({"tool": "github:owner/tool"})
        for url, status, known in ((server.url, 200, 1), (f"{server.url}?other", 500, 0)):
            (folder / "config.toml").write_text(f'[[registries]]\nurl = "{url}"\ntrust = "trusted"\n')
            server.status = status
            with RunningDaemon(site, extra={"GLIXD_INDEX": "false"}) as daemon:
                (told,) = daemon.call("RefreshRegistries")["registries"]
            assert (told["url"], told["entries"]) == (url, known)


def test_doctor_that_cannot_fail(site: Site) -> None:
    site.commit({MANIFEST: site.read(MANIFEST).replace("schema = 1", "schema = 2")})
    done = site.glixctl("doctor")
    assert done.returncode == Exit.FAILED
    assert "FAIL" in done.stdout
    assert "schema" in done.stdout


def test_repository_behind_a_link(site: Site) -> None:
    elsewhere = site.home / "dotfiles"
    site.repository.rename(elsewhere)
    site.repository.symlink_to(elsewhere)
    run(site, "add", "hello")
    assert site.repository.readlink() == elsewhere
    assert site.commits()[-1].startswith("glix add laptop: hello")
    assert site.git("status", "--porcelain") == ""
