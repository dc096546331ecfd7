# SPDX-License-Identifier: GPL-3.0-or-later
"""A network of a test's own, with machines in it: each has an address, a real sshd, and a store, a profile and a /run of its own.

They are namespaces, so nothing of the real machine's is touched; only root can make them. A program reaches the machines from
inside the network alone. Everything is ended by its process id.
"""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.hermetic import HermeticNix
from tests.support.machine import end

PATIENCE: Final = 60.0
PREFIX: Final = "10.77.0."
NOWHERE: Final = f"{PREFIX}250"
"""An address at which nobody is."""
SSHD: Final = "/usr/sbin/sshd"

_NETWORK: Final = """\
set -eu
ip link set lo up
ip link add name lan type bridge
ip address add {prefix}1/24 dev lan
ip link set lan up
echo ready
exec cat
"""
_MACHINE: Final = """\
set -eu
mount -t tmpfs tmpfs /run
mkdir /run/sshd
[ ! -d /boot ] || mount -t tmpfs tmpfs /boot
mount --bind {root}/nix /nix
mount --bind {root}/store {store}
mount --bind {root}/state {state}
ip link set lo up
echo made
read plugged
ip address add {address}/24 dev eth0
ip link set eth0 up
echo ready
exec {sshd} -D -e -f {root}/sshd_config
"""
_CONFIG: Final = """\
ListenAddress {address}
HostKey {root}/host_key
AuthorizedKeysFile {root}/authorized_keys
PidFile none
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
SetEnv {variables}
"""


@dataclass
class Machine:
    """A machine in the network."""

    name: str
    address: str
    root: Path
    process: subprocess.Popen[bytes]

    def run(self, *words: str) -> str:
        """What a program in there prints."""
        inside = ["nsenter", f"--mount=/proc/{self.process.pid}/ns/mnt", f"--net=/proc/{self.process.pid}/ns/net"]
        done = subprocess.run(
            [*inside, "--", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    @property
    def running(self) -> str:
        """The system that runs; empty where none was ever activated."""
        return self.run("readlink", "/run/current-system")

    @property
    def profile(self) -> str:
        """The link that the profile names, such as system-2-link."""
        return self.run("readlink", "/nix/var/nix/profiles/system")

    @property
    def boots(self) -> str:
        """The system that the boot loader would start."""
        return self.run("cat", "/boot/default")

    def has(self, path: str) -> bool:
        """Whether something is there."""
        return self.run("ls", "-d", path) == path


@dataclass
class Network:
    """The network while it is there."""

    root: Path
    holder: subprocess.Popen[bytes]
    nix: HermeticNix
    _stack: ExitStack
    known: list[str] = field(default_factory=list)
    count: int = 1

    def command(self, *words: str) -> list[str]:
        """A command line that runs in the network."""
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--", *words]

    @property
    def environment(self) -> Mapping[str, str]:
        """What ssh needs to find the machines and to be let in."""
        return {"NIX_SSHOPTS": f"-F {self.root}/ssh_config"}

    def start(self, name: str) -> Machine:
        """A machine with an sshd that answers."""
        self.count += 1
        address, root = f"{PREFIX}{self.count}", self.root / name
        for folder in ("nix/var/nix/profiles", "nix/store", "store", "state"):
            (root / folder).mkdir(parents=True)
        _keygen(root / "host_key")
        (root / "authorized_keys").write_text((self.root / "key.pub").read_text())
        (root / "sshd_config").write_text(
            _CONFIG.format(address=address, root=root, variables=" ".join(self._variables()))
        )
        script = _MACHINE.format(
            root=root, address=address, sshd=SSHD, store=self.nix.root / "store", state=self.nix.root / "state"
        )
        with (self.root / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                ["unshare", "--net", "--mount", "--propagation", "private", "/bin/sh", "-c", script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._stack.callback(end, process)
        _hear(process, b"made\n")
        link = f"port{self.count}"
        self._inside(
            "ip", "link", "add", "name", link, "type", "veth", "peer", "name", "eth0", "netns", str(process.pid)
        )
        self._inside("ip", "link", "set", link, "master", "lan", "up")
        assert process.stdin is not None
        process.stdin.write(b"plugged\n")
        process.stdin.flush()
        _hear(process, b"ready\n")
        self.name(name, address, key=(root / "host_key.pub").read_text())
        machine = Machine(name, address, root, process)
        self._await(name)
        return machine

    def name(self, name: str, address: str, key: str | None = None) -> None:
        """Let ssh call an address by a name, and know its key."""
        with (self.root / "ssh_config").open("a") as config:
            config.write(f"Host {name}\n  HostName {address}\n  HostKeyAlias {name}\n  IdentityFile {self.root}/key\n")
            config.write(f"  IdentitiesOnly yes\n  UserKnownHostsFile {self.root}/known_hosts\n")
        if key is not None:
            self.trust(name, key)

    def trust(self, name: str, key: str | None) -> None:
        """Know a machine by this key, or by none."""
        self.known = [line for line in self.known if line.split()[0] != name]
        if key is not None:
            self.known.append(f"{name} {' '.join(key.split()[:2])}")
        (self.root / "known_hosts").write_text("".join(f"{line}\n" for line in self.known))

    def _variables(self) -> Iterator[str]:
        environment = self.nix.environment()
        for name in ("PATH", "NIX_STORE_DIR", "NIX_STATE_DIR", "NIX_LOG_DIR", "NIX_CONF_DIR", "NIX_REMOTE"):
            yield f"{name}={environment[name]}"

    def _inside(self, *words: str) -> None:
        subprocess.run(self.command(*words), check=True, stdin=subprocess.DEVNULL)

    def _await(self, name: str) -> None:
        """Wait until somebody is let in."""
        words = self.command("ssh", "-F", f"{self.root}/ssh_config", "-oConnectionAttempts=30", f"root@{name}", "true")
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0, done.stderr + (self.root / f"{name}.log").read_text()


@contextmanager
def network(root: Path, nix: HermeticNix) -> Iterator[Network]:
    """A network; its machines build nothing, and get what they run by ssh."""
    root.mkdir()
    _keygen(root / "key")
    with ExitStack() as stack:
        holder = subprocess.Popen(
            ["unshare", "--net", "/bin/sh", "-c", _NETWORK.format(prefix=PREFIX)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        stack.callback(end, holder)
        _hear(holder, b"ready\n")
        yield Network(root, holder, nix, stack)


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", os.fspath(path)], check=True)


def _hear(process: subprocess.Popen[bytes], word: bytes) -> None:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], PATIENCE)[0], "it says nothing"
    said = process.stdout.readline()
    assert said == word, f"it said {said!a}"
