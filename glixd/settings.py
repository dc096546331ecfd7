# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of the daemon: argument before environment before file before default, in one frozen value."""

# Annotations are values here: as text, pydantic would compile each of them when the model is made.
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from glixd.errors import InvalidRequest
from glixd.protocol import (
    CALLS_AT_ONCE,
    CALLS_PER_SECOND,
    MAX_CHECKS_PER_UID,
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_PER_UID,
    MAX_PENDING,
    MAX_PENDING_PER_UID,
    SYSTEM_REPOSITORY,
    SYSTEM_SETTINGS,
    SYSTEM_SOCKET,
    user_repository,
    user_socket,
    user_state,
)

PREFIX: Final = "GLIXD_"
"""`GLIXD_IDLE_EXIT=30` is `idle_exit = 30` of the file."""
HOST_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
PASSED_ON: Final = re.compile(
    r"NIX_(STORE|STATE|LOG|CONF)_DIR|NIX_REMOTE|NIX_SSL_CERT_FILE|(https?|all|no|ftp)_proxy|TMPDIR|LOCALE_ARCHIVE|PATH",
    re.IGNORECASE | re.ASCII,
)
"""What children of a user's daemon are given of the environment it was started in; nothing else."""
UNIT_GIVES: Final = re.compile(r"PATH")
"""The same for the system's daemon, whose environment is that of its unit: where its git and its nix are."""


class Mode(StrEnum):
    """Whose daemon this is."""

    USER = "user"
    SYSTEM = "system"


def _host_name(name: str) -> str:
    if not HOST_NAME.fullmatch(name):
        raise ValueError("lower-case letters, digits and -, at most 63, no - in front")
    return name


Place = Annotated[Path, AfterValidator(lambda path: Path(os.path.abspath(path)))]
"""A path; a relative one is meant from where the daemon was started, since it soon leaves that folder."""


class RegistrySettings(BaseModel):
    """One glixos registry that the administrator configured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(
        max_length=512, description="Where its JSON document is: https, or http on a network of one's own."
    )
    trust: Literal["trusted", "untrusted"] = Field(
        "untrusted", description="Whether what it lists may be installed like packages of nixpkgs."
    )

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if problem := registry_problem(self.url, allow_files=True):
            raise ValueError(problem)
        parts = urlsplit(self.url)
        if self.trust == "trusted" and parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ValueError("a trusted registry needs https: anybody on the way could change what comes over http")
        return self


LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def registry_problem(url: str, *, allow_files: bool) -> str | None:
    """Why a URL can't be that of a registry."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return "it is no URL"
    if not url.isascii() or not url.isprintable() or " " in url:
        return "it has characters that a URL can't have"
    if parts.scheme == "file":
        return None if allow_files and parts.path.startswith("/") else "a file is no registry here; see file_registries"
    if parts.scheme not in ("https", "http") or not host:
        return "a registry is behind https:// or http://"
    return "a URL here has no user and no password" if "@" in parts.netloc else None


class Settings(BaseModel):
    """Everything that can be configured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode = Mode.USER
    repository: Place = Field(description="The folder of the repository.")
    state: Place = Field(description="Where the history of transactions and caches are kept.")
    socket: Place = Field(description="The Unix socket of JSON-RPC.")
    bus: str = Field("session", description="session, system, none, or the address of a bus.")
    host: Annotated[str, AfterValidator(_host_name)] = Field(description="The host that is meant where none is named.")
    branch: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_/-]{0,99}$")] | None = Field(
        None, description="The branch that manifests are kept on; by default that of HEAD at first contact."
    )
    evaluator: Literal["own", "child"] | Place = Field(
        "own",
        description="Who runs nix on what others wrote: the socket of the evaluator, `child` for the same program as a "
        "child of the daemon, or in user mode `own`, the daemon itself.",
    )
    activator: Place | None = Field(
        None, description="The socket of the activator, which switches the machine; without one, nothing is switched."
    )
    activations: Place = Field(Path("/var/lib/glixd-activate"), description="Where the activator writes its results.")
    system_profile: Place | None = Field(
        None, description="The profile of the system; by default profiles/system where nix keeps its state."
    )
    system_root: Place = Field(Path("/"), description="The root of the machine, below which run/current-system is.")
    bell: Place | None = Field(
        None, description="The FIFO by which the program that keeps a copy of the repository is told of changes."
    )
    rollback_on_failure: bool = Field(
        False, description="Go back to the generation before where an activation fails, unless a caller says otherwise."
    )
    auto_update: Literal["off", "stage", "switch"] = Field(
        "off",
        description="What an unattended update does once it is built: stage leaves the switch to a user, switch switches.",
    )
    auto_update_inputs: tuple[str, ...] = Field((), description="The inputs that it updates; none means all.")
    auto_update_age: int = Field(
        0, ge=0, description="Days since the locked revision of an input was made, before which it is left alone."
    )
    evaluate: bool = Field(True, description="Evaluate the hosts that a change concerns.")
    idle_exit: float = Field(60.0, ge=0, description="Seconds without work after which the daemon ends; 0 means never.")
    pending: int = Field(MAX_PENDING, ge=1, description="Transactions under way, of all callers together.")
    pending_per_uid: int = Field(MAX_PENDING_PER_UID, ge=1, description="Transactions under way of one uid.")
    connections: int = Field(
        MAX_CONNECTIONS, ge=1, description="Connections of all callers but root together, on each transport."
    )
    connections_per_uid: int = Field(
        MAX_CONNECTIONS_PER_UID, ge=1, description="Connections of one uid, on each transport."
    )
    calls_per_second: float = Field(
        CALLS_PER_SECOND,
        gt=0,
        allow_inf_nan=False,
        description="Requests a second of one uid that cost more than a lookup; over that they are refused.",
    )
    calls_at_once: int = Field(CALLS_AT_ONCE, ge=1, description="How many of them it may make in one burst.")
    checks_per_uid: int = Field(
        MAX_CHECKS_PER_UID, ge=1, description="Requests of one uid that polkit is asked about at a time; others wait."
    )
    registries: tuple[RegistrySettings, ...] = Field((), description="The glixos registries, in the order of asking.")
    registry_age: float = Field(86400.0, ge=0, description="Seconds after which a registry is asked for what is new.")
    file_registries: bool = Field(False, description="Whether file: URLs may be registries.")
    index: bool = Field(True, description="Build an index of the packages of nixpkgs, for search.")
    index_delay: float = Field(5.0, ge=0, description="Seconds after a start or a change before the index is built.")
    tidy_delay: float = Field(
        30.0, ge=0, description="Seconds after a start or a change before the repository and the history are tidied."
    )
    log: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged.")

    @model_validator(mode="after")
    def _evaluates_elsewhere(self) -> Self:
        if self.mode is Mode.SYSTEM and self.evaluator == "own":
            raise ValueError("evaluator: the system's daemon never evaluates by itself")
        return self


def load(arguments: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """The settings; raises InvalidArgument that names the source, the key and the reason."""
    mode = _mode(arguments, environment)
    named = arguments.get("config")
    path = Path(named or _config_path(mode, environment))
    given = {name: value for name, value in arguments.items() if value is not None and name != "config"}
    in_file = _from_file(path, must_exist=bool(named))
    if in_file.get("mode", mode) != mode:
        raise _wrong("mode", f"{path} can't choose it", _MODE_SOURCE)
    merged = {**in_file, **_from_environment(environment), **given, "mode": mode}
    try:
        return Settings.model_validate({**_defaults(mode, merged, environment), **merged})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        source = f"It comes from an argument, a variable {PREFIX}{key.upper()} or {path}."
        raise _wrong(key, first["msg"], source) from None


def child_environment(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of git and nix: constructed, with an allow-list of what a user's own daemon passes on."""
    home = settings.state / "home"
    allowed = PASSED_ON if settings.mode is Mode.USER else UNIT_GIVES
    passed = {name: value for name, value in environment.items() if allowed.fullmatch(name)}
    return {
        "PATH": "/run/current-system/sw/bin:/usr/local/bin:/usr/bin:/bin",
        **passed,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(settings.state / "cache"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_STATE_HOME": str(home / ".local/state"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "NIX_USER_CONF_FILES": "",
        "LC_ALL": "C.UTF-8",
    }


_MODE_SOURCE: Final = f"It comes from --mode or a variable {PREFIX}MODE or GLIX_MODE."


def _mode(arguments: Mapping[str, Any], environment: Mapping[str, str]) -> Mode:
    """The mode has to be known first: it decides which file is read."""
    words = (arguments.get("mode"), environment.get(f"{PREFIX}MODE"), environment.get("GLIX_MODE"))
    word = next(filter(None, words), Mode.USER)
    try:
        return Mode(word)
    except ValueError:
        raise _wrong("mode", f"{word!a} is neither user nor system", _MODE_SOURCE) from None


def _wrong(key: str, reason: str, source: str) -> InvalidRequest:
    return InvalidRequest(
        f"The setting {key} is wrong: {reason}.", hint=source, details={"argument": key, "reason": reason}
    )


def _defaults(mode: Mode, merged: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    host = socket.gethostname().partition(".")[0].lower()
    if mode is Mode.SYSTEM:
        return {
            "repository": Path(SYSTEM_REPOSITORY),
            "state": Path("/var/lib/glixd/state"),
            "socket": Path(SYSTEM_SOCKET),
            "bus": "system",
            "host": host,
            "evaluator": Path("/run/glixd/eval.sock"),
            "activator": Path("/run/glixd/activate.sock"),
            "bell": Path("/run/glixd/export"),
        }
    chosen = merged.get("repository")
    if not isinstance(chosen, str | os.PathLike) or not chosen:  # what is of another type is refused with all the rest
        chosen = user_repository(environment)
    repository = os.path.abspath(chosen)
    own = os.path.realpath(repository) == os.path.realpath(user_repository(environment))
    return {
        "repository": Path(repository),
        "state": Path(user_state(environment, repository)),
        "socket": Path(user_socket(environment, repository)),
        "bus": "session" if own and environment.get("DBUS_SESSION_BUS_ADDRESS") else "none",
        "host": host,
    }


def _config_path(mode: Mode, environment: Mapping[str, str]) -> str:
    if mode is Mode.SYSTEM:
        return SYSTEM_SETTINGS
    home = environment.get("HOME") or os.path.expanduser("~")
    return os.path.join(environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"), "glixd", "config.toml")


def _from_file(path: Path, *, must_exist: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError too
        if isinstance(error, FileNotFoundError) and not must_exist:
            return {}
        reason = _reason(error)
        raise InvalidRequest(
            f"{path} can't be read: {reason}.",
            hint="Correct the file; docs/reference/settings.md has every key.",
            details={"argument": str(path), "reason": reason},
        ) from None


def _reason(error: Exception) -> str:
    """Why a file can't be read; what is no TOML says its line and column by itself."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, UnicodeDecodeError):
        lines = error.object[: error.start].split(b"\n")
        return f"this is no UTF-8 (at line {len(lines)}, column {len(lines[-1]) + 1})"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    names = {name.removeprefix(PREFIX).lower(): value for name, value in environment.items() if name.startswith(PREFIX)}
    return {name: value for name, value in names.items() if name in Settings.model_fields}
