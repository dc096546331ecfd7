# SPDX-License-Identifier: GPL-3.0-or-later
"""Two canaries, one in a file of root's and one in a credential: hostile sources look for both, and no answer, signal, error,
log, state or store path has either. A third one is put into each of these, and is found there."""

from __future__ import annotations

import base64
import bz2
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, Final

import pytest

from tests.booted.inside.clones import clone, commit, push
from tests.booted.inside.conftest import HOST
from tests.booted.inside.machine import answer, as_user, drop_in, eventually, glixctl, run

OF_ROOT, OF_CREDENTIAL = "canary-of-root-5d0e71", "canary-of-credential-93b2c8"
PROOF: Final = base64.b64encode(f"me:{OF_CREDENTIAL}".encode()).decode()
SECRETS: Final = (OF_ROOT, OF_CREDENTIAL, PROOF)
FOLDER: Final = Path("/etc/secrets")
PLANTED: Final = "canary-planted-7ae1"
"""A canary that is everywhere by design; the name of a host too, since that is what a signal tells."""
WITH_GIT: Final = ("/var/lib/glixd", "/var/lib/glixd-eval", "/var/lib/glixd-export")
"""Places with repositories, whose objects are compressed."""
BUILD_LOGS: Final = "/nix/var/log"
PLACES: Final = (
    *("/nix/store", BUILD_LOGS, *WITH_GIT, "/var/lib/glixd-activate"),
    *("/etc/glixos", "/run/glixd", "/run/glixd-activate"),
)
MESSAGES: Final = ("method_call", "method_return", "error", "signal")

EVALUATES: Final = """{ outputs = _: { packages.x86_64-linux.default =
  derivation { name = builtins.readFile @path@; system = "x86_64-linux"; builder = "/bin/sh"; }; }; }"""
BUILDS: Final = """{ outputs = _: { packages.x86_64-linux.default = derivation {
  name = "thief"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
  args = [ "-c" "mkdir -p $out/bin; cat /etc/secrets/* /run/credentials/*/* /proc/*/environ >$out/bin/thief 2>&1; true" ];
}; }; }"""

pytestmark = pytest.mark.usefixtures("repository")


class Forge(BaseHTTPRequestHandler):
    """Gives what is below /private to those who know the password, and the rest to everybody."""

    files: ClassVar[dict[str, bytes]] = {}
    proofs: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """One file, or why not."""
        proof = self.headers.get("Authorization", "")
        if proof:
            self.proofs.append(proof)
        allowed = not self.path.startswith("/private") or proof == f"Basic {PROOF}"
        body = self.files.get(self.path)
        self.send_response(401 if not allowed else 404 if body is None else 200)
        self.end_headers()
        if allowed and body is not None:
            self.wfile.write(body)

    def log_request(self, *_: Any) -> None:
        """Say nothing."""


def _archive(text: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        facts = tarfile.TarInfo("thing/flake.nix")
        facts.size = len(text)
        archive.addfile(facts, io.BytesIO(text.encode()))
    return made.getvalue()


@pytest.fixture
def forge(stranger: str) -> Iterator[str]:
    """The URL of a forge, for which the evaluator's unit has a password."""
    assert stranger
    FOLDER.mkdir(mode=0o755, exist_ok=True)
    (FOLDER / "canary").write_text(OF_ROOT)
    (FOLDER / "netrc").write_text(f"machine 127.0.0.1 login me password {OF_CREDENTIAL}\n")
    for path in FOLDER.iterdir():
        path.chmod(0o600)
    hello = Path("/srv/archives/hello.tar.gz").read_bytes()
    Forge.files = {
        "/private/tool.tar.gz": hello,
        "/builds.tar.gz": _archive(BUILDS),
        "/evaluates.tar.gz": _archive(EVALUATES.replace("@path@", f'"{FOLDER}/canary"')),
        "/finds.tar.gz": _archive(EVALUATES.replace("@path@", '(builtins.getEnv "CREDENTIALS_DIRECTORY" + "/netrc")')),
    }
    with (
        drop_in("glixd-eval@.service", f"[Service]\nLoadCredential=netrc:{FOLDER}/netrc\n", file="secret.conf"),
        ThreadingHTTPServer(("127.0.0.1", 0), Forge) as server,
    ):
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def _overheard(into: Path) -> Iterator[None]:
    """Every message to and from glixd on the bus: calls, answers, errors and signals."""
    with into.open("wb") as file:
        monitor = subprocess.Popen(
            ["stdbuf", "-oL", "busctl", "--json=short", "monitor", "org.glixos.Glix1"], stdout=file
        )
        try:
            eventually(lambda: _ping_heard(into), "the first message")
            yield
        finally:
            monitor.terminate()
            monitor.wait()


def _ping_heard(into: Path) -> bool:
    glixctl("--transport", "bus", "ping")
    return b"Ping" in into.read_bytes()


def _leaks(secrets: Sequence[str], told: Sequence[str], bus: Path) -> set[str]:
    """Where one of the secrets is: each channel by its name."""
    texts = {"answers": "\n".join(told), "journal": _journal(), **_heard(bus)}
    texts |= {f"{place}, unpacked": _unpacked(place) for place in (BUILD_LOGS, *WITH_GIT)}
    found = {channel for channel, text in texts.items() if any(secret in text for secret in secrets)}
    patterns = [word for secret in secrets for word in ("-e", secret)]
    return found | {place for place in PLACES if not run("grep", "-rqsF", *patterns, place, check=False).returncode}


def _journal() -> str:
    run("journalctl", "--sync")
    return run("journalctl", "--output=export", "--all", "--no-pager", errors="replace").stdout


def _heard(bus: Path) -> dict[str, str]:
    """What was heard on the bus, by the type of the message."""
    heard = dict.fromkeys(MESSAGES, "")
    for line in bus.read_text(errors="replace").splitlines():
        kind = json.loads(line)["type"]
        heard[kind] = heard.get(kind, "") + line
    assert all(heard.values()), "a type of message was never heard"
    return {f"bus {kind}": text for kind, text in heard.items()}


def _unpacked(place: str) -> str:
    """What the logs of builds and the objects of git below a place say, which are compressed."""
    found = [bz2.decompress(file.read_bytes()).decode(errors="replace") for file in Path(place).rglob("*.bz2")]
    for head in Path(place).rglob("HEAD"):
        if (head.parent / "objects").is_dir():
            every = ("cat-file", "--batch-all-objects", "--batch")
            found.append(run("git", f"--git-dir={head.parent}", *every, errors="replace").stdout)
    return "\n".join(found)


@contextmanager
def _planted() -> Iterator[None]:
    """A file with a canary in each place, and one that is compressed where such files are."""
    files = [Path(place) / "planted" for place in PLACES if place != "/nix/store"]
    repositories = [Path(place) / "planted.git" for place in WITH_GIT]
    script = f"echo can''ary{PLANTED.removeprefix('canary')}; echo done > $out"
    builds = (
        f'derivation {{ name = "says"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "{script}" ]; }}'
    )
    try:
        for file in files:
            file.write_text(PLANTED)
        run("nix-store", "--add", str(files[0]))
        run("nix-build", "--no-out-link", "--expr", builds)
        for folder in repositories:
            run("git", "init", "--quiet", "--bare", str(folder))
            run("git", f"--git-dir={folder}", "hash-object", "-w", "--stdin", input=PLANTED)
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)
        for folder in repositories:
            shutil.rmtree(folder, ignore_errors=True)


def test_no_canary_is_in_an_answer_a_signal_an_error_a_log_or_the_store(forge: str, tmp_path: Path) -> None:
    told: list[str] = []

    def tell(*words: str, ends: int | None = None, user: str = "root") -> None:
        done = glixctl(*words, user=user, check=False)
        assert ends is None or done.returncode == ends, done
        told.append(done.stdout + done.stderr)

    with _overheard(tmp_path / "bus"):
        for transport, hostile in (("socket", "evaluates"), ("bus", "finds")):
            by = ("--transport", transport, "--json")
            tell(*by, "add", "--yes", f"{forge}/private/tool.tar.gz", "--name", f"tool-{transport}", ends=0)
            for file in ("private/nosuch", hostile):
                tell(*by, "add", "--yes", f"{forge}/{file}.tar.gz", "--name", f"{transport}-{Path(file).name}")
                assert '"failed"' in told[-1] or "glixctl:" in told[-1], told[-1]
            tell(*by, "add", "--yes", f"{forge}/builds.tar.gz", "--name", f"thief-{transport}", ends=0)
        tell("--transport", "bus", "rebuild", "build", ends=0)
        tell("--transport", "bus", "show", "nosuch", ends=4)
        edited = clone("root", "secrets")
        file = f"hosts/{HOST}/default.nix"
        text = (edited / file).read_text().rpartition("}")
        for path in (f"{FOLDER}/canary", "/var/lib/glixd/state/state.db"):
            commit(
                edited,
                file,
                f'{text[0]}  environment.etc."stolen".text = builtins.readFile {path};\n}}{text[2]}',
                "Read a file",
            )
            done = push(edited, check=False)
            assert done.returncode != 0
            told.append(done.stdout + done.stderr)
        transactions = answer("transaction", "list", "--limit", "50")["transactions"]
        for one in transactions:
            tell("--json", "transaction", "show", one["id"], ends=0)
            tell("transaction", "log", one["id"])
        for words in (("doctor",), ("history", "--long"), ("list", "--all"), ("inputs",), ("generations",), ("diff",)):
            tell("--json", *words)
            tell(*words, user="bob")
        eventually(lambda: transactions[0]["id"] in (tmp_path / "bus").read_text(), "the last messages")

    assert f"Basic {PROOF}" in Forge.proofs, "the credential was never used"
    assert transactions[0]["id"] in _journal()
    assert _leaks(SECRETS, told, tmp_path / "bus") == set()
    assert run("grep", "-rqsF", "thief", "/nix/store", "/var/lib/glixd", check=False).returncode == 0, (
        "grep finds nothing"
    )
    thief = next(Path("/nix/store").glob("*-thief/bin/thief")).read_text(errors="replace")
    assert "Permission denied" in thief, "it did not even try"
    assert as_user("bob", "cat", f"{FOLDER}/canary", check=False).returncode != 0


def test_a_canary_is_found_in_every_channel_that_is_searched(tmp_path: Path) -> None:
    told: list[str] = []
    with _overheard(tmp_path / "bus"):
        glixctl("--transport", "bus", "add", "hello", "--no-evaluate")  # a signal
        glixctl("--transport", "bus", "show", "nosuch", check=False)  # an error
        eventually(lambda: b'"type":"error"' in (tmp_path / "bus").read_bytes(), "the error on the bus")
        assert _leaks([PLANTED], told, tmp_path / "bus") == set(), "it is there before it was put there"
        glixctl("--transport", "bus", "init", "--host", PLANTED, "--user", "bob")
        done = glixctl("--transport", "bus", "show", PLANTED, check=False)
        told.append(done.stdout + done.stderr)
        run("systemd-cat", "echo", PLANTED)
        glixctl("--transport", "bus", "host", "remove", PLANTED)
        glixctl("--transport", "bus", "show", f"last-{PLANTED}", check=False)
        eventually(lambda: (tmp_path / "bus").read_text().count(f"last-{PLANTED}") > 1, "the last messages")
        with _planted():
            found = _leaks([PLANTED], told, tmp_path / "bus")
    assert found == {
        *("answers", "journal", *(f"bus {kind}" for kind in MESSAGES)),
        *(*PLACES, *(f"{place}, unpacked" for place in (BUILD_LOGS, *WITH_GIT))),
    }
