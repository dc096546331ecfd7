# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job, end to end: `glixctl add firefox` by the real client, and what is there afterwards."""

from __future__ import annotations

import json
import os
import pwd

import pytest

from glixd.protocol import Exit
from tests.support.daemon import RunningDaemon, Site
from tests.support.repositories import Sources

pytestmark = [pytest.mark.integration, pytest.mark.nix]

MANIFEST = "hosts/laptop/glix.toml"
COMMENTED = """\
# Mine; do not touch.
schema   =   1   # one

[settings]   # defaults
  default_scope='system'
  system = "x86_64-linux"
\tprimary_user = "alice" # me
state_version = "25.05"
# a setting that glixd does not know
colour = { red = 1, green = [ 2, 3, ] }

# tools
[packages."ripgrep"]   # fast
flake = 'nixpkgs#ripgrep'   # host's own

[packages.hello]
flake = "nixpkgs#hello"
enabled = false # for now
note = '''
 several lines
'''
# the end, without a newline"""


def test_add_firefox_is_one_commit_that_says_who_did_what(site: Site) -> None:
    before = site.commits()
    done = site.glixctl("add", "firefox")
    assert done.returncode == Exit.DONE, done.stderr
    commit = site.git("rev-parse", "HEAD")
    assert done.stdout == (f"added firefox to laptop (nixpkgs#firefox, system, via nixpkgs) — commit {commit[:7]}\n")
    subject = "glix add laptop: firefox (nixpkgs#firefox, system, via nixpkgs)"
    assert site.commits() == [*before, subject]

    transaction = json.loads(site.glixctl("transaction", "list", "--json").stdout)["transactions"][0]
    message = site.git("log", "-1", "--format=%B")
    assert message.splitlines() == [
        subject,
        "",
        f"Glix-Transaction: {transaction['id']}",
        f"Glix-Request-Digest: {transaction['digest']}",
        f"Glix-Uid: {os.getuid()}",
        "Glix-Trust: trusted",
    ]
    assert transaction["commit"] == commit
    login = pwd.getpwuid(os.getuid()).pw_name
    assert site.git("log", "-1", "--format=%an/%cn").split("/") == [login, "glixd"]


def test_reason_becomes_part_of_the_commit_message_and_of_the_history(site: Site) -> None:
    assert site.glixctl("add", "hello", "ripgrep", "--reason", "A greeting, and a search").returncode == Exit.DONE
    assert site.commits()[-1] == "glix add laptop: hello, ripgrep"
    body = site.git("log", "-1", "--format=%b").splitlines()
    assert body[:2] == [
        "added hello (nixpkgs#hello, system, via nixpkgs)",
        "added ripgrep (nixpkgs#ripgrep, system, via nixpkgs)",
    ]
    assert "Glix-Reason: A greeting, and a search" in body
    history = json.loads(site.glixctl("history", "--json").stdout)["entries"]
    assert history[0]["reason"] == "A greeting, and a search"
    assert history[0]["uid"] == os.getuid()


def test_add_firefox_makes_it_a_package_of_the_system_and_adds_no_input(site: Site) -> None:
    flake, lock = site.committed("flake.nix"), site.committed("flake.lock")
    assert site.glixctl("add", "firefox").returncode == Exit.DONE
    assert site.evaluated()["system"] == ["firefox"]
    assert (site.committed("flake.nix"), site.committed("flake.lock")) == (flake, lock)
    assert site.git("diff", "--name-only", "HEAD~1", "HEAD") == MANIFEST


def test_work_tree_and_index_show_the_commit_when_the_client_is_told(site: Site) -> None:
    assert site.glixctl("add", "firefox").returncode == Exit.DONE
    assert site.git("status", "--porcelain") == ""
    assert site.read(MANIFEST) == site.committed(MANIFEST)
    assert site.git("for-each-ref", "--format=%(refname)") == "refs/heads/main"
    site.git("fsck", "--strict")


def test_comments_order_and_layout_of_the_manifest_stay_byte_for_byte(site: Site) -> None:
    site.commit({MANIFEST: COMMENTED})
    assert site.glixctl("add", "firefox").returncode == Exit.DONE
    added = '[packages.firefox]\nflake = "nixpkgs#firefox"\nscope = "system"\n'
    assert site.committed(MANIFEST) == f"{COMMENTED}\n\n{added}"
    deleted = site.git("diff", "--numstat", "HEAD~1", "HEAD").split()[1]
    assert deleted == "1", "only the last line, which gets a newline, may count as changed"
    assert site.glixctl("remove", "firefox").returncode == Exit.DONE
    assert site.committed(MANIFEST).rstrip("\n") == COMMENTED
    assert site.evaluated()["system"] == ["ripgrep"]


def test_disable_enable_and_remove_are_a_commit_each_and_take_effect(site: Site) -> None:
    assert site.glixctl("add", "hello", "ripgrep").returncode == Exit.DONE
    for words, expected in (
        (("disable", "hello"), ["ripgrep"]),
        (("enable", "hello"), ["hello", "ripgrep"]),
        (("remove", "ripgrep"), ["hello"]),
    ):
        before = site.commits()
        assert site.glixctl(*words).returncode == Exit.DONE
        assert len(site.commits()) == len(before) + 1
        assert site.evaluated()["system"] == expected
    assert site.commits()[-3:] == [
        "glix disable laptop: hello (nixpkgs#hello, system)",
        "glix enable laptop: hello (nixpkgs#hello, system)",
        "glix remove laptop: ripgrep (nixpkgs#ripgrep, system)",
    ]


def test_nothing_to_do_makes_no_commit_and_says_so(site: Site) -> None:
    assert site.glixctl("add", "hello").returncode == Exit.DONE
    before = site.git("rev-parse", "HEAD")
    assert site.glixctl("enable", "hello").returncode == Exit.NOTHING_TO_DO
    assert site.glixctl("regen").returncode == Exit.NOTHING_TO_DO
    assert site.git("rev-parse", "HEAD") == before


def test_list_shows_the_table_of_packages(site: Site) -> None:
    assert site.glixctl("add", "hello").returncode == Exit.DONE
    assert site.glixctl("add", "ripgrep", "--scope", "home").returncode == Exit.DONE
    assert site.glixctl("disable", "hello").returncode == Exit.DONE
    assert [line.split() for line in site.glixctl("list", "--all", "-q").stdout.splitlines()] == [
        ["HOST", "NAME", "SCOPE", "STATE", "USER", "FLAKE"],
        ["laptop", "hello", "system", "disabled", "nixpkgs#hello"],
        ["laptop", "ripgrep", "home", "enabled", "alice", "nixpkgs#ripgrep"],
    ]
    assert [line.split()[1] for line in site.glixctl("list", "-q").stdout.splitlines()] == ["NAME", "ripgrep"]
    shown = json.loads(site.glixctl("show", "ripgrep", "--json").stdout)
    assert (shown["scope"], shown["user"], shown["attribute"]) == ("home", "alice", "ripgrep")
    assert shown["revision"] == site.lock_nodes()["nixpkgs"]["locked"]["rev"]


def test_home_packages_go_to_the_home_that_is_named_or_to_the_primary_user(site: Site) -> None:
    assert site.glixctl("add", "ripgrep", "--scope=home").returncode == Exit.DONE
    assert site.glixctl("add", "--user", "bob", "hello").returncode == Exit.DONE
    assert "users.users.bob.isNormalUser" not in site.read("hosts/laptop/default.nix")
    site.commit({"hosts/laptop/users.nix": "{ users.users.bob.isNormalUser = true; }\n"})
    default = site.read("hosts/laptop/default.nix").replace("imports =", "imports = [ ./users.nix ] ++")
    site.commit({"hosts/laptop/default.nix": default})
    assert site.evaluated()["homes"] == {"alice": ["ripgrep"], "bob": ["hello"]}
    assert site.evaluated()["warnings"] == []


def test_init_makes_a_repository_in_one_commit_that_evaluates(bare_site: Site, sources: Sources) -> None:
    words = ("--user", "alice", "--system", "x86_64-linux", "--nixpkgs", sources.nixpkgs, "--core", sources.core)
    done = bare_site.glixctl("init", "--host", "laptop", *words, "--home-manager", sources.home_manager)
    assert done.returncode == Exit.DONE, done.stderr
    assert len(bare_site.commits()) == 1
    files = bare_site.git("ls-files").splitlines()
    assert files == ["flake.lock", "flake.nix", "hosts/laptop/default.nix", MANIFEST]
    assert bare_site.git("status", "--porcelain") == ""
    assert set(bare_site.lock_nodes()) == {"root", "nixpkgs", "glixos-core", "home-manager"}
    assert bare_site.evaluated() == {"system": [], "homes": {}, "files": {}, "warnings": []} | {
        "etc": bare_site.evaluated()["etc"]
    }
    host = bare_site.read("hosts/laptop/default.nix")
    assert "hashedPasswordFile" in host
    code = [line for line in host.splitlines() if not line.strip().startswith("#")]
    assert not any("assword" in line for line in code)


def test_init_without_home_manager_manages_no_homes(bare_site: Site, sources: Sources) -> None:
    words = ("--user", "alice", "--nixpkgs", sources.nixpkgs, "--core", sources.core, "--home-manager", "none")
    assert bare_site.glixctl("init", *words).returncode == Exit.DONE
    assert set(bare_site.lock_nodes()) == {"root", "nixpkgs", "glixos-core"}
    refused = bare_site.glixctl("add", "hello", "--scope", "home")
    assert refused.returncode == Exit.REFUSED
    assert "home-manager" in refused.stderr
    assert bare_site.glixctl("add", "hello").returncode == Exit.DONE
    assert bare_site.evaluated()["system"] == ["hello"]


def test_init_adds_a_host_and_refuses_one_that_exists(site: Site) -> None:
    before = site.git("rev-parse", "HEAD")
    again = site.glixctl("init", "--host", "laptop", "--user", "alice")
    assert again.returncode == Exit.REFUSED
    assert site.git("rev-parse", "HEAD") == before
    added = site.glixctl("init", "--host", "pi", "--user", "bob", "--system", "aarch64-linux")
    assert added.returncode == Exit.DONE, added.stderr
    assert site.commits()[-1] == "glix init pi: host (aarch64-linux, bob)"
    assert site.git("diff", "--name-only", "HEAD~1", "HEAD").splitlines() == [
        "flake.nix",
        "hosts/pi/default.nix",
        "hosts/pi/glix.toml",
    ]
    assert site.glixctl("add", "--host", "pi", "git").returncode == Exit.DONE
    assert (site.evaluated("laptop")["system"], site.evaluated("pi")["system"]) == ([], ["git"])


def test_init_refuses_a_folder_that_holds_something_else_and_leaves_it_alone(bare_site: Site, sources: Sources) -> None:
    bare_site.write({"letters/one.txt": "Dear…"})
    words = ("--nixpkgs", sources.nixpkgs, "--core", sources.core, "--home-manager", "none", "--user", "alice")
    done = bare_site.glixctl("init", *words)
    assert done.returncode == Exit.REFUSED
    assert [path.name for path in bare_site.repository.rglob("*")] == ["letters", "one.txt"]
    assert [path.name for path in bare_site.repository.parent.iterdir()] == ["glixos"]


def test_without_a_repository_every_command_names_the_remedy(bare_site: Site) -> None:
    for words in (("add", "firefox"), ("list",), ("remove", "firefox"), ("history",), ("info",)):
        done = bare_site.glixctl(*words)
        assert done.returncode == Exit.NOT_FOUND, (words, done.stderr)
        assert "glixctl init" in done.stderr
    assert not bare_site.repository.exists()


def test_repository_elsewhere_has_a_daemon_of_its_own(site: Site, bare_site: Site, sources: Sources) -> None:
    other = os.fspath(site.home / "other")
    words = ("--nixpkgs", sources.nixpkgs, "--core", sources.core, "--home-manager", "none", "--user", "alice")
    assert site.glixctl("init", "--dir", other, *words, "--json").returncode == Exit.DONE
    pids = {site.glixctl("ping").returncode, site.daemon_pid()}
    assert len(pids) == 2
    info = json.loads(site.glixctl("info", "--dir", other, "--json").stdout)
    assert info["repository"] == other
    assert json.loads(site.glixctl("info", "--json").stdout)["repository"] == os.fspath(site.repository)
    assert len(list((site.runtime / "glixd").glob("*.sock"))) == 2


def test_hand_edit_of_the_manifest_is_adopted_by_the_next_change_and_named(site: Site) -> None:
    edited = site.read(MANIFEST) + '\n[packages.ripgrep]\nflake = "nixpkgs#ripgrep" # by hand\n'
    site.write({MANIFEST: edited})
    assert site.glixctl("add", "hello").returncode == Exit.DONE
    assert f"Glix-Adopted: {MANIFEST}" in site.git("log", "-1", "--format=%b").splitlines()
    assert 'flake = "nixpkgs#ripgrep" # by hand' in site.committed(MANIFEST)
    assert site.evaluated()["system"] == ["hello", "ripgrep"]


def test_health_of_a_host_follows_its_commits(site: Site, daemon: RunningDaemon) -> None:
    added = daemon.done("Add", refs=["firefox"])
    assert daemon.health() == {"state": "ok", "commit": added["commit"]}
