# SPDX-License-Identifier: GPL-3.0-or-later
"""Two canaries, one in a file of root's and one in a credential: hostile sources look for both, and no answer, signal, error,
log, state or store path has either."""

from __future__ import annotations

import base64
import io
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, Final

import pytest

from tests.booted.inside.clones import clone, commit, push
from tests.booted.inside.conftest import HOST
from tests.booted.inside.machine import answer, as_user, drop_in, eventually, git, glixctl, run

OF_ROOT, OF_CREDENTIAL = "canary-of-root-5d0e71", "canary-of-credential-93b2c8"
PROOF: Final = base64.b64encode(f"me:{OF_CREDENTIAL}".encode()).decode()
SECRETS: Final = (OF_ROOT, OF_CREDENTIAL, PROOF)
FOLDER: Final = Path("/etc/secrets")
PLACES: Final = ("/nix/store", "/nix/var/log", "/var/lib/glixd", "/var/lib/glixd-eval", "/var/lib/glixd-activate")
MORE: Final = ("/var/lib/glixd-export", "/etc/glixos", "/run/glixd", "/run/glixd-activate")

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
    heard = (tmp_path / "bus").read_text(errors="replace")
    for kind in ("method_call", "method_return", "error", "signal"):
        assert f'"type":"{kind}"' in heard
    run("journalctl", "--sync")
    logged = run("journalctl", "--output=export", "--all", "--no-pager", errors="replace").stdout
    assert transactions[0]["id"] in logged
    written = run("cat", "/etc/glixos/flake.nix", "/etc/glixos/flake.lock").stdout + git("log", "--patch", "main")
    for secret in SECRETS:
        for text_of in (*told, heard, logged, written):
            assert secret not in text_of
        for place in (*PLACES, *MORE):
            assert run("grep", "-rqsF", secret, place, check=False).returncode != 0, place
    assert run("grep", "-rqsF", "thief", "/nix/store", "/var/lib/glixd", check=False).returncode == 0, (
        "grep finds nothing"
    )
    thief = next(Path("/nix/store").glob("*-thief/bin/thief")).read_text(errors="replace")
    assert "Permission denied" in thief, "it did not even try"
    assert as_user("bob", "cat", f"{FOLDER}/canary", check=False).returncode != 0
