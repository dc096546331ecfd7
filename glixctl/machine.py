# SPDX-License-Identifier: GPL-3.0-or-later
"""Another machine, over ssh: the command lines that nixos-rebuild runs there, and what went wrong when one of them fails.

They run as the person who calls glixctl, with the keys and known hosts of that person. ssh asks nothing: several machines
would ask at once. NIX_SSHOPTS comes first, so it has the last word.
"""

from __future__ import annotations

import re
import shlex

from glixctl.errors import TARGET_UNREACHABLE, ClientError, UsageError
from glixd.protocol import ErrorCode, Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Mapping

PROFILE = "/nix/var/nix/profiles/system"
RUNNING = "/run/current-system"
SWITCH_UNIT = "nixos-rebuild-switch-to-configuration"
"""The name that nixos-rebuild gives its switch: two of them exclude each other."""
CONFIRM_UNIT = "glix-confirm"
"""One switch at a time waits for a confirmation."""
LOST = 255
"""What ssh ends with when it has no connection."""
HANGS = 10
"""So many times as long as a confirmation may take a switch may: one that takes longer hangs, and is undone."""

OPTIONS = ("-oBatchMode=yes", "-oConnectTimeout=10", "-oServerAliveInterval=10", "-oServerAliveCountMax=3")
_NIX = ("nix", "--extra-experimental-features", "nix-command")
_IN_A_UNIT = ("systemd-run", "--collect", "--no-ask-password", "--quiet")
_ADDRESS = re.compile(
    r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9a-fA-F:]*:[0-9a-fA-F:.]+)", re.ASCII
)

LOOK = 'echo "$(readlink "$1")"; readlink -f "$2"; test -d /run/systemd/system'
"""The generation of the profile, the system that runs, and whether systemd does."""
WATCH = """\
left=$1
patience=$7
while [ "$left" -gt 0 ] && [ "$patience" -gt 0 ]; do
  sleep 1
  left=$((left - 1))
  if systemctl is-active --quiet "$5"; then left=$1 patience=$((patience - 1)); fi
done
mkdir "$6" || exit 0
if systemctl is-active --quiet "$5"; then systemctl stop "$5"; fi
nix-env --profile "$2" --switch-generation "$3"
exec systemd-run --collect --no-ask-password --quiet --wait --unit="$5" "$2/bin/switch-to-configuration" "$4\""""
"""Goes back when nobody confirms: it counts from the end of the switch, which is ended where it hangs, and whoever makes the
folder first has decided."""
CONFIRM = """\
while systemctl is-active --quiet "$1"; do sleep 1; done
{ test -z "$3" || test "$(readlink -f "$2")" = "$3"; } && mkdir "$4" && systemctl stop "$5" && rmdir "$4\""""
"""Decides against going back, once the system that is meant to run does."""

_SAID = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": (
        "HostKeyChanged",
        Exit.REFUSED,
        "its key is not the one that is known",
        "Find out why. If the machine was set up anew, forget the old key with: ssh-keygen -R {host}",
    ),
    "Host key verification failed": (
        "HostKeyUnknown",
        Exit.REFUSED,
        "its key is not known",
        "Look at its key and accept it once with: ssh {address} true",
    ),
    "Permission denied": (
        "LoginRefused",
        Exit.NOT_AUTHORISED,
        "it does not let you in",
        "Give it your public key, and this session an ssh-agent with the private one; then this works: ssh {address} true",
    ),
}
"""What ssh says, which it says in no other language, and what that means."""


def parse_address(text: str) -> str:
    """An address for ssh, which is never taken for an option of it; raises UsageError."""
    if not _ADDRESS.fullmatch(text):
        raise UsageError(f"{text} is no address of a machine.", "Write HOST or USER@HOST, such as root@pi.lan.")
    return text


def ssh_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which nix calls ssh as we do."""
    said = " ".join((environment.get("NIX_SSHOPTS", ""), *OPTIONS)).strip()
    return {**environment, "LC_ALL": "C.UTF-8", "NIX_SSHOPTS": said}


class Machine:
    """The command lines for one machine; none of them is run here."""

    def __init__(self, address: str, environment: Mapping[str, str]) -> None:
        self.address = address
        self._options = (*environment.get("NIX_SSHOPTS", "").split(), *OPTIONS)

    @property
    def store(self) -> str:
        """Its store, as nix calls it."""
        user, at, host = self.address.rpartition("@")
        return f"ssh://{user}{at}[{host}]" if ":" in host else f"ssh://{self.address}"

    def look(self) -> list[str]:
        """What there is: see Before."""
        return self._script(LOOK, PROFILE, RUNNING)

    def receive(self, path: str, source: Machine | None = None) -> list[str]:
        """Copy a system there with all that it needs, from here or from another machine."""
        origin = ("--from", source.store) if source else ()
        return [*_NIX, "copy", *origin, "--to", self.store, path]

    def send(self, path: str) -> list[str]:
        """Copy from there to here."""
        return [*_NIX, "copy", "--from", self.store, path]

    def receive_derivation(self, derivation: str) -> list[str]:
        """Copy there what is to be built."""
        return [*_NIX, "copy", "--derivation", "--to", self.store, derivation]

    def build(self, derivation: str) -> list[str]:
        """Build it there."""
        return self._ssh("nix-store", "--realise", derivation)

    def set_profile(self, path: str) -> list[str]:
        """Make a system the next generation."""
        return self._ssh("nix-env", "--profile", PROFILE, "--set", path)

    def go_back(self, generation: int) -> list[str]:
        """Make an earlier generation the current one."""
        return self._ssh("nix-env", "--profile", PROFILE, "--switch-generation", str(generation))

    def activate(self, system: str, action: str, *, systemd: bool) -> list[str]:
        """Make a system, or the one of the profile, the running one; in a unit, which outlives the connection."""
        program = (f"{system}/bin/switch-to-configuration", action)
        if not systemd or action == "dry-activate":
            return self._ssh(*program)
        how = ("--pipe", "--wait", "--service-type=exec", f"--unit={SWITCH_UNIT}")
        return self._ssh(*_IN_A_UNIT, *how, "-ELOCALE_ARCHIVE", "-ENIXOS_INSTALL_BOOTLOADER=0", *program)

    def failed_units(self) -> list[str]:
        """The units that are in failure there."""
        return self._ssh("systemctl", "list-units", "--state=failed", "--plain", "--no-legend")

    def watch(self, seconds: int, generation: int, action: str, token: str) -> list[str]:
        """Let it go back by itself unless `confirm` comes in time."""
        words = (str(seconds), PROFILE, str(generation), action, SWITCH_UNIT, _answer(token), str(HANGS * seconds))
        how = (f"--unit={CONFIRM_UNIT}", "--service-type=exec", "-EPATH")
        return self._ssh(*_IN_A_UNIT, *how, "/bin/sh", "-c", WATCH, CONFIRM_UNIT, *words)

    def confirm(self, system: str, token: str) -> list[str]:
        """Let it stay as it is, over a connection of its own, for that is what has to work; a `system` has to run there."""
        words = (SWITCH_UNIT, RUNNING, system, _answer(token), CONFIRM_UNIT)
        return self._ssh("/bin/sh", "-c", CONFIRM, CONFIRM_UNIT, *words, options=("-oControlPath=none",))

    def failure(self, status: int, said: str, doing: str) -> ClientError:
        """The error of a command that failed there, or of ssh itself."""
        words = "".join(f"\n  {line}" for line in said.strip().splitlines()[-10:]) or f"\n  exit status {status}"
        details = {"target": self.address, "said": said.strip()}
        for sign, (name, code, what, hint) in _SAID.items():
            if sign in said:
                filled = hint.format(address=self.address, host=self.address.rpartition("@")[2])
                return ClientError(
                    f"{self.address} can't be reached: {what}.{words}",
                    name=name,
                    exit_code=code,
                    hint=filled,
                    details=details,
                )
        if status == LOST:
            return ClientError(
                f"{self.address} can't be reached.{words}",
                name=TARGET_UNREACHABLE,
                exit_code=Exit.UNREACHABLE,
                hint=f"This has to work: ssh {self.address} true",
                details=details,
            )
        return ClientError(
            f"{doing} failed.{words}", name=ErrorCode.ACTIVATION_FAILED, exit_code=Exit.FAILED, details=details
        )

    def _script(self, script: str, *words: str) -> list[str]:
        return self._ssh("/bin/sh", "-c", script, "glixctl", *words)

    def _ssh(self, *words: str, options: tuple[str, ...] = ()) -> list[str]:
        return ["ssh", *options, *self._options, self.address, shlex.join(words)]


class Before:
    """A machine before it is switched."""

    __slots__ = ("generation", "system", "systemd")

    def __init__(self, status: int, output: str) -> None:
        profile, _, running = output.strip().partition("\n")
        match = re.fullmatch(r"system-([0-9]+)-link", profile, re.ASCII)
        self.generation = int(match[1]) if match else None
        self.system = running.strip()
        self.systemd = status == 0


def _answer(token: str) -> str:
    return f"/run/{CONFIRM_UNIT}-{token}"
