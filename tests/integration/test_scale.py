# SPDX-License-Identifier: GPL-3.0-or-later
"""A thousand machines, and a manifest of ten thousand packages: everything still answers, and does what it does for few."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any, Final

import pytest

from glixd.protocol import PAGE_SIZE
from tests.support.daemon import RunningDaemon, Site, Template, new_site
from tests.support.hermetic import commit_all, write_files
from tests.support.repositories import EXAMPLES, generated_host

pytestmark = [pytest.mark.integration, pytest.mark.nix]

HOSTS: Final = 1000
PACKAGES: Final = 10_000
MANIFEST: Final = "hosts/laptop/glix.toml"
SOME: Final = tuple(f"package-{number:05}" for number in range(5000, 5040))
TOOL: Final = (EXAMPLES / "pkg-hello" / "flake.nix").read_text()
HELLO: Final = '\n[packages.hello]\nflake = "nixpkgs#hello"\n'


@pytest.fixture(scope="module")
def many_hosts(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Iterator[RunningDaemon]:
    """A daemon on a repository of a thousand machines of two architectures, made by hand in one commit."""
    files: dict[str, str] = {}
    for number in range(1, HOSTS):
        system = "aarch64-linux" if number % 2 else "x86_64-linux"
        files |= generated_host(f"host-{number:03}", system, packages=HELLO)
    yield from _daemon(tmp_path_factory, template, files)


@pytest.fixture(scope="module")
def many_packages(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Iterator[RunningDaemon]:
    """A daemon on a repository with ten thousand packages on one machine, most of them disabled."""
    tables = (
        f'\n[packages.package-{number:05}] # number {number}\nflake = "nixpkgs#hello"\nenabled = {str(number < 2).lower()}\n'
        for number in range(PACKAGES)
    )
    text = (template.folder / MANIFEST).read_text()
    yield from _daemon(tmp_path_factory, template, {MANIFEST: text + "".join(tables)})


def _daemon(factory: pytest.TempPathFactory, template: Template, files: dict[str, str]) -> Iterator[RunningDaemon]:
    with new_site(factory.mktemp("scale") / "site", template.nix, template) as site:
        write_files(site.repository, files)
        commit_all(site.repository, "Many")
        with RunningDaemon(site, extra={"GLIXD_INDEX": "false"}) as daemon:
            daemon.run("Regenerate", evaluate=False)
            yield daemon


def packages(site: Site, host: str = "laptop") -> dict[str, Any]:
    """The packages of a host as they are committed."""
    found: dict[str, Any] = tomllib.loads(site.committed(f"hosts/{host}/glix.toml")).get("packages", {})
    return found


def paged(daemon: RunningDaemon, **parameters: Any) -> list[dict[str, Any]]:
    """All packages, page after page."""
    found: list[dict[str, Any]] = []
    while True:
        page = daemon.call("List", **parameters)
        found += page["packages"]
        if not page.get("next"):
            return found
        parameters["after"] = page["next"]


def unchanged(daemon: RunningDaemon, operation: str, **parameters: Any) -> None:
    """Run a mutation dry, with a difference to tell and no byte of it written."""
    site = daemon.site
    head = site.git("rev-parse", "HEAD")
    dry = daemon.done(operation, **parameters, dry_run=True)
    assert dry["outcome"]["diff"]
    assert (site.git("rev-parse", "HEAD"), site.git("status", "--porcelain")) == (head, "")


def test_thousand_hosts_are_listed_shown_and_told_of(many_hosts: RunningDaemon) -> None:
    info = many_hosts.call("Info")
    assert len(info["hosts"]) == HOSTS
    assert len(many_hosts.call("ListHosts")["hosts"]) == HOSTS
    assert len(paged(many_hosts, all_hosts=True)) == HOSTS - 1
    assert many_hosts.call("Show", name="hello", host="host-999")["flake"] == "nixpkgs#hello"
    assert len(many_hosts.call("History")["entries"]) == 3
    assert many_hosts.site.committed("flake.nix").count(" = mkHost ") == HOSTS
    assert many_hosts.site.glixctl("info").stdout.count("packages=") == HOSTS


def test_one_of_a_thousand_hosts_changes_and_the_others_stay(many_hosts: RunningDaemon) -> None:
    site = many_hosts.site
    unchanged(many_hosts, "Add", refs=["git"], host="host-500", evaluate=False)
    many_hosts.done("Add", refs=["git"], host="host-500", evaluate=False)
    assert site.git("diff", "--name-only", "HEAD~1") == "hosts/host-500/glix.toml"
    many_hosts.done("Set", name="git", changes={"scope": "home", "config.a": "b"}, host="host-500", evaluate=False)
    assert set(packages(site, "host-500")) == {"hello", "git"}
    many_hosts.done("Remove", names=["git"], host="host-500", evaluate=False)
    many_hosts.done("Rollback", steps=3, evaluate=False)
    assert set(packages(site, "host-500")) == {"hello"}
    for host in ("host-001", "host-002"):
        assert site.evaluated(host)["system"] == ["hello"]


def test_new_input_of_one_of_a_thousand_hosts_is_evaluated_for_it_alone(many_hosts: RunningDaemon) -> None:
    site = many_hosts.site
    site.commit({"pkgs/tool/flake.nix": TOOL})
    added = many_hosts.done("Add", refs=["path:./pkgs/tool"], host="host-600")
    assert "flake.nix" in site.git("diff", "--name-only", "HEAD~1").split()
    assert many_hosts.health("host-600") == {"state": "ok", "commit": added["commit"]}
    assert {host["health"]["state"] for host in many_hosts.call("ListHosts")["hosts"]} == {"ok", "unknown"}
    many_hosts.done("Rollback", evaluate=False)


def test_hosts_come_and_go_among_a_thousand(many_hosts: RunningDaemon) -> None:
    site = many_hosts.site
    before = site.git("rev-parse", "HEAD^{tree}")
    many_hosts.done("RenameHost", name="host-700", to="attic", evaluate=False)
    many_hosts.done("SetHost", host="attic", changes={"system": "aarch64-linux"}, evaluate=False)
    many_hosts.done("RemoveHost", name="host-701", evaluate=False)
    assert site.git("diff", "--numstat", "HEAD~1", "--", "flake.nix").split()[:2] == ["0", "1"]
    many_hosts.done("Init", host="new", user="bob", system="x86_64-linux", evaluate=False)
    assert len(many_hosts.call("ListHosts")["hosts"]) == HOSTS
    many_hosts.done("Rollback", steps=4, evaluate=False)
    assert site.git("rev-parse", "HEAD^{tree}") == before


def test_unknown_host_among_a_thousand_gets_the_closest(many_hosts: RunningDaemon) -> None:
    error = many_hosts.failed("Add", refs=["git"], host="host-0999")
    assert (error["name"], len(error["details"]["known"])) == ("UnknownHost", 100)
    assert "host-999" in error["hint"] or "host-099" in error["hint"]


def test_ten_thousand_packages_are_listed_shown_and_told_of(many_packages: RunningDaemon) -> None:
    assert len(paged(many_packages, include_disabled=True)) == PACKAGES
    assert len(many_packages.call("List")["packages"]) == 2
    assert len(many_packages.call("List", include_disabled=True)["packages"]) == PAGE_SIZE
    assert [one["name"] for one in paged(many_packages, include_disabled=True, text="package-0999")] == [
        f"package-0999{digit}" for digit in range(10)
    ]
    listed = many_packages.site.glixctl("list", "--all", "--json")
    assert len(json.loads(listed.stdout)["packages"]) == PACKAGES
    (host,) = many_packages.call("Info")["hosts"]
    assert (host["packages"], host["enabled"]) == (PACKAGES, 2)
    assert many_packages.call("Show", name="package-09999")["enabled"] is False
    assert many_packages.site.evaluated()["system"] == ["hello", "hello"]


def test_one_of_ten_thousand_packages_changes_and_no_other_line(many_packages: RunningDaemon) -> None:
    site = many_packages.site
    before = site.committed(MANIFEST)
    unchanged(many_packages, "Add", refs=["git"])
    added = many_packages.done("Add", refs=["git"])
    assert [line for line in added["outcome"]["diff"].splitlines() if line.startswith("+")][1:] == [
        "+",
        "+[packages.git]",
        '+flake = "nixpkgs#git"',
        '+scope = "system"',
    ]
    many_packages.done("Remove", names=["git"])
    assert site.committed(MANIFEST) == before
    many_packages.done("Set", name="package-05000", changes={"enabled": "true", "config.a": "b"})
    assert site.git("diff", "--numstat", "HEAD~1").split()[:2] == ["3", "1"]
    assert many_packages.failed("Remove", names=["package-5000"])["name"] == "NotInstalled"
    many_packages.done("Rollback")
    assert site.committed(MANIFEST) == before
    told = many_packages.call("History", name="package-05000", host="laptop")["entries"]
    assert [entry["subject"].split(" ")[1] for entry in told if entry["subject"].startswith("glix ")] == [
        "rollback",
        "set",
    ]


def test_many_of_ten_thousand_packages_change_at_once(many_packages: RunningDaemon) -> None:
    site = many_packages.site
    before = site.committed(MANIFEST)
    many_packages.done("Enable", names=SOME, evaluate=False)
    assert sum(table["enabled"] for table in packages(site).values()) == 2 + len(SOME)
    operations = [{"operation": "Set", "name": name, "changes": {"config.a": "b"}} for name in SOME]
    many_packages.done("Apply", operations=operations, evaluate=False)
    assert sum("config" in table for table in packages(site).values()) == len(SOME)
    many_packages.done("Remove", names=SOME, evaluate=False)
    assert len(packages(site)) == PACKAGES - len(SOME)
    many_packages.done("Rollback", steps=3, evaluate=False)
    assert site.committed(MANIFEST) == before
