# SPDX-License-Identifier: GPL-3.0-or-later
"""Registries of short names: fetched from a real server, kept when it fails, and resolved by a real daemon."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from glixd.backends import registry
from glixd.backends.registry import Listing, Registries, Source
from glixd.settings import RegistrySettings
from tests.support.daemon import RpcError, RunningDaemon, Site
from tests.support.registry_server import RegistryServer, document, serving

pytestmark = pytest.mark.integration

TOOL = {"tool": "github:owner/tool"}


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with serving() as running:
        running.body = document(TOOL)
        yield running


def registries(folder: Path, *urls: str, allow_files: bool = False, within: float = 20.0) -> Registries:
    configured = [RegistrySettings(url=url) for url in urls]
    return Registries(folder / "registries", configured, {}, age=1e6, allow_files=allow_files, arrive_within=within)


def refreshed(known: Registries) -> Listing:
    return known.refresh(known.sources(None)[0])


# -- what is fetched, and what is kept ---------------------------------------------------------------------------


def test_a_registry_is_fetched_once_and_then_asked_by_its_tag(tmp_path: Path, server: RegistryServer) -> None:
    server.etag = '"1"'
    known = registries(tmp_path, server.url)
    first = refreshed(known)
    second = refreshed(known)
    assert first.entries == second.entries == {"tool": ("github:owner/tool", "About tool")}
    assert [asked.get("if-none-match") for asked in server.asked] == [None, '"1"']
    assert first.fetched == second.fetched
    assert second.problem is None
    server.etag, server.body = '"2"', document({"other": "github:owner/other"})
    assert list(refreshed(known).entries) == ["other"]


def test_who_waited_while_a_registry_was_asked_takes_that_answer(tmp_path: Path, server: RegistryServer) -> None:
    server.body = document({"tool": "github:o/tool"})
    asked = registries(tmp_path, server.url)
    [source] = asked.sources(None)
    before = time.time()
    assert asked.refresh(source).entries.keys() == {"tool"}
    server.body = document({"other": "github:o/other"})
    assert asked.refresh(source, since=before).entries.keys() == {"tool"}
    assert len(server.asked) == 1
    assert asked.refresh(source).entries.keys() == {"other"}


def test_another_daemon_answers_from_the_cache_without_a_network(tmp_path: Path, server: RegistryServer) -> None:
    refreshed(registries(tmp_path, server.url))
    server.asked.clear()
    found = registries(tmp_path, server.url).find("tool", None)
    assert found is not None
    assert found.flake == "github:owner/tool"
    assert server.asked == []


def test_each_url_has_a_cache_of_its_own(tmp_path: Path, server: RegistryServer) -> None:
    refreshed(registries(tmp_path, server.url))
    assert registries(tmp_path, server.url + "?other").names(None) == []


def test_the_first_registry_that_knows_a_name_counts(tmp_path: Path, server: RegistryServer) -> None:
    with serving() as second:
        second.body = document({"tool": "github:evil/tool", "more": "github:owner/more"})
        known = registries(tmp_path, server.url, second.url)
        tool, more = known.find("tool", None), known.find("more", None)
    assert tool is not None
    assert more is not None
    assert (tool.flake, more.flake) == ("github:owner/tool", "github:owner/more")
    assert sorted(known.names(None)) == ["more", "tool"]


def test_the_registry_of_a_host_comes_last_and_is_never_trusted(tmp_path: Path, server: RegistryServer) -> None:
    configured = [RegistrySettings(url=server.url, trust="trusted")]
    known = Registries(tmp_path, configured, {}, age=1, allow_files=False)
    assert known.sources("https://host.example/x") == (
        Source(server.url, trusted=True, origin="settings"),
        Source("https://host.example/x", trusted=False, origin="host"),
    )
    assert known.sources(server.url) == (Source(server.url, trusted=True, origin="settings"),)


POISON: dict[str, bytes] = {
    "no JSON": b"<html>come back later</html>",
    "an array": b"[]",
    "another schema": document(TOOL).replace(b'"schema": 1', b'"schema": 2'),
    "a schema that is no number": document(TOOL).replace(b'"schema": 1', b'"schema": true'),
    "no packages": b'{"schema": 1}',
    "a name twice": b'{"schema": 1, "packages": {"a": {"flake": "github:a/b"}, "a": {"flake": "github:c/d"}}}',
    "nesting": b"[" * 200_000,
    "no text": b'\xff\xfe{"schema": 1}',
    "nothing": b"",
    "too much": b" " * (registry.MAX_BYTES + 1),
}


@pytest.mark.parametrize("poison", POISON)
def test_a_poisoned_registry_keeps_the_last_good_one_and_says_so(
    tmp_path: Path, server: RegistryServer, poison: str
) -> None:
    known = registries(tmp_path, server.url)
    good = refreshed(known)
    server.body = POISON[poison]
    after = refreshed(known)
    assert after.entries == good.entries
    assert after.fetched == good.fetched
    assert after.problem
    assert after.problem.isprintable()
    assert registries(tmp_path, server.url).names(None) == ["tool"]
    server.body = document({"new": "github:owner/new"})
    assert (list(refreshed(known).entries), refreshed(known).problem) == (["new"], None)


@pytest.mark.parametrize("status", [204, 301, 403, 404, 500, 503])
def test_a_server_that_fails_keeps_the_last_good_one(tmp_path: Path, server: RegistryServer, status: int) -> None:
    known = registries(tmp_path, server.url)
    refreshed(known)
    server.status, server.body = status, b""
    after = refreshed(known)
    assert list(after.entries) == ["tool"]
    assert after.problem


def test_a_server_that_never_ends_its_answer_is_left(tmp_path: Path, server: RegistryServer) -> None:
    known = registries(tmp_path, server.url, within=0.3)
    server.drips = True
    assert refreshed(known).problem == "it does not answer in time"


def test_a_server_that_is_gone_is_not_asked_again_at_once(tmp_path: Path) -> None:
    with serving() as gone:
        url = gone.url
    known = registries(tmp_path, url)
    assert known.find("tool", None) is None
    problem = known.listing(known.sources(None)[0]).problem
    assert problem
    assert "refused" in problem
    checked = known.listing(known.sources(None)[0]).checked
    known.refresh_stale(None)
    assert known.find("tool", None) is None
    assert known.listing(known.sources(None)[0]).checked == checked


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:text/plain,x"])
def test_a_redirection_leads_to_no_other_kind_of_place(tmp_path: Path, server: RegistryServer, target: str) -> None:
    server.status, server.headers = 302, {"Location": target}
    problem = refreshed(registries(tmp_path, server.url)).problem
    assert problem
    assert "not followed" in problem


def test_a_redirection_to_another_server_is_followed(tmp_path: Path, server: RegistryServer) -> None:
    with serving() as front:
        front.status, front.headers = 302, {"Location": server.url}
        assert list(refreshed(registries(tmp_path, front.url)).entries) == ["tool"]


def test_a_file_is_a_registry_only_where_the_settings_say_so(tmp_path: Path) -> None:
    (tmp_path / "my registry.json").write_bytes(document(TOOL))
    url = f"file://{tmp_path}/my%20registry.json"
    refused = refreshed(registries(tmp_path / "a", url)).problem
    assert refused
    assert "file_registries" in refused
    assert list(refreshed(registries(tmp_path / "b", url, allow_files=True)).entries) == ["tool"]


def test_a_damaged_cache_is_as_good_as_none(tmp_path: Path, server: RegistryServer) -> None:
    refreshed(registries(tmp_path, server.url))
    for path in (tmp_path / "registries").glob("*.json"):
        path.write_bytes(document({"evil": "github:evil/x"}))
    assert registries(tmp_path, server.url).names(None) == []
    assert list(refreshed(registries(tmp_path, server.url)).entries) == ["tool"]
    for path in (tmp_path / "registries").glob("*.card"):
        path.write_bytes(b"{")
    assert registries(tmp_path, server.url).names(None) == []


def test_keys_that_are_not_known_are_allowed_and_entries_that_make_no_sense_left_out() -> None:
    body = json.dumps(
        {
            "schema": 1,
            "serial": 4,
            "packages": {
                "good": {"flake": "github:a/b", "description": " two\n words ", "licence": "MIT"},
                "plain": {"flake": "github:a/b"},
                "../up": {"flake": "github:a/b"},
                "empty": {"flake": ""},
                "long": {"flake": "github:a/" + "b" * 600},
                "escape": {"flake": "github:a/b\x1b[31m"},
                "number": {"flake": 1},
                "text": "github:a/b",
            },
        }
    )
    assert registry.parse(body.encode()) == {"good": ("github:a/b", "two words"), "plain": ("github:a/b", "")}


# -- in the daemon -----------------------------------------------------------------------------------------------

Configure = Callable[..., None]


@pytest.fixture
def configure(site: Site) -> Configure:
    """Write the configuration of the user's daemon."""

    def write(*sources: tuple[str, str], more: str = "") -> None:
        tables = "".join(f'[[registries]]\nurl = "{url}"\ntrust = "{trust}"\n' for url, trust in sources)
        folder = site.home / ".config" / "glixd"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.toml").write_text(f"{more}\n{tables}")

    return write


def test_a_short_name_of_a_registry_resolves_and_is_trusted_as_configured(
    site: Site, configure: Configure, server: RegistryServer
) -> None:
    with serving() as second:
        second.body = document({"wild": "github:owner/wild", "firefox": "nixpkgs#firefox"})
        configure((server.url, "trusted"), (second.url, "untrusted"))
        with RunningDaemon(site) as daemon:
            found = daemon.call("Resolve", refs=["tool", "wild", "firefox"])["resolutions"]
    assert [(one["flake"], one["source"], one["trusted"]) for one in found] == [
        ("github:owner/tool", "registry", True),
        ("github:owner/wild", "registry", False),
        ("nixpkgs#firefox", "registry", True),
    ]


def test_a_name_that_a_registry_and_nixpkgs_know_differently_is_ambiguous(
    site: Site, configure: Configure, server: RegistryServer
) -> None:
    server.body = document({"firefox": "github:owner/firefox"})
    configure((server.url, "trusted"))
    with RunningDaemon(site) as daemon:
        transaction = daemon.run("Add", refs=["firefox"])
    assert transaction["error"]["name"] == "Ambiguous"
    assert transaction["error"]["details"]["candidates"] == ["github:owner/firefox", "nixpkgs#firefox"]


@pytest.mark.parametrize(
    "flake", ["path:/etc", "path:./pkgs/x", "git+file:///srv/x", "github:a/b/x/../y", "-x", "tool"]
)
def test_a_registry_speaks_of_no_folder_of_the_machine_and_of_no_nonsense(
    site: Site, configure: Configure, server: RegistryServer, flake: str
) -> None:
    server.body = document({"tool": flake})
    configure((server.url, "trusted"))
    with RunningDaemon(site) as daemon:
        transaction = daemon.run("Add", refs=["tool"], allow_local=True)
    assert transaction["error"]["name"] == "UnknownPackage"


def test_registries_are_listed_refreshed_and_shown(site: Site, configure: Configure, server: RegistryServer) -> None:
    server.body = document({f"tool{number}": "github:owner/tool" for number in range(5)})
    configure((server.url, "trusted"))
    with RunningDaemon(site, extra={"GLIXD_INDEX": "false"}) as daemon:
        (before,) = daemon.call("ListRegistries")["registries"]
        assert (before["entries"], before.get("fetched"), before["trusted"]) == (0, None, True)
        (after,) = daemon.call("RefreshRegistries")["registries"]
        assert after["entries"] == 5
        assert after["fetched"] == after["checked"]
        page = daemon.call("ShowRegistry", url=server.url, limit=3)
        assert [entry["name"] for entry in page["entries"]] == ["tool0", "tool1", "tool2"]
        rest = daemon.call("ShowRegistry", url=server.url, limit=3, after=page["next"])
        assert [entry["name"] for entry in rest["entries"]] == ["tool3", "tool4"]
        assert "next" not in rest
        with pytest.raises(RpcError, match="no registry"):
            daemon.call("ShowRegistry", url="https://elsewhere.example/x")
        server.status = 500
        (failed,) = daemon.call("RefreshRegistries")["registries"]
        assert (failed["entries"], failed["fetched"]) == (5, after["fetched"])
        assert "500" in failed["problem"]
        shown = site.glixctl("registry", "list")
        assert server.url in shown.stdout
        assert "500" in shown.stderr
        assert site.glixctl("registry", "refresh").returncode == 1
        assert "tool4" in site.glixctl("registry", "show", server.url).stdout


def test_entries_of_registries_are_searched_and_suggested(
    site: Site, configure: Configure, server: RegistryServer
) -> None:
    server.body = document({"firetool": "github:owner/firetool"})
    configure((server.url, "untrusted"))
    with RunningDaemon(site, extra={"GLIXD_INDEX": "false"}) as daemon:
        daemon.call("RefreshRegistries")
        first, *rest = daemon.call("Search", query="fire")["matches"]
        assert (first["name"], first["source"], first["url"]) == ("firetool", "registry", server.url)
        assert [match["name"] for match in rest] == ["firefox"]
        unknown = daemon.run("Add", refs=["firetol"])["error"]
        assert unknown["details"]["closest"][0] == "firetool"


def test_the_manifest_of_a_host_may_name_a_registry(site: Site, server: RegistryServer) -> None:
    with RunningDaemon(site) as daemon:
        daemon.done("SetHost", changes={"registry_url": server.url})
        (own,) = daemon.call("RefreshRegistries")["registries"]
        assert (own["origin"], own["trusted"], own["entries"]) == ("host", False, 1)
        (found,) = daemon.call("Resolve", refs=["tool"])["resolutions"]
        assert (found["source"], found["trusted"]) == ("registry", False)
