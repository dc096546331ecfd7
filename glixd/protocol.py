# SPDX-License-Identifier: GPL-3.0-or-later
"""The names that both sides of the wire spell alike: bus names, states, error codes, exit codes, limits and places.

This is the only module of glixd that glixctl imports, so it uses the standard library alone and is cheap to load.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # known to type checkers by this name; loading `typing` would cost every start of glixctl
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from glixd.codes import ERRORS as ERRORS  # noqa: PLC0414 # told to type checkers
    from glixd.codes import Activation as Activation  # noqa: PLC0414 # told to type checkers
    from glixd.codes import ErrorCode as ErrorCode  # noqa: PLC0414 # told to type checkers
    from glixd.codes import ErrorEntry as ErrorEntry  # noqa: PLC0414 # told to type checkers
    from glixd.codes import State as State  # noqa: PLC0414 # told to type checkers
    from glixd.codes import json_code as json_code  # noqa: PLC0414 # told to type checkers


def __getattr__(name: str) -> Any:
    """States and errors, which are in a module of their own: loading it takes longer than most commands have to say."""
    if name not in _CODES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from glixd import codes

    return getattr(codes, name)


_CODES: Final = ("ERRORS", "Activation", "ErrorCode", "ErrorEntry", "State", "json_code")


VERSION: Final = "0.1.0"
COMMIT: Final = "unknown"
"""The commit this was built from; packaging replaces the word."""

DEFAULT_CORE_URL: Final = "github:glixos/glixd"
"""Where a new repository takes `glixos-core` from; every document quotes this constant."""
DEFAULT_NIXPKGS_URL: Final = "github:NixOS/nixpkgs/nixos-unstable"
DEFAULT_HOME_MANAGER_URL: Final = "github:nix-community/home-manager"

# -- the bus -----------------------------------------------------------------------------------------------------

BUS_NAME: Final = "org.glixos.Glix1"
OBJECT_PATH: Final = "/org/glixos/Glix1"
TRANSACTION_PATH: Final = OBJECT_PATH + "/Transaction"
MANAGER_INTERFACE: Final = BUS_NAME + ".Manager"
TRANSACTION_INTERFACE: Final = BUS_NAME + ".Transaction"
ERROR_PREFIX: Final = BUS_NAME + ".Error."
POLKIT_PREFIX: Final = "org.glixos.glix1."

# -- limits ------------------------------------------------------------------------------------------------------

MAX_BUS_MESSAGE: Final = 256 * 1024
"""Largest D-Bus message that is parsed, in bytes."""
MAX_JSON_MESSAGE: Final = 1024 * 1024
"""Largest JSON-RPC message that is parsed, in bytes."""
MAX_IMPORTED_FILES: Final = 256
"""Files of a folder that is taken over."""
MAX_IMPORTED_BYTES: Final = 160 * 1024
"""Bytes of all of them together: they travel in one message, also on the bus."""
MAX_IMPORTED_PATH: Final = 200
"""Characters of the path of such a file."""
MAX_REFERENCES: Final = 256
"""References in one request."""
MAX_REFERENCE_BYTES: Final = 512
MAX_PENDING: Final = 64
"""Transactions that wait or run, of all callers together; uid 0 keeps a reserve beyond it."""
MAX_PENDING_PER_UID: Final = 8
MAX_CONNECTIONS_PER_UID: Final = 32
MAX_CONNECTIONS: Final = 256
"""Connections of all uids but 0, which has its own beyond them."""
CALLS_PER_SECOND: Final = 20
"""Requests of one uid that cost more than a lookup, in the long run."""
CALLS_AT_ONCE: Final = 40
"""The same, in one burst."""
MAX_CHECKS_PER_UID: Final = 4
"""polkit checks in flight."""
PROGRESS_PER_SECOND: Final = 10
MAX_UPLOAD: Final = 16 * 1024 * 1024
"""Largest bundle of commits that a caller may bring, in bytes."""
UPLOAD_PIECE: Final = 96 * 1024
"""Bytes of a bundle in one message; they travel as base 64."""
MAX_OFFSET: Final = 10_000
"""How far a search can be paged."""
MAX_GENERATION: Final = 999_999
"""The highest number of a generation that can be named."""
MAX_LOG_OFFSET: Final = 1 << 40
PAGE_SIZE: Final = 1000
"""Entries of one page of a bulk answer, unless the caller asks for fewer."""

# -- states and exit codes ----------------------------------------------------------------------------------------

WAITING_FOR_AUTHORISATION: Final = "waiting-for-authorisation"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
ENDS: Final = (SUCCEEDED, FAILED, CANCELLED)
"""States that nothing follows. All of them are in `State`."""


class Exit:
    """Exit codes of glixctl: plain numbers, since a command that goes well needs one and no enumeration."""

    DONE: Final = 0
    FAILED: Final = 1
    USAGE: Final = 2
    NOT_AUTHORISED: Final = 3
    NOT_FOUND: Final = 4
    REFUSED: Final = 5
    UNREACHABLE: Final = 6
    NOTHING_TO_DO: Final = 7
    UNITS_FAILED: Final = 8
    REBOOT_NEEDED: Final = 9
    DISMISSED: Final = 10
    TIMED_OUT: Final = 11
    UNAVAILABLE: Final = 12
    INTERRUPTED: Final = 130

    @classmethod
    def all(cls) -> dict[str, int]:
        """Each of them by its name."""
        return {name: number for name, number in vars(cls).items() if name.isupper()}


# -- places ------------------------------------------------------------------------------------------------------

SYSTEM_SOCKET: Final = "/run/glixd/rpc.sock"
SYSTEM_REPOSITORY: Final = "/var/lib/glixd/repo"
SYSTEM_SETTINGS: Final = "/etc/glixd/config.toml"
SYSTEM_WISHES: Final = "/run/glixd-activate"
"""Where root says which transactions of its own may switch the machine."""
SYSTEM_EXPORT: Final = "/etc/glixos"
"""Where everybody may read what the system's repository says."""
COPIED_REVISION: Final = ".glixd-revision"
"""The file in there that says which commit that is."""


def user_repository(environment: Mapping[str, str]) -> str:
    """The repository of user mode: `$GLIX_ROOT`, else `$XDG_CONFIG_HOME/glixos`, else `~/.config/glixos`."""
    if root := environment.get("GLIX_ROOT"):
        return os.path.abspath(root)
    return _unnamed(environment)


def _unnamed(environment: Mapping[str, str]) -> str:
    """The repository of a user who has named none."""
    return os.path.join(_xdg(environment, "XDG_CONFIG_HOME", ".config"), "glixos")


def user_runtime(environment: Mapping[str, str]) -> str:
    """The folder of user mode's sockets: `$XDG_RUNTIME_DIR/glixd`, else `~/.cache/glixd/run`."""
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        return os.path.join(runtime, "glixd")
    return os.path.join(_home(environment), ".cache", "glixd", "run")


def user_state(environment: Mapping[str, str], repository: str) -> str:
    """The folder where user mode keeps the history and caches of one repository."""
    return os.path.join(
        _xdg(environment, "XDG_STATE_HOME", os.path.join(".local", "state")), "glixd", repository_key(repository)
    )


def user_socket(environment: Mapping[str, str], repository: str | None = None) -> str:
    """The socket of the daemon of `repository`, by default of `user_repository`.

    It depends on the repository's place alone, however that was named: `rpc.sock` stands for the one that nobody has to name.
    """
    runtime = user_runtime(environment)
    repository = repository or user_repository(environment)
    if os.path.realpath(repository) == os.path.realpath(_unnamed(environment)):
        return os.path.join(runtime, "rpc.sock")
    return os.path.join(runtime, repository_key(repository) + ".sock")


def repository_key(repository: str) -> str:
    """Sixteen hex digits that stand for the path of a repository, symbolic links resolved."""
    import hashlib  # loads OpenSSL: only callers with a repository of their own pay for it

    return hashlib.sha256(os.fsencode(os.path.realpath(repository))).hexdigest()[:16]


def _home(environment: Mapping[str, str]) -> str:
    return environment.get("HOME") or os.path.expanduser("~")


def _xdg(environment: Mapping[str, str], variable: str, fallback: str) -> str:
    value = environment.get(variable, "")
    return value if os.path.isabs(value) else os.path.join(_home(environment), fallback)
