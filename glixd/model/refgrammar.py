# SPDX-License-Identifier: GPL-3.0-or-later
"""The grammar of flake references: narrow, over those forms that every supported nix understands.

    github: gitlab: sourcehut:   OWNER/REPO[/REF-OR-REV]            ?ref ?rev ?dir ?host
    git: git+http(s): git+ssh:   //[USER@]HOST[:PORT]/PATH          ?ref ?rev ?dir ?submodules ?shallow ?allRefs
    git+file:                    ///PATH                            as above
    http: https:                 //HOST[:PORT]/PATH (a tarball)     ?dir ?narHash
    path:                        ./FOLDER or /FOLDER
    [flake:]                     NAME[/REF-OR-REV]                  ?dir

each with `#attribute.path` behind it. What is refused here never reaches a command line or a file. Credentials are refused
too: a reference is committed for everybody to read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final
from urllib.parse import unquote

from glixd.errors import InvalidRequest
from glixd.protocol import MAX_REFERENCE_BYTES, ErrorCode
from glixd.values import dataclass


class Scheme(StrEnum):
    """The kinds of source that a reference may name."""

    GITHUB = "github"
    GITLAB = "gitlab"
    SOURCEHUT = "sourcehut"
    GIT = "git"
    GIT_HTTP = "git+http"
    GIT_HTTPS = "git+https"
    GIT_SSH = "git+ssh"
    GIT_FILE = "git+file"
    HTTP = "http"
    HTTPS = "https"
    PATH = "path"
    FLAKE = "flake"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a reference consists of."""

    text: str
    """The whole of it, as the user spelt it."""
    scheme: Scheme
    path: str
    """What is between the scheme and the query, as written."""
    query: tuple[tuple[str, str], ...]
    attribute: str | None

    def parameter(self, name: str) -> str | None:
        """The value of a parameter, percent-decoded."""
        return next((unquote(value) for key, value in self.query if key == name), None)

    @property
    def base_path(self) -> str:
        """The path without a branch, tag or commit in it."""
        parts = self.path.split("/")
        return "/".join(parts[: _REVISION_AFTER.get(self.scheme, len(parts))])

    @property
    def revision_in_path(self) -> str | None:
        """The branch, tag or commit that stands in the path."""
        if self.scheme not in _REVISION_AFTER:
            return None
        return unquote("/".join(self.path.split("/")[_REVISION_AFTER[self.scheme] :])) or None


def split(text: str) -> Parts:
    """Take a reference apart; what does not fit raises BadReference, saying what and where."""
    _check_characters(text)
    before, hash_sign, fragment = text.partition("#")
    if hash_sign:
        _check_attribute(text, fragment)
    scheme, rest = _split_scheme(text, before)
    path, question_mark, query_text = rest.partition("?")
    query = _split_query(text, scheme, query_text) if question_mark else ()
    parts = Parts(text, scheme, path, query, fragment or None)
    _check_path(parts)
    return parts


def is_attribute_path(text: str) -> bool:
    """Whether `text` is a name, or names joined by single dots."""
    return _ATTRIBUTE_PATH.fullmatch(text) is not None


def is_commit(text: str) -> bool:
    """Whether `text` is a full commit id."""
    return _COMMIT.fullmatch(text) is not None


def check_pin(parts: Parts, pin: str) -> None:
    """Refuse a pin that is not of its form, or that the scheme has no use for."""
    scheme = parts.scheme
    if scheme not in FORGES | GITS | {Scheme.FLAKE}:
        why = f"“{scheme}:” has no branches, tags or commits, so it takes no pin"
        raise bad(parts.text, why, hint="Name another source, or leave the pin out.")
    fits = _is_forge_ref if scheme in FORGES else _is_git_ref if scheme in GITS else _is_indirect_ref
    if len(pin) > MAX_REFERENCE_BYTES or not fits(pin):
        raise bad(pin, "a pin is a branch, a tag or a full commit id", hint=_PARAMETER_HINTS["ref"])


def bad(text: str, why: str, *, hint: str = "") -> InvalidRequest:
    """The error for a reference or pin."""
    shown = _shown(text)
    details = {"reference": shown, "reason": why}
    return InvalidRequest(f"“{shown}”: {why}", code=ErrorCode.BAD_REFERENCE, hint=hint, details=details)


def _shown(text: str) -> str:
    """The text for a message: on one line, of bounded length, without what might be a password."""
    hidden = _VALUES.sub(r"\1=…", _CREDENTIALS.sub("//…@", text))
    line = "".join(
        character if character.isprintable() else f"\\u{ord(character):04x}" for character in hidden[:_SHOWN]
    )
    return f"{line}…" if len(hidden) > _SHOWN else line


FORGES: Final = frozenset({Scheme.GITHUB, Scheme.GITLAB, Scheme.SOURCEHUT})
GITS: Final = frozenset({Scheme.GIT, Scheme.GIT_HTTP, Scheme.GIT_HTTPS, Scheme.GIT_SSH, Scheme.GIT_FILE})
TARBALLS: Final = frozenset({Scheme.HTTP, Scheme.HTTPS})
WITH_AUTHORITY: Final = GITS | TARBALLS
_REVISION_AFTER: Final[Mapping[Scheme, int]] = {**dict.fromkeys(FORGES, 2), Scheme.FLAKE: 1}
"""How many components of the path stand before a branch, tag or commit."""

_OUTSIDE_GRAMMAR: Final = re.compile(r"[^A-Za-z0-9:/._+~@%?=&,*#-]", re.ASCII)
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):", re.ASCII)
_IDENTIFIER: Final = r"[A-Za-z0-9_][A-Za-z0-9_+-]*"
_ATTRIBUTE_PATH: Final = re.compile(rf"{_IDENTIFIER}(\.{_IDENTIFIER})*", re.ASCII)
_COMMIT: Final = re.compile(r"[0-9a-fA-F]{40}", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_REPOSITORY: Final = re.compile(r"\.?[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_INDIRECT_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*", re.ASCII)
_FORGE_REF: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]*", re.ASCII)
_GIT_REF: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@-]*", re.ASCII)
_INDIRECT_REF: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_BAD_IN_REF: Final = re.compile(r"//|/\.|\.\.|\.lock(/|$)|[/.]$", re.ASCII)
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?", re.ASCII)
_FOLDER: Final = re.compile(r"[A-Za-z0-9._+-]+(/[A-Za-z0-9._+-]+)*", re.ASCII)
_SWITCH: Final = re.compile(r"[01]", re.ASCII)
_NAR_HASH: Final = re.compile(r"sha256-[A-Za-z0-9+/]{43}=", re.ASCII)
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CREDENTIALS: Final = re.compile(r"//\S*@")
_VALUES: Final = re.compile(r"((?:^|[?&])(?!(?:ref|rev|dir|host|narHash|submodules|shallow|allRefs)=)[^?&=#]*)=[^&#]+")
"""Values of parameters that no reference has; somebody may have meant a token."""
_SHOWN: Final = 120
_INSTEAD: Final[Mapping[str, str]] = {
    "srht": "sourcehut:~USER/REPO",
    "indirect": "flake:NAME",
    "git+git": "git://HOST/PATH",
    "ssh": "git+ssh://HOST/PATH",
    "file": "path:/FOLDER or git+file:///FOLDER",
    "tarball": "https://HOST/FILE.tar.gz",
    "tarball+https": "https://HOST/FILE.tar.gz",
    "tarball+http": "https://HOST/FILE.tar.gz",
    "file+https": "https://HOST/FILE.tar.gz",
}
"""How to spell what older versions of nix refuse, or what people write by habit."""


def _check_characters(text: str) -> None:
    """Length, alphabet and the signs that would mean something to a shell, to Nix or to an option parser."""
    if not text:
        raise bad(text, "a reference can't be empty")
    if len(text) > MAX_REFERENCE_BYTES:
        raise bad(text, f"a reference has at most {MAX_REFERENCE_BYTES} characters, this one has {len(text)}")
    if text.startswith("-"):
        raise bad(text, "a reference can't start with “-”: that is how options look")
    if "^" in text:
        raise bad(
            text, "outputs can't be chosen with “^”: a package is installed with the outputs that it declares itself"
        )
    if wrong := _OUTSIDE_GRAMMAR.search(text):
        raise bad(text, f"{_named(wrong[0])} at position {wrong.start() + 1} can't stand in a reference")
    if text.count("#") > 1:
        raise bad(text, f"only one “#” can stand in a reference; the second is at position {text.rindex('#') + 1}")
    if wrong := _BAD_ESCAPE.search(text):
        raise bad(text, f"“%” at position {wrong.start() + 1} needs two hexadecimal digits behind it")
    _check_decoded(text)


def _check_decoded(text: str) -> None:
    """What percent signs hide obeys the same alphabet, and no component climbs out of its folder."""
    decoded = unquote(text, errors="replace")
    if "%" in decoded or (decoded != text and _OUTSIDE_GRAMMAR.search(decoded)):
        raise bad(text, "a percent sign hides a character that can't stand in a reference")
    if decoded.count("#") + decoded.count("?") != text.count("#") + text.count("?"):
        raise bad(text, "a percent sign hides a “#” or “?”")
    if ".." in re.split(r"[/?&=#:]", decoded):
        raise bad(text, "“..” leads out of its folder")


def _named(character: str) -> str:
    """A character for a message: itself where it can be seen."""
    if character == " ":
        return "a space"
    return f"“{character}”" if character.isprintable() else f"the character U+{ord(character):04X}"


def _check_attribute(text: str, fragment: str) -> None:
    if not fragment:
        raise bad(text, "an attribute is missing behind “#”")
    if not _ATTRIBUTE_PATH.fullmatch(fragment):
        raise bad(text, f"“{fragment}” is no attribute path: names of letters, digits and _ + -, joined by single dots")


def _split_scheme(text: str, before: str) -> tuple[Scheme, str]:
    """The scheme and what follows its colon; a bare name is an entry of the flake registry."""
    if match := _SCHEME.match(before):
        try:
            return Scheme(match[1]), before[match.end() :]
        except ValueError:
            raise _unknown_scheme(text, match[1]) from None
    if before.startswith((".", "/", "~")):
        hint = "Write path:./FOLDER for a folder of the repository, path:/FOLDER for another one."
        raise bad(text, "a folder is written with “path:” before it", hint=hint)
    if not before:
        raise bad(text, "what the attribute belongs to is missing before “#”", hint="Write nixpkgs#ATTRIBUTE.")
    return Scheme.FLAKE, before


def _unknown_scheme(text: str, name: str) -> InvalidRequest:
    known = ", ".join(scheme.value for scheme in Scheme)
    if name.lower() in {scheme.value for scheme in Scheme}:
        return bad(text, f"“{name}:” is written in lower case", hint=f"Write {name.lower()}: instead.")
    hint = f"Write {_INSTEAD[name]} instead." if name in _INSTEAD else f"These can be used: {known}."
    return bad(text, f"“{name}:” is no kind of source that can be used", hint=hint)


def _split_query(text: str, scheme: Scheme, query_text: str) -> tuple[tuple[str, str], ...]:
    """The parameters, each known to the scheme, given once and of its form."""
    checks = _parameters_of(scheme)
    found: dict[str, str] = {}
    for part in query_text.split("&"):
        key, equals, value = part.partition("=")
        if key not in checks:
            known = f"known are {', '.join(checks)}" if checks else "it knows none"
            raise bad(text, f"“{key}” is no parameter of “{scheme}:”; {known}")
        if key in found:
            raise bad(text, f"the parameter “{key}” is given twice")
        if not equals or not checks[key](unquote(value)):
            raise bad(text, f"“{value}” is no value for the parameter “{key}”", hint=_PARAMETER_HINTS.get(key, ""))
        found[key] = value
    return tuple(found.items())


def _parameters_of(scheme: Scheme) -> Mapping[str, Callable[[str], bool]]:
    if scheme in FORGES:
        return {"ref": _is_forge_ref, "rev": is_commit, "dir": _is_folder, "host": _is_host}
    if scheme in GITS:
        switches = dict.fromkeys(("submodules", "shallow", "allRefs"), _is_switch)
        return {"ref": _is_git_ref, "rev": is_commit, "dir": _is_folder, **switches}
    if scheme in TARBALLS:
        return {"dir": _is_folder, "narHash": _is_nar_hash}
    return {"dir": _is_folder} if scheme is Scheme.FLAKE else {}


_PARAMETER_HINTS: Final[Mapping[str, str]] = {
    "rev": "A revision is a full commit id: 40 hexadecimal digits. A branch or tag is ref=NAME.",
    "ref": "A branch or tag has letters, digits and _ . / -, and starts with a letter or digit.",
    "dir": "A folder is relative to the top of the source: a/b.",
}


def _is_forge_ref(value: str) -> bool:
    return _FORGE_REF.fullmatch(value) is not None and not _BAD_IN_REF.search(value)


def _is_git_ref(value: str) -> bool:
    return _GIT_REF.fullmatch(value) is not None and not _BAD_IN_REF.search(value)


def _is_indirect_ref(value: str) -> bool:
    return _INDIRECT_REF.fullmatch(value) is not None and not _BAD_IN_REF.search(value)


def _is_folder(value: str) -> bool:
    return _FOLDER.fullmatch(value) is not None and not {".", ".."} & set(value.split("/"))


def _is_host(value: str) -> bool:
    return _HOST.fullmatch(value) is not None and ".." not in value


def _is_switch(value: str) -> bool:
    return _SWITCH.fullmatch(value) is not None


def _is_nar_hash(value: str) -> bool:
    return _NAR_HASH.fullmatch(value) is not None


def _check_path(parts: Parts) -> None:
    """The part between scheme and query, by the rules of the scheme."""
    scheme = parts.scheme
    if scheme in FORGES:
        _check_forge(parts)
    elif scheme is Scheme.GIT_FILE:
        _check_git_file(parts)
    elif scheme in WITH_AUTHORITY:
        _check_address(parts)
    elif scheme is Scheme.PATH:
        _check_folder(parts)
    else:
        _check_indirect(parts)


def _check_forge(parts: Parts) -> None:
    text, scheme = parts.text, parts.scheme
    owner, _, rest = parts.path.partition("/")
    repository = rest.partition("/")[0]
    if not _is_owner(scheme, unquote(owner)) or not _REPOSITORY.fullmatch(repository):
        raise bad(text, f"behind “{scheme}:” comes OWNER/REPO", hint=f"For example {scheme}:{_EXAMPLES[scheme]}.")
    in_path = parts.revision_in_path
    if in_path is None and rest.count("/"):
        raise bad(text, "a branch, tag or commit is missing behind the last “/”")
    if in_path is not None and not _is_forge_ref(in_path):
        raise bad(text, f"“{in_path}” is no branch, tag or commit", hint=_PARAMETER_HINTS["ref"])
    given = [value for value in (in_path, parts.parameter("ref"), parts.parameter("rev")) if value is not None]
    if len(given) > 1:
        raise bad(text, f"{' and '.join(given)} are given together: only one branch, tag or commit can hold")


_EXAMPLES: Final[Mapping[Scheme, str]] = {
    Scheme.GITHUB: "NixOS/nixpkgs",
    Scheme.GITLAB: "group%2Fsubgroup/project",
    Scheme.SOURCEHUT: "~user/project",
}


def _is_owner(scheme: Scheme, owner: str) -> bool:
    if scheme is Scheme.SOURCEHUT:
        owner = owner.removeprefix("~")
    groups = owner.split("/")
    return all(_NAME.fullmatch(group) for group in groups) and (len(groups) == 1 or scheme is Scheme.GITLAB)


def _check_address(parts: Parts) -> None:
    text, scheme = parts.text, parts.scheme
    slashes, authority, path = parts.path[:2], *parts.path[2:].partition("/")[::2]
    user, at_sign, host = authority.rpartition("@")
    if at_sign and scheme is not Scheme.GIT_SSH:
        hint = "Credentials belong into the configuration of nix; a reference is committed for everybody to read."
        raise bad(text, "a user name or password can't stand in a reference", hint=hint)
    if at_sign and not _USER.fullmatch(user):
        raise bad(text, "before “@” comes a plain user name, without a password")
    if slashes != "//" or not _is_host(host):
        raise bad(text, f"behind “{scheme}:” comes //HOST/PATH", hint="A host has letters, digits, dots and dashes.")
    _check_components(parts, path)


def _check_git_file(parts: Parts) -> None:
    if not parts.path.startswith("///"):
        raise bad(parts.text, "behind “git+file:” comes ///FOLDER", hint="Three slashes: git+file:///home/me/flake.")
    _check_components(parts, parts.path.removeprefix("///"))


def _check_folder(parts: Parts) -> None:
    text, path = parts.text, parts.path
    if path.startswith("~"):
        raise bad(text, "“~” is not expanded", hint="Write the folder in full: path:/home/USER/FOLDER.")
    if "%" in path:
        raise bad(text, "“%” has different meanings in “path:” for different versions of nix")
    if not path.startswith(("./", "/")):
        hint = "Write path:./FOLDER for a folder of the repository, path:/FOLDER for another one."
        raise bad(text, "behind “path:” comes ./FOLDER or /FOLDER", hint=hint)
    _check_components(parts, path.removeprefix(".").removeprefix("/"))


def _check_components(parts: Parts, path: str) -> None:
    """A path in a URL or folder names something, without detours; one slash at its end is tolerated."""
    components = unquote(path).removesuffix("/").split("/")
    if components == [""]:
        raise bad(parts.text, f"a path is missing behind “{parts.scheme}:”")
    if "" in components or "." in components:
        raise bad(parts.text, "an empty or “.” component stands in the path")
    unfit = ":@" if parts.scheme is Scheme.PATH else ":"
    if wrong := next((component for component in components if set(unfit) & set(component)), None):
        raise bad(parts.text, f"“{wrong}” can't be a component of the path")


def _check_indirect(parts: Parts) -> None:
    name, slash, revision = parts.path.partition("/")
    if not _INDIRECT_NAME.fullmatch(name):
        hint = "A package is looked up by name; a reference looks like github:OWNER/REPO or nixpkgs#ATTRIBUTE."
        raise bad(parts.text, f"“{name}” is no name of a flake registry", hint=hint)
    if slash and not _is_indirect_ref(revision):
        raise bad(parts.text, f"“{revision}” is no branch, tag or commit behind “{name}/”")
