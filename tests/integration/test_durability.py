# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person has is never lost: by a lock that fails, a daemon that is killed, or an edit at the wrong moment."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

from tests.support.daemon import HOST, Answer, RpcClient, RunningDaemon, Site
from tests.support.hermetic import git

pytestmark = [pytest.mark.integration, pytest.mark.nix]

MANIFEST: Final = f"hosts/{HOST}/glix.toml"
FLAKE: Final = "{ outputs = _: { greeting = 1; }; }\n"
OURS: Final = "# >>> glix-managed inputs >>>"
MINE: Final = {"notes/untracked.txt": "mine\n", f"hosts/{HOST}/default.nix": "{ } # changed by hand\n"}
"""What a person has in the work tree, and has not committed."""


class TarballServer:
    """Serves one flake as a tarball: each request waits until it is told to go on, or ends when it is told to fail."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/slow.tar.gz"
        self.asked = threading.Event()
        self._go_on = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def release(self) -> None:
        """Answer what waits and whatever comes."""
        self._go_on.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(OSError):
                    connection.recv(65536)
                    self.asked.set()
                    self._go_on.wait()
                    body = _tarball()
                    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                    connection.sendall(head.encode() + body)


def _tarball() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        facts = tarfile.TarInfo("slow/flake.nix")
        facts.size = len(FLAKE)
        archive.addfile(facts, io.BytesIO(FLAKE.encode()))
    return made.getvalue()


@pytest.fixture
def server() -> Iterator[TarballServer]:
    """A source that nix waits for."""
    with TarballServer() as made:
        yield made


def _fingerprint(root: Path) -> dict[str, str]:
    """Every file of the work tree, the index and the refs that people see."""
    found = {"refs": git(root, "for-each-ref", "refs/heads", "refs/tags"), "head": git(root, "symbolic-ref", "HEAD")}
    found["index"] = git(root, "ls-files", "--stage")
    for path in sorted(root.rglob("*")):
        if path.is_file() and ".git" not in path.relative_to(root).parts:
            found[os.fspath(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _add_input(site: Site, url: str, name: str = "slow") -> str:
    """Write another input into flake.nix by hand, outside the regions; the text before."""
    text = site.read("flake.nix")
    site.write({"flake.nix": text.replace(f"    {OURS}", f'    {name} = {{ url = "{url}"; }};\n    {OURS}')})
    assert site.read("flake.nix") != text
    return text


def _scratch(site: Site) -> list[Path]:
    return [*(site.state / "scratch").glob("*"), *(site.repository / ".git" / "glix" / "tmp").glob("*")]


# -- locks that fail -------------------------------------------------------------------------------------------------


def test_failing_lock_leaves_no_trace(site: Site, daemon: RunningDaemon) -> None:
    site.write(MINE)
    before = _fingerprint(site.repository)
    with socket.create_server(("127.0.0.1", 0)) as refusing:
        port = refusing.getsockname()[1]
    error = daemon.failed("Add", refs=[f"http://127.0.0.1:{port}/none.tar.gz"])
    assert error["name"] == "LockFailed"
    assert _fingerprint(site.repository) == before
    assert _scratch(site) == []
    daemon.done("Add", refs=["firefox"])
    assert {path: site.read(path) for path in MINE} == MINE


def test_failing_lock_inside_a_transaction_keeps_the_edit_that_caused_it(site: Site, daemon: RunningDaemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as refusing:
        port = refusing.getsockname()[1]
    text = _add_input(site, f"http://127.0.0.1:{port}/none.tar.gz")
    before = _fingerprint(site.repository)
    assert daemon.failed("Add", refs=["firefox"])["name"] == "LockFailed"
    assert _fingerprint(site.repository) == before
    assert _scratch(site) == []
    site.write({"flake.nix": text})
    daemon.done("Add", refs=["firefox"])


# -- daemons that are killed -----------------------------------------------------------------------------------------


def test_daemon_killed_while_it_prepares_a_lock_changed_nothing(site: Site, server: TarballServer) -> None:
    site.write(MINE)
    before = _fingerprint(site.repository)
    with RunningDaemon(site) as daemon:
        transaction = daemon.call("Add", refs=[server.url])["transaction"]
        assert server.asked.wait(60)
        daemon.kill()
        assert _fingerprint(site.repository) == before
        daemon.start()
        _is_interrupted(daemon, transaction)
        assert _scratch(site) == []
        daemon.done("Add", refs=["firefox"])
        assert {path: site.read(path) for path in MINE} == MINE


def test_daemon_killed_while_it_locks_in_a_transaction_keeps_the_edits(site: Site, server: TarballServer) -> None:
    site.write(MINE)
    text = _add_input(site, server.url)
    before = _fingerprint(site.repository)
    with RunningDaemon(site) as daemon:
        transaction = daemon.call("Add", refs=["firefox"])["transaction"]
        assert server.asked.wait(60)
        daemon.kill()
        daemon.start()
        assert _fingerprint(site.repository) == before
        _is_interrupted(daemon, transaction)
        assert _scratch(site) == []
        site.write({"flake.nix": text})
        daemon.done("Add", refs=["firefox"])
        assert {path: site.read(path) for path in MINE} == MINE


class Stopping:
    """A git in front of the real one that stops for good just before, or just after, the branch moves."""

    def __init__(self, folder: Path, moment: str) -> None:
        folder.mkdir()
        self._told = folder / "told"
        never = folder / "never"
        os.mkfifo(self._told)
        os.mkfifo(never)
        stop = f'{{ echo >"{self._told}"; read -r _ <"{never}"; }}'
        real = 'printf "%s\\n" "$input" | git "$@"'
        (folder / "git").write_text(
            "#!/bin/sh\n"
            f"PATH={os.environ['PATH']}\n"
            'case "$*" in *update-ref*) ;; *) exec git "$@" ;; esac\n'
            "input=$(cat)\n"
            'case "$input" in\n'
            f"*refs/heads/main*) {stop if moment == 'before' else f'{real}; {stop}'} ;;\n"
            f"*) {real} ;;\n"
            "esac\n"
        )
        (folder / "git").chmod(0o755)
        self.path = f"{folder}:{os.environ['PATH']}"

    def wait(self) -> None:
        """Wait until it has stopped."""
        self._told.read_text()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_daemon_killed_around_the_commit_point_has_changed_nothing_or_all(
    site: Site, tmp_path: Path, moment: str
) -> None:
    site.write(MINE)
    stopping = Stopping(tmp_path / "programs", moment)
    before = _fingerprint(site.repository)
    commits = site.commits()
    killed = RunningDaemon(site, extra={"PATH": stopping.path})
    with killed:
        transaction = killed.call("Add", refs=["firefox"])["transaction"]
        stopping.wait()
        killed.kill()
    with RunningDaemon(site) as daemon:
        if moment == "before":
            _is_interrupted(daemon, transaction)
            assert _fingerprint(site.repository) == before
        else:
            record = daemon.call("GetTransaction", transaction=transaction)
            assert record["state"] == "succeeded"
            assert record["commit"] == site.git("rev-parse", "HEAD")
            assert site.commits() == [*commits, "glix add laptop: firefox (nixpkgs#firefox, system, via nixpkgs)"]
            assert site.read(MANIFEST) == site.committed(MANIFEST)
        assert [path.name for path in (site.repository / ".git").rglob("*.lock")] == ["daemon.lock"]
        daemon.done("Add", refs=["hello"])
        assert {path: site.read(path) for path in MINE} == MINE
        site.git("fsck", "--strict")


def _is_interrupted(daemon: RunningDaemon, transaction: str) -> None:
    record = daemon.call("GetTransaction", transaction=transaction)
    assert record["state"] == "failed"
    assert record["error"]["name"] == "Interrupted"
    assert "commit" not in record


# -- edits by hand ---------------------------------------------------------------------------------------------------


def test_valid_edit_of_a_manifest_is_adopted_by_the_next_change(site: Site, daemon: RunningDaemon) -> None:
    edited = "# mine\n" + site.read(MANIFEST)
    site.write({MANIFEST: edited})
    done = daemon.done("Add", refs=["firefox"])
    assert any(MANIFEST in warning for warning in done["warnings"])
    assert site.committed(MANIFEST).startswith(edited)
    assert site.read(MANIFEST) == site.committed(MANIFEST)
    assert f"Glix-Adopted: {MANIFEST}" in site.git("log", "-1", "--format=%(trailers)")
    assert site.git("status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("text", "line"),
    [("schema = 1\n[packages.x\n", 2), ('schema = 1\n[packages.x]\nflake = "a" "b"\n', 3)],
)
def test_invalid_edit_of_a_manifest_is_refused_with_path_and_line(
    site: Site, daemon: RunningDaemon, text: str, line: int
) -> None:
    site.write({MANIFEST: text})
    before = _fingerprint(site.repository)
    error = daemon.failed("Add", refs=["firefox"])
    assert error["name"] == "ManifestInvalid"
    assert error["details"]["path"] == MANIFEST
    assert MANIFEST in error["message"]
    assert str(line) in f"{error['message']} {error['details']}"
    assert _fingerprint(site.repository) == before


def test_edit_of_a_managed_region_is_refused(site: Site, daemon: RunningDaemon) -> None:
    text = site.read("flake.nix")
    site.write({"flake.nix": text.replace(f"{OURS}\n", f'{OURS}\n    x = {{ url = "github:a/b"; }};\n')})
    before = _fingerprint(site.repository)
    error = daemon.failed("Add", refs=["firefox"])
    assert error["name"] == "ManagedFileEdited"
    assert error["details"]["path"] == "flake.nix"
    assert _fingerprint(site.repository) == before


def test_edit_outside_the_regions_is_adopted_and_locked(
    site: Site, daemon: RunningDaemon, server: TarballServer
) -> None:
    server.release()
    _add_input(site, server.url)
    daemon.done("Add", refs=["firefox"])
    assert "slow" in site.lock_nodes()
    assert site.read("flake.nix") == site.committed("flake.nix")
    assert site.read("flake.lock") == site.committed("flake.lock")
    assert "Glix-Adopted: flake.nix" in site.git("log", "-1", "--format=%(trailers)")


def test_edit_of_the_lock_is_adopted(site: Site, daemon: RunningDaemon, server: TarballServer) -> None:
    server.release()
    before = site.lock_nodes()
    _add_input(site, server.url)
    site.nix.lock(site.repository)
    daemon.done("Add", refs=["firefox"])
    assert site.lock_nodes().keys() - before.keys() == {"slow"}
    trailers = site.git("log", "-1", "--format=%(trailers)")
    assert "Glix-Adopted: flake.lock" in trailers
    assert "Glix-Adopted: flake.nix" in trailers
    assert site.git("status", "--porcelain") == ""


@pytest.mark.parametrize("path", ["flake.nix", "flake.lock", MANIFEST])
def test_managed_file_that_is_gone_is_refused(site: Site, daemon: RunningDaemon, path: str) -> None:
    (site.repository / path).unlink()
    error = daemon.failed("Add", refs=["firefox"])
    assert error["name"] == "ManagedFileEdited"
    assert error["details"]["path"] == path
    assert not (site.repository / path).exists()
    assert site.git("status", "--porcelain") == f"D {path}"


def _edited_during_the_lock(site: Site, daemon: RunningDaemon, server: TarballServer, text: str) -> Answer:
    """The transaction during whose lock a person wrote `text` into the manifest."""
    _add_input(site, server.url)
    with RpcClient(daemon.socket) as client:
        transaction = client.call("Add", refs=["firefox"])["transaction"]
        assert server.asked.wait(60)
        site.write({MANIFEST: text})
        server.release()
        return client.wait(transaction)


def test_edit_during_the_lock_is_merged_into_what_is_published(
    site: Site, daemon: RunningDaemon, server: TarballServer
) -> None:
    text = site.read(MANIFEST)
    ended = _edited_during_the_lock(site, daemon, server, f"# mine\n{text}")
    assert ended["state"] == "succeeded"
    assert "# mine" not in site.committed(MANIFEST)
    assert site.read(MANIFEST) == "# mine\n" + site.committed(MANIFEST)
    daemon.done("Add", refs=["hello"])
    assert site.committed(MANIFEST) == site.read(MANIFEST)
    assert site.read(MANIFEST).startswith("# mine\n")


def test_edit_during_the_lock_that_conflicts_stays_in_the_work_tree(
    site: Site, daemon: RunningDaemon, server: TarballServer
) -> None:
    edited = site.read(MANIFEST) + '\n[packages.hello]\nflake = "nixpkgs#hello"\n'
    ended = _edited_during_the_lock(site, daemon, server, edited)
    assert ended["state"] == "succeeded"
    assert any("conflicts" in warning for warning in ended["warnings"])
    assert site.read(MANIFEST) == edited
    assert "[packages.firefox]" in site.committed(MANIFEST)
    error = daemon.failed("Add", refs=["ripgrep"])
    assert error["name"] == "ManagedFileEdited"
    resolved = site.committed(MANIFEST) + '\n[packages.hello]\nflake = "nixpkgs#hello"\n'
    site.write({MANIFEST: resolved})
    daemon.done("Add", refs=["ripgrep"])
    assert site.committed(MANIFEST).startswith(resolved)
