# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine of a test's own, as far as who is who goes: users, a system bus and a real polkitd, in a mount namespace.

Nothing of the real machine is touched: what programs in here see at the places of passwd, of polkit's actions and rules and
of the system bus are folders of the test. Everything is ended by its process id.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from tests.support.hermetic import PROJECT

POLICY: Final = PROJECT / "polkit" / "org.glixos.glix1.policy"
POLKITD: Final = "/usr/lib/polkit-1/polkitd"
PATIENCE: Final = 30.0

UIDS: Final = {"root": 0, "glixd": 4200, "wanda": 4201, "alice": 4202, "bob": 4203, "nobody": 65534}
"""wanda is in wheel; bob is another user than alice."""
WHEEL: Final = 4210
PASSWORD: Final = "correct horse"
"""That of wanda, the administrator."""

_BUS: Final = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <limit name="max_connections_per_user">4096</limit>
  <limit name="max_completed_connections">8192</limit>
  <limit name="max_incomplete_connections">512</limit>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.PolicyKit1"/>
    <allow send_destination="org.glixos.Glix1"/>
    <allow send_interface="org.freedesktop.PolicyKit1.AuthenticationAgent"/>
  </policy>
  <policy user="glixd"><allow own="org.glixos.Glix1"/></policy>
  <policy user="root"><allow own="*"/></policy>
  <policy user="polkitd"><allow own="org.freedesktop.PolicyKit1"/></policy>
</busconfig>
"""
"""The rules of the usual system bus: nobody answers what nobody asked, and names belong to their services."""

_ADMINS: Final = 'polkit.addAdminRule(function (action, subject) { return ["unix-group:wheel"]; });\n'

_ENTER: Final = """\
set -eu
root=$1; shift
while [ $# -gt 0 ]; do mount --rbind "$root/$1" "$2"; shift 2; done
echo ready
exec cat
"""


@dataclass
class Machine:
    """The machine while it runs."""

    root: Path
    holder: subprocess.Popen[bytes]
    _started: ExitStack = field(default_factory=ExitStack)
    polkitd: subprocess.Popen[bytes] | None = None

    @property
    def bus(self) -> str:
        """The address of the system bus, from inside and from outside."""
        return f"unix:path={self.root}/bus/system_bus_socket"

    @property
    def rules(self) -> Path:
        """The folder of polkit's rules; polkitd reads what changes there at once."""
        return self.root / "rules"

    def command(self, user: str, *words: str) -> list[str]:
        """A command line that runs `words` in here as a user."""
        uid = UIDS[user]
        groups = str(WHEEL) if user == "wanda" else ""
        switch = ["setpriv", f"--reuid={uid}", f"--regid={uid}", f"--groups={groups}" if groups else "--clear-groups"]
        inside = ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", "--"]
        return [*inside, *([] if user == "root" else [*switch, "--inh-caps=-all", "--"]), *words]

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """What programs in here find in their environment."""
        return {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": os.fspath(PROJECT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DBUS_SYSTEM_BUS_ADDRESS": self.bus,
            "HOME": "/nonexistent",
            "LC_ALL": "C.UTF-8",
            **(extra or {}),
        }

    def start(
        self, user: str, *words: str, log: str, extra: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Run a program in the background, with its output in a log of the machine, until the machine is gone."""
        with (self.root / log).open("ab") as output:
            process = subprocess.Popen(
                self.command(user, *words),
                env=self.environment(extra),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._started.callback(end, process)
        return process

    def run(
        self, user: str, *words: str, extra: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            self.command(user, *words),
            env=self.environment(extra),
            cwd="/",
            stdin=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE * 20,
        )

    def start_polkitd(self) -> None:
        """Start polkitd and wait until it has its name."""
        self.polkitd = self.start("root", POLKITD, "--no-debug", log="polkitd.log")
        self.await_name("org.freedesktop.PolicyKit1", self.polkitd)

    def end_polkitd(self) -> None:
        """End polkitd, and wait until its name is free."""
        assert self.polkitd is not None
        end(self.polkitd)
        self.polkitd = None

    def await_name(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Wait until somebody owns a name on the bus."""
        deadline = time.monotonic() + PATIENCE
        while name not in self.names():
            assert process.poll() is None, f"{process.args!r} ended"
            assert time.monotonic() < deadline, f"nobody owns {name}"
            time.sleep(0.02)

    def names(self) -> list[str]:
        """The names on the bus."""
        done = self.run("root", "busctl", "--system", "--no-pager", "--no-legend", "list", "--acquired")
        return [line.split()[0] for line in done.stdout.splitlines()]

    def log(self, name: str) -> str:
        """A log of the machine."""
        return (self.root / name).read_text(errors="replace")

    def close(self) -> None:
        """End everything."""
        self._started.close()
        end(self.holder)
        for stream in (self.holder.stdin, self.holder.stdout, self.holder.stderr):
            if stream is not None:
                stream.close()
        shutil.rmtree(self.root, ignore_errors=True)


@contextmanager
def machine(
    *,
    rules: Mapping[str, str] | None = None,
    places: Sequence[tuple[str, str]] = (),
    prepare: Callable[[Path], object] = lambda _root: None,
) -> Iterator[Machine]:
    """A machine with a bus and polkitd; `places` are further files of it, made by `prepare`, and where they are seen."""
    root = Path(mkdtemp(prefix="glix-machine-"))
    root.chmod(0o755)
    for folder in ("actions", "rules", "bus", "etc", "tmp"):
        (root / folder).mkdir()
    shutil.copy(POLICY, root / "actions")
    for name, text in {"10-admins.rules": _ADMINS, **(rules or {})}.items():
        (root / "rules" / name).write_text(text)
    _write_users(root / "etc")
    prepare(root)
    made = Machine(root, _hold(root, places))
    try:
        config = root / "bus.conf"
        config.write_text(_BUS.format(socket=root / "bus" / "system_bus_socket"))
        bus = made.start("root", "dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", log="bus.log")
        _await(root / "bus" / "system_bus_socket", bus)
        made.start_polkitd()
        yield made
    finally:
        made.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and wait for it."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _hold(root: Path, places: Sequence[tuple[str, str]]) -> subprocess.Popen[bytes]:
    """A process that keeps the namespace until its standard input ends."""
    seen = [
        ("actions", "/usr/share/polkit-1/actions"),
        ("rules", "/etc/polkit-1/rules.d"),
        ("bus", "/run/dbus"),
        *((f"etc/{name}", f"/etc/{name}") for name in ("passwd", "group", "shadow")),
        *places,
    ]
    words = [word for pair in (*seen, *_reachable(root)) for word in pair]
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "sh", os.fspath(root), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stderr is not None
    ready = select.select([holder.stdout], [], [], PATIENCE)[0] and holder.stdout.readline()
    if ready != b"ready\n":
        holder.kill()
        raise AssertionError(f"no namespace: {holder.stderr.read().decode()}")
    return holder


def _reachable(root: Path) -> list[tuple[str, str]]:
    """Places of the interpreter and of this checkout that only root may pass through, opened for everybody in here."""
    closed: dict[Path, list[Path]] = {}
    for needed in dict.fromkeys((Path(sys.base_prefix), Path(sys.prefix), PROJECT)):
        for folder in reversed(needed.parents):
            if not folder.stat().st_mode & 0o001:
                closed.setdefault(folder, []).append(needed)
                break
    found = []
    for number, (folder, needed_there) in enumerate(closed.items()):
        stand_in = root / f"open-{number}"
        stand_in.mkdir(mode=0o755)
        for needed in needed_there:
            found.append((f"../..{needed}", f"{stand_in}/{needed.relative_to(folder)}"))
            (stand_in / needed.relative_to(folder)).mkdir(parents=True)
        found.append((stand_in.name, os.fspath(folder)))
    return found


def _write_users(etc: Path) -> None:
    """The users of the machine, beside those of the real one that its services have."""
    passwd = [line for line in Path("/etc/passwd").read_text().splitlines() if line.split(":")[0] not in UIDS]
    passwd += [f"{name}:x:{uid}:{uid if uid else 0}::/nonexistent:/bin/sh" for name, uid in UIDS.items()]
    group = [line for line in Path("/etc/group").read_text().splitlines() if line.split(":")[0] not in (*UIDS, "wheel")]
    group += [f"{name}:x:{uid}:" for name, uid in UIDS.items()] + [f"wheel:x:{WHEEL}:wanda"]
    (etc / "passwd").write_text("\n".join(passwd) + "\n")
    (etc / "group").write_text("\n".join(group) + "\n")
    words = ["openssl", "passwd", "-6", PASSWORD]
    secret = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    shadow = [f"{name}:{secret if name == 'wanda' else '*'}:19000:0:99999:7:::\n" for name in UIDS]
    (etc / "shadow").write_text("".join(shadow))
    (etc / "shadow").chmod(0o600)


def _await(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.01)
