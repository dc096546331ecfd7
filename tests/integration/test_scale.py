# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository of many machines, and a machine of many packages: everything still answers, and changes little."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from glixd.protocol import PAGE_SIZE, Exit
from tests.support.daemon import Answer, RunningDaemon, Site, Template, new_site
from tests.support.repositories import generated_host

pytestmark = [pytest.mark.integration, pytest.mark.nix]

HOSTS = 200
PACKAGES = 2_000
BIG = "host-7"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Iterator[RunningDaemon]:
    """A daemon on a repository with many hosts, one of which has many packages; a person committed them at once."""
    with new_site(tmp_path_factory.mktemp("scale") / "site", template.nix, template) as site:
        fill(site, HOSTS, PACKAGES)
        with RunningDaemon(site, extra={"GLIXD_INDEX": "false"}) as daemon:
            yield daemon


def fill(site: Site, hosts: int, packages: int) -> None:
    """Commit `hosts` hosts, with `packages` packages on one of them."""
    flake, files, lines = site.read("flake.nix"), {}, []
    entries = "".join(f'\n[packages.tool-{number}]\nflake = "nixpkgs#hello"\n' for number in range(packages))
    for number in range(hosts):
        host, system = f"host-{number}", ("aarch64-linux", "x86_64-linux")[number % 2]
        files.update(generated_host(host, system, packages=entries if host == BIG else ""))
        lines.append(f'      "{host}" = mkHost "{host}" "{system}";\n')
    (laptop,) = [line for line in flake.splitlines(keepends=True) if line.strip().startswith('"laptop"')]
    files["flake.nix"] = flake.replace(laptop, "".join(sorted([*lines, laptop])))
    site.commit(files)


def listed(daemon: RunningDaemon, **parameters: object) -> list[Answer]:
    """All pages of a list."""
    page = daemon.call("List", **parameters)
    found = list(page["packages"])
    while "next" in page:
        page = daemon.call("List", after=page["next"], **parameters)
        found += page["packages"]
    return found


def test_every_package_is_listed_page_by_page(large: RunningDaemon) -> None:
    assert len(large.call("List", host=BIG)["packages"]) == min(PAGE_SIZE, PACKAGES)
    assert {one["name"] for one in listed(large, host=BIG)} >= {f"tool-{number}" for number in range(PACKAGES)}
    assert len(listed(large, all_hosts=True)) >= PACKAGES
    assert [one["name"] for one in listed(large, all_hosts=True, text="tool-1999")] == ["tool-1999"]
    done = large.site.glixctl("list", "--host", BIG, "--json")
    assert done.returncode == Exit.DONE, done.stderr
    assert len(json.loads(done.stdout)["packages"]) >= PACKAGES


def test_one_package_and_the_whole_are_shown(large: RunningDaemon) -> None:
    shown = large.call("Show", name="tool-1999", host=BIG)
    assert (shown["flake"], shown["host"]) == ("nixpkgs#hello", BIG)
    info = large.call("Info")
    assert len(info["hosts"]) == HOSTS + 1
    assert len(large.call("ListHosts")["hosts"]) == HOSTS + 1
    done = large.site.glixctl("info")
    assert done.returncode == Exit.DONE, done.stderr
    assert f"{PACKAGES}/{PACKAGES}" in done.stdout


def test_change_of_the_large_manifest_is_small(large: RunningDaemon) -> None:
    site = large.site
    before = site.committed(f"hosts/{BIG}/glix.toml")
    dry = large.done("Add", refs=["git"], host=BIG, evaluate=False, dry_run=True)
    added = large.done("Add", refs=["git"], host=BIG, evaluate=False)
    assert added["outcome"]["diff"] == dry["outcome"]["diff"]
    assert site.git("diff", "--numstat", "HEAD~1", "HEAD").split() == ["4", "0", f"hosts/{BIG}/glix.toml"]
    large.done("Set", name="tool-1000", host=BIG, changes={"config.a": "b"}, evaluate=False)
    assert large.call("Show", name="tool-1000", host=BIG)["config"] == {"a": "b"}
    large.done("Disable", names=["tool-0", "tool-1999"], host=BIG, evaluate=False)
    large.done("Remove", names=["git"], host=BIG, evaluate=False)
    history = large.call("History", host=BIG)["entries"]
    assert [entry["subject"].split(" ")[1] for entry in history[:4]] == ["remove", "disable", "set", "add"]
    named = large.call("History", host=BIG, name="tool-1000")["entries"]
    assert [entry["subject"].split(" ")[1] for entry in named] == ["set", "hand"]
    large.done("Rollback", host=BIG, steps=4, evaluate=False)
    assert site.committed(f"hosts/{BIG}/glix.toml") == before
    assert site.git("status", "--porcelain") == ""


def test_host_comes_and_goes_among_many(large: RunningDaemon) -> None:
    site = large.site
    before = site.committed("flake.nix")
    large.done("Init", host="newcomer", user="bob", system="aarch64-linux", evaluate=False)
    assert site.git("diff", "--numstat", "HEAD~1", "HEAD", "--", "flake.nix").split()[:2] == ["1", "0"]
    large.done("RemoveHost", name="newcomer", evaluate=False)
    assert site.committed("flake.nix") == before


def test_hosts_of_both_systems_evaluate(large: RunningDaemon) -> None:
    large.done("Add", refs=["hello"], host="host-0", evaluate=False)
    large.done("Add", refs=["hello"], host="host-1", evaluate=False)
    assert [large.site.evaluated(host)["system"] for host in ("host-0", "host-1")] == [["hello"], ["hello"]]
