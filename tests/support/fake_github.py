# SPDX-License-Identifier: GPL-3.0-or-later
"""A GitHub on the loopback interface, for real `github:` references without network.

It is an HTTPS proxy that answers for github.com and its API from bare repositories, with tags, branches, commits and
archives, and refuses every other host. Clients find it through `environment()`.
"""

from __future__ import annotations

import gzip
import json
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from tests.support.hermetic import commit_all, git, write_files

_HOSTS: Final = ("api.github.com", "github.com", "codeload.github.com")
_PROOF: Final = "authorization"
_PATIENCE: Final = 20.0  # seconds a client may take for a request
_LARGEST_REQUEST: Final = 64 * 1024


@dataclass(frozen=True)
class Request:
    """One request that was answered, or refused with status 0 for a host that is not GitHub."""

    host: str
    path: str
    status: int
    authorisation: str = ""
    """What came as proof of who asks."""


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes = b""
    kind: str = "application/json"

    def encode(self) -> bytes:
        head = (
            f"HTTP/1.1 {self.status} Answer\r\nContent-Type: {self.kind}\r\n"
            f"Content-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + self.body


_NOT_FOUND: Final = _Answer(404, b'{"message": "Not Found"}')


@dataclass
class FakeGitHub:
    """The repositories under `root`, and the server while the context is entered."""

    root: Path
    requests: list[Request] = field(default_factory=list)
    private: dict[str, str] = field(default_factory=dict)
    """Owners whose repositories are there for those alone who show this token."""
    _server: _Server | None = None
    _thread: threading.Thread | None = None

    # ---- repositories

    def add_repository(
        self, owner: str, name: str, files: Mapping[str, str], *, branch: str = "main", tag: str | None = None
    ) -> str:
        """Commit `files` as the whole content of a branch of `owner/name`, with a tag if wished; return the commit.

        The first branch of a repository is its default branch.
        """
        bare = self.repository(owner, name)
        if not bare.exists():
            bare.mkdir(parents=True)
            git(bare, "init", "--quiet", "--bare", f"--initial-branch={branch}")
        with TemporaryDirectory(dir=self.root) as scratch:
            work = Path(scratch)
            write_files(work, files)
            git(work, "init", "--quiet")
            if git(bare, "for-each-ref", f"refs/heads/{branch}"):
                git(work, "fetch", "--quiet", str(bare), branch)
                git(work, "reset", "--soft", "FETCH_HEAD")
            commit = commit_all(work, f"Content of {branch}")
            git(work, "push", "--quiet", str(bare), f"HEAD:refs/heads/{branch}")
        if tag:
            git(bare, "tag", tag, commit)
        return commit

    def repository(self, owner: str, name: str) -> Path:
        """Return where the bare repository `owner/name` is."""
        return self.root / "repositories" / owner.lower() / f"{name.lower()}.git"

    # ---- the server

    def start(self) -> None:
        """Serve until `stop`."""
        self.root.mkdir(parents=True, exist_ok=True)
        _make_certificates(self.root)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.root / "server.pem", self.root / "server.key")
        self._server = _Server(self, context)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving, and wait until the port is closed."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def environment(self) -> dict[str, str]:
        """Return the variables that lead nix, git and Python to this server."""
        if self._server is None:
            raise RuntimeError("the fake GitHub is not running")
        proxy = f"http://127.0.0.1:{self._server.server_address[1]}"
        authority = str(self.root / "authority.pem")
        return {
            "https_proxy": proxy,
            "HTTPS_PROXY": proxy,
            "NIX_SSL_CERT_FILE": authority,
            "SSL_CERT_FILE": authority,
            "GIT_SSL_CAINFO": authority,
        }

    # ---- what GitHub answers

    def answer(self, host: str, path: str, authorisation: str = "") -> _Answer:
        """Answer one GET request."""
        parts = urlsplit(path).path.strip("/").split("/")
        token = self.private.get(parts[1] if parts[0] == "repos" and len(parts) > 1 else parts[0], "")
        if token and not authorisation.endswith(f" {token}"):
            return _NOT_FOUND  # as the real one says of what somebody must not know of
        match host, [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]:
            case "api.github.com", ["repos", owner, name, "commits", *reference]:
                return self._commit(self.repository(owner, name), "/".join(reference) or "HEAD")
            case "api.github.com", ["repos", owner, name, "tarball", *reference]:
                return self._archive(self.repository(owner, name), name, "/".join(reference))
            case (("github.com" | "codeload.github.com"), [owner, name, "archive" | "tar.gz", *reference]):
                bare = self.repository(owner, name.removesuffix(".git"))
                return self._archive(bare, name, "/".join(reference).removesuffix(".tar.gz"))
            case _:
                return _NOT_FOUND

    def _commit(self, bare: Path, reference: str) -> _Answer:
        commit = _resolve(bare, reference)
        if commit is None:
            return _NOT_FOUND if not bare.is_dir() else _Answer(422, b'{"message": "No commit found for SHA"}')
        date = git(bare, "log", "-1", "--format=%cI", commit)
        tree = git(bare, "rev-parse", f"{commit}^{{tree}}")
        document = {"sha": commit, "commit": {"tree": {"sha": tree}, "committer": {"date": date}}}
        return _Answer(200, json.dumps(document).encode())

    def _archive(self, bare: Path, name: str, reference: str) -> _Answer:
        commit = _resolve(bare, reference)
        if commit is None:
            return _NOT_FOUND
        archive = subprocess.run(
            ["git", f"--git-dir={bare}", "archive", "--format=tar", f"--prefix={name}-{commit}/", commit],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        ).stdout
        return _Answer(200, gzip.compress(archive, 1, mtime=0), "application/x-gzip")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, github: FakeGitHub, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.github = github
        self.context = context


class _Connection(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        self.request.settimeout(_PATIENCE)
        try:
            self._tunnel()
        except (OSError, ValueError):
            return  # the client went away, or spoke no HTTP

    def _tunnel(self) -> None:
        method, target, _ = _read_request(self.request)
        host = target.partition(":")[0]
        if method != "CONNECT" or host not in _HOSTS:
            self.server.github.requests.append(Request(host, "", 0))
            self.request.sendall(_Answer(403).encode())
            return
        self.request.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        with self.server.context.wrap_socket(self.request, server_side=True) as stream:
            method, path, authorisation = _read_request(stream)
            answer = self.server.github.answer(host, path, authorisation)
            self.server.github.requests.append(Request(host, path, answer.status, authorisation))
            encoded = answer.encode()
            stream.sendall(encoded.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == "HEAD" else encoded)


def _read_request(stream: ssl.SSLSocket) -> tuple[str, str, str]:
    """Read up to the end of the headers; return the method, the target and the proof of who asks."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = stream.recv(4096)
        if not more or len(received) > _LARGEST_REQUEST:
            raise ValueError("not an HTTP request")
        received += more
    first, *headers = received.decode("ascii").split("\r\n")
    method, target, _ = first.split(" ")
    proofs = [value.strip() for name, _, value in (line.partition(":") for line in headers) if name.lower() == _PROOF]
    return method, target, "".join(proofs)


def _resolve(bare: Path, reference: str) -> str | None:
    """Return the commit that a branch, tag or hash names, if there is one."""
    if not bare.is_dir() or reference.startswith("-"):
        return None
    try:
        return git(bare, "rev-parse", "--quiet", "--verify", f"{reference}^{{commit}}")
    except subprocess.CalledProcessError:
        return None


def _make_certificates(folder: Path) -> None:
    """Write an authority and a certificate of its for the hosts, unless they are there."""
    if (folder / "server.pem").exists():
        return

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=True)

    key = ("-newkey", "rsa:2048", "-nodes")
    openssl(
        "req", "-x509", *key, "-keyout", "authority.key", "-out", "authority.pem", "-days", "2", "-subj", "/CN=test"
    )
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=github.com")
    (folder / "extensions").write_text("subjectAltName=" + ",".join(f"DNS:{host}" for host in _HOSTS))
    openssl(
        *("x509", "-req", "-in", "server.csr", "-CA", "authority.pem", "-CAkey", "authority.key"),
        *("-CAcreateserial", "-out", "server.pem", "-days", "2", "-extfile", "extensions"),
    )
