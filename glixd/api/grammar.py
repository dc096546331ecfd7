# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of the table: what a name, a reference or a line of text may be, and the frozen values made of them."""

# Annotations are values here: as text, pydantic would compile each of them when the model is made.
import re
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from glixd.protocol import MAX_IMPORTED_BYTES, MAX_IMPORTED_PATH, MAX_REFERENCE_BYTES

PACKAGE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+.-]{0,127}", re.ASCII)
HOST_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
USER_NAME: Final = re.compile(r"[a-z_][a-z0-9_-]{0,30}\$?", re.ASCII)
SYSTEM: Final = re.compile(r"(x86_64|aarch64|i686|armv6l|armv7l|riscv64|powerpc64le|loongarch64)-linux", re.ASCII)
CHANGE_KEY: Final = re.compile(r"[a-z][a-z_]{0,63}|config\.[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
COMMIT_NAME: Final = re.compile(r"[0-9a-f]{4,64}", re.ASCII)
PROFILE: Final = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
IMPORTED_PATH: Final = re.compile(
    r"[A-Za-z0-9_+@=,][A-Za-z0-9_+@=,.-]*(/[A-Za-z0-9_+@=,][A-Za-z0-9_+@=,.-]*){0,7}", re.ASCII
)
DAYS: Final = re.compile(r"[1-9][0-9]{0,4}d", re.ASCII)
UPLOAD: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
TRANSACTION_ID: Final = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}", re.ASCII)


class Scope(StrEnum):
    """Where a package goes: the system of a host, or the home of one user on it."""

    SYSTEM = "system"
    HOME = "home"


class Consent(StrEnum):
    """What nixpkgs refuses unless somebody consents; the value is what the package is."""

    UNFREE = "unfree"
    INSECURE = "insecure"
    BROKEN = "broken"

    @property
    def setting(self) -> str:
        """The key of the manifest's settings, and the parameter of Add, that gives the consent."""
        return f"allow_{self.value}"

    @property
    def flag(self) -> str:
        """The flag of glixctl that gives it."""
        return f"--allow-{self.value}"


def matching(pattern: re.Pattern[str], what: str) -> AfterValidator:
    """The check that a text is `what` as a whole."""

    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"{shown(text)} is not {what}")
        return text

    return AfterValidator(check)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{shown(text)} has characters that can't be printed; use one line of plain text")
    return text


def _bounded(text: str) -> str:
    if len(text.encode()) > MAX_REFERENCE_BYTES:
        raise ValueError(f"a reference has at most {MAX_REFERENCE_BYTES} bytes")
    return text


def _text(text: str) -> str:
    if not text.replace("\n", "").replace("\t", "").isprintable():
        raise ValueError(f"{shown(text)} has control characters; only line ends and tabs may be in it")
    return text


def shown(text: str) -> str:
    """A piece of the caller's input, short and safe to print; what has to be escaped takes more room than it had."""
    shown = ascii(text if len(text) <= 60 else text[:57] + "…")
    return shown if len(shown) <= 200 else shown[:199] + "…"


PackageName = Annotated[
    str,
    matching(
        PACKAGE_NAME, "a package name: start with a letter, digit or _, then letters, digits and _ + . -, at most 128"
    ),
]
HostName = Annotated[
    str, matching(HOST_NAME, "a host name: lower-case letters, digits and -, at most 63, no - in front")
]
UserName = Annotated[str, matching(USER_NAME, "a user name: lower-case letters, digits, _ and -, at most 31")]
System = Annotated[str, matching(SYSTEM, "a Linux system that Nix knows, such as x86_64-linux or aarch64-linux")]
TransactionId = Annotated[str, matching(TRANSACTION_ID, "a transaction id: 26 lower-case letters and digits")]
Reference = Annotated[
    str, Field(min_length=1, max_length=MAX_REFERENCE_BYTES), AfterValidator(_bounded), AfterValidator(_printable)
]
Line = Annotated[str, Field(max_length=256), AfterValidator(_printable)]
"""One line of plain text."""
CommitName = Annotated[str, matching(COMMIT_NAME, "a commit: 4 to 64 hexadecimal digits")]


UploadName = Annotated[str, matching(UPLOAD, "the name of an upload: 32 hexadecimal digits")]
InputName = Annotated[str, matching(PACKAGE_NAME, "the name of an input or a package")]
ChangeKey = Annotated[
    str, matching(CHANGE_KEY, "a key: letters, digits, _ and -, and for the configuration of a package config.NAME")
]
Text = Annotated[str, Field(max_length=4096), AfterValidator(_text)]
"""Text of several lines."""
Changes = dict[ChangeKey, Text]


def _whole_text(text: str) -> str:
    if not text.replace("\n", "").replace("\t", "").replace("\r", "").replace("\f", "").isprintable():
        raise ValueError("it has control characters, so it is no text that Nix reads; leave it out")
    return text


ImportedPath = Annotated[
    str,
    Field(max_length=MAX_IMPORTED_PATH),
    matching(
        IMPORTED_PATH,
        "a path in the folder: up to 8 names of letters, digits and _ + @ = , . - that do not begin with . or -",
    ),
]
ImportedText = Annotated[str, Field(max_length=MAX_IMPORTED_BYTES), AfterValidator(_whole_text)]
ImportedFiles = dict[ImportedPath, ImportedText]
"""The text files of a folder that is taken over, by their path in it."""


class Value(BaseModel):
    """A frozen value that crosses the wire."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class Parameters(Value):
    """What a caller may say to an operation."""
