# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts a change concerns: those are evaluated after it, and told of; among many it is few."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.daemon import RunningDaemon, Site
from tests.support.hermetic import commit_all, make_git_flake, write_files
from tests.support.repositories import EXAMPLES, generated_host

pytestmark = [pytest.mark.integration, pytest.mark.nix]

OTHERS = ("desk", "pi", "tower")
TOOL = (EXAMPLES / "pkg-hello" / "flake.nix").read_text()


@pytest.fixture
def office(site: Site) -> Iterator[RunningDaemon]:
    """A daemon on a repository of four hosts."""
    files = {"pkgs/tool/flake.nix": TOOL, "pkgs/other/flake.nix": TOOL}
    for host in OTHERS:
        files |= generated_host(host, "x86_64-linux")
    write_files(site.repository, files)
    commit_all(site.repository, "Four hosts")
    with RunningDaemon(site, extra={"GLIXD_INDEX": "false"}) as daemon:
        daemon.done("Regenerate")
        for host in OTHERS:
            assert daemon.health(host)["state"] == "ok"
        yield daemon


def evaluated(daemon: RunningDaemon, operation: str, **parameters: object) -> set[str]:
    """The hosts that are evaluated after a change."""
    commit = daemon.done(operation, **parameters)["commit"]
    hosts = [host["name"] for host in daemon.call("ListHosts")["hosts"]]
    return {host for host in hosts if daemon.health(host).get("commit") == commit}


def test_an_input_concerns_whoever_takes_a_package_from_it(office: RunningDaemon) -> None:
    assert evaluated(office, "Add", refs=["path:./pkgs/tool"]) == {"laptop"}
    assert office.site.git("diff", "--name-only", "HEAD~1").split() == [
        "flake.lock",
        "flake.nix",
        "hosts/laptop/glix.toml",
    ]
    assert evaluated(office, "Add", refs=["path:./pkgs/tool"], host="pi") == {"pi"}
    office.site.commit({"pkgs/tool/flake.nix": TOOL + "# newer\n"})
    assert evaluated(office, "Update", inputs=["tool"]) == {"laptop", "pi"}
    assert evaluated(office, "Add", refs=["path:./pkgs/other"], host="desk") == {"desk"}
    assert evaluated(office, "Remove", names=["tool"], host="pi") == {"pi"}
    assert evaluated(office, "Rollback", steps=1) == {"pi"}


def test_an_input_concerns_whoever_names_it_in_a_file_of_its_own(office: RunningDaemon) -> None:
    site = office.site
    site.commit({"hosts/tower/more.nix": "{ inputs, ... }: { warnings = [ inputs.other.outPath ]; }\n"})
    assert evaluated(office, "Add", refs=["path:./pkgs/other"]) == {"laptop", "tower"}
    site.commit({"shared/more.nix": '{ inputs, ... }: { warnings = [ inputs."other".outPath ]; }\n'})
    assert evaluated(office, "Remove", names=["other"]) == {"laptop", *OTHERS}


def test_what_everybody_stands_on_concerns_everybody(office: RunningDaemon) -> None:
    site = office.site
    source = site.root / "core"
    site.write({"flake.nix": site.read("flake.nix").replace("description = ", "description = /* by hand */ ")})
    assert evaluated(office, "Adopt") == {"laptop", *OTHERS}
    url = make_git_flake(source, {"flake.nix": "{ outputs = _: { }; }\n"})
    site.write(
        {"flake.nix": site.read("flake.nix").replace("  inputs = {", f'  inputs = {{\n    mine.url = "{url}";', 1)}
    )
    assert evaluated(office, "Adopt") == {"laptop", *OTHERS}


def test_a_host_that_comes_goes_or_changes_its_name_concerns_itself(office: RunningDaemon) -> None:
    assert evaluated(office, "Init", host="new", user="bob", system="x86_64-linux") == {"new"}
    assert evaluated(office, "RenameHost", name="new", to="newer") == {"newer"}
    assert evaluated(office, "SetHost", host="newer", changes={"system": "aarch64-linux"}) == {"newer"}
    assert evaluated(office, "RemoveHost", name="newer") == set()
    office.site.commit({"hosts/pi/more.nix": "{ imports = [ ../desk/default.nix ]; }\n"})
    assert evaluated(office, "RemoveHost", name="desk") == {"pi"}


def test_files_beside_a_manifest_concern_their_host_and_whoever_imports_them(office: RunningDaemon) -> None:
    site = office.site
    site.commit({"hosts/pi/extra.nix": "{ }\n", "shared/x.nix": "{ }\n"})
    site.write({"hosts/pi/extra.nix": "{ warnings = [ ]; }\n"})
    assert evaluated(office, "Adopt", everything=True) == {"pi"}
    site.commit({"hosts/desk/more.nix": "{ imports = [ ../pi/extra.nix ]; }\n"})
    site.write({"hosts/pi/extra.nix": "{ }\n"})
    assert evaluated(office, "Adopt", everything=True) == {"pi", "desk"}
    site.write({"shared/x.nix": "{ warnings = [ ]; }\n"})
    assert evaluated(office, "Adopt", everything=True) == {"laptop", *OTHERS}
