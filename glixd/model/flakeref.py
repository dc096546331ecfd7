# SPDX-License-Identifier: GPL-3.0-or-later
"""Flake references: an own, narrow grammar over those forms that every supported nix understands.

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
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import unquote

from glixd.api import PACKAGE_NAME
from glixd.errors import InvalidRequest
from glixd.protocol import MAX_REFERENCE_BYTES, ErrorCode


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


class Local(StrEnum):
    """Where a reference to this machine's own files points: into the repository, or anywhere."""

    RELATIVE = "relative"
    ABSOLUTE = "absolute"


@dataclass(frozen=True, slots=True)
class FlakeRef:
    """A reference that passed the grammar. Everything but `text` is derived from it."""

    text: str
    """As the user spelt it: this stands in the manifest and in every table."""
    url: str
    """Without the fragment; a bare name is spelt `flake:name`, so that nix never takes it for a folder."""
    attribute: str | None
    scheme: Scheme
    path: str
    """What is between the scheme and the query, as written."""
    query: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> FlakeRef:
        """Read a reference; what does not fit raises BadReference, saying what and where."""
        _check_characters(text)
        before, hash_sign, fragment = text.partition("#")
        if hash_sign:
            _check_attribute(text, fragment)
        scheme, rest = _split_scheme(text, before)
        path, question_mark, query_text = rest.partition("?")
        query = _split_query(text, scheme, query_text) if question_mark else ()
        url = f"{scheme}:{rest}"
        reference = cls(text=text, url=url, attribute=fragment or None, scheme=scheme, path=path, query=query)
        _check_path(reference)
        return reference

    @staticmethod
    def is_short(text: str) -> bool:
        """Whether `text` is a name or attribute path, such as `firefox`, that a resolver has to look up first."""
        return len(text) <= MAX_REFERENCE_BYTES and _ATTRIBUTE_PATH.fullmatch(text) is not None

    @property
    def ref(self) -> str | None:
        """The branch or tag that the reference itself names."""
        revision = self._revision_in_path()
        if revision and not _COMMIT.fullmatch(revision):
            return revision
        return self._parameter("ref")

    @property
    def rev(self) -> str | None:
        """The commit that the reference itself names."""
        revision = self._revision_in_path()
        if revision and _COMMIT.fullmatch(revision):
            return revision
        return self._parameter("rev")

    @property
    def local(self) -> Local | None:
        """How the reference reaches files of this machine; None for what comes over a network."""
        if self.scheme is Scheme.PATH:
            return Local.ABSOLUTE if self.path.startswith("/") else Local.RELATIVE
        return Local.ABSOLUTE if self.scheme is Scheme.GIT_FILE else None

    def pinned(self, pin: str | None) -> str:
        """The URL with `pin` merged: a commit becomes `rev`, anything else `ref`.

        Only one branch or tag and one commit can hold: a pin that contradicts the reference is refused. A forge takes no
        branch beside a commit, so there a commit displaces it; git keeps it, because that is where it finds the commit.
        """
        if pin is None:
            return self.url
        _check_pin(self, pin)
        if _COMMIT.fullmatch(pin):
            return self._pinned_to_commit(pin.lower())
        return self._pinned_to_ref(pin)

    def input_url(self, pin: str | None) -> str:
        """The URL of the flake input: pinned, and `nixpkgs` spelt out, which would else depend on a machine's registry."""
        url = self.pinned(pin)
        if self.scheme is Scheme.FLAKE and self.path.partition("/")[0] == "nixpkgs":
            return NIXPKGS_REPOSITORY + url.removeprefix("flake:nixpkgs")
        return url

    def infer_name(self) -> str:
        """A package name for the reference: its attribute, folder or repository; else an error that asks for a name."""
        for candidate in self._name_candidates():
            if PACKAGE_NAME.fullmatch(candidate):
                return candidate
        raise _bad(self.text, "no package name can be read from it", hint="Give one with --name NAME.")

    def is_host_attribute(self, nixpkgs_url: str | None, pin: str | None) -> bool:
        """Whether this is an attribute of the host's own package set: no input, no lock.

        That is `nixpkgs#…`, and `github:NixOS/nixpkgs#…` where `nixpkgs_url`, the host's nixpkgs input, is that repository;
        in both cases without branch, commit, pin or parameter.
        """
        if self.attribute is None or pin is not None or self.query:
            return False
        if self.scheme is Scheme.FLAKE:
            return self.path == "nixpkgs"
        return self.url.lower() == NIXPKGS_REPOSITORY.lower() and _is_nixpkgs(nixpkgs_url)

    # -- helpers -------------------------------------------------------------------------------------------------

    def _parameter(self, name: str) -> str | None:
        return next((unquote(value) for key, value in self.query if key == name), None)

    def _segments(self) -> list[str]:
        """The parts of the path that name something, percent-decoded."""
        path = self.path
        if self.scheme in _WITH_AUTHORITY:
            path = path.removeprefix("//").partition("/")[2]
        return [part for part in unquote(path).split("/") if part not in ("", ".")]

    def _base_path(self) -> str:
        """The path without a branch, tag or commit in it."""
        parts = self.path.split("/")
        return "/".join(parts[: _REVISION_AFTER.get(self.scheme, len(parts))])

    def _revision_in_path(self) -> str | None:
        if self.scheme not in _REVISION_AFTER:
            return None
        return unquote("/".join(self.path.split("/")[_REVISION_AFTER[self.scheme] :])) or None

    def _pinned_to_commit(self, commit: str) -> str:
        if self.rev is not None:
            if self.rev.lower() == commit:
                return self.url
            raise _contradiction(self, commit, f"the commit {self.rev}")
        return self._at(ref=self.ref if self.scheme in _GITS else None, rev=commit)

    def _pinned_to_ref(self, ref: str) -> str:
        if self.rev is not None:
            raise _contradiction(self, ref, f"the commit {self.rev}")
        if self.ref is None:
            return self._at(ref=ref, rev=None)
        if self.ref == ref:
            return self.url
        raise _contradiction(self, ref, f"the branch or tag {self.ref}")

    def _at(self, *, ref: str | None, rev: str | None) -> str:
        """The URL with exactly this branch or tag and commit."""
        kept = [(key, value) for key, value in self.query if key not in ("ref", "rev")]
        path = self._base_path()
        if self.scheme is Scheme.FLAKE:  # nix ignores ?ref= and ?rev= of an indirect reference
            path = f"{path}/{rev or ref}"
        else:
            kept += [(key, value) for key, value in (("ref", ref), ("rev", rev)) if value is not None]
        query = "&".join(f"{key}={value}" for key, value in kept)
        return f"{self.scheme}:{path}?{query}" if query else f"{self.scheme}:{path}"

    def _name_candidates(self) -> list[str]:
        """Names to try, best first."""
        candidates = []
        if self.attribute is not None and (last := self.attribute.rpartition(".")[2]) != "default":
            candidates.append(last)
        elif folder := self._parameter("dir"):
            candidates.append(folder.rpartition("/")[2])
        if candidates:
            return candidates
        segments = self._segments()
        if self.scheme in _FORGES:
            return [unquote(self.path.split("/")[1]).removesuffix(".git")]
        if self.scheme is Scheme.FLAKE:
            return segments[:1]
        if self.scheme in _TARBALLS:
            return _tarball_names(segments)
        return [segments[-1].removesuffix(".git")]


NIXPKGS_REPOSITORY: Final = "github:NixOS/nixpkgs"
"""What `nixpkgs` means everywhere, as a URL."""

_FORGES: Final = frozenset({Scheme.GITHUB, Scheme.GITLAB, Scheme.SOURCEHUT})
_GITS: Final = frozenset({Scheme.GIT, Scheme.GIT_HTTP, Scheme.GIT_HTTPS, Scheme.GIT_SSH, Scheme.GIT_FILE})
_TARBALLS: Final = frozenset({Scheme.HTTP, Scheme.HTTPS})
_WITH_AUTHORITY: Final = _GITS | _TARBALLS
_REVISION_AFTER: Final[Mapping[Scheme, int]] = {**dict.fromkeys(_FORGES, 2), Scheme.FLAKE: 1}
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
_ARCHIVE_SUFFIX: Final = re.compile(r"\.(zip|tgz|tar(\.(gz|xz|bz2|zst))?)$", re.ASCII)
_CREDENTIALS: Final = re.compile(r"//\S*@")
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


def _bad(text: str, why: str, *, hint: str = "") -> InvalidRequest:
    shown = _shown(text)
    details = {"reference": shown, "reason": why}
    return InvalidRequest(f"“{shown}”: {why}", code=ErrorCode.BAD_REFERENCE, hint=hint, details=details)


def _shown(text: str) -> str:
    """The text for a message: on one line, of bounded length, without what might be a password."""
    hidden = _CREDENTIALS.sub("//…@", text)
    line = "".join(
        character if character.isprintable() else f"\\u{ord(character):04x}" for character in hidden[:_SHOWN]
    )
    return f"{line}…" if len(hidden) > _SHOWN else line


def _contradiction(reference: FlakeRef, pin: str, existing: str) -> InvalidRequest:
    why = f"the pin {pin} contradicts {existing} in the reference itself"
    return _bad(reference.text, why, hint="Give the revision once: as the pin, or in the reference.")


def _check_characters(text: str) -> None:
    """Length, alphabet and the signs that would mean something to a shell, to Nix or to an option parser."""
    if not text:
        raise _bad(text, "a reference can't be empty")
    if len(text) > MAX_REFERENCE_BYTES:
        raise _bad(text, f"a reference has at most {MAX_REFERENCE_BYTES} characters, this one has {len(text)}")
    if text.startswith("-"):
        raise _bad(text, "a reference can't start with “-”: that is how options look")
    if "^" in text:
        raise _bad(
            text, "outputs can't be chosen with “^”: a package is installed with the outputs that it declares itself"
        )
    if wrong := _OUTSIDE_GRAMMAR.search(text):
        raise _bad(text, f"{_named(wrong[0])} at position {wrong.start() + 1} can't stand in a reference")
    if text.count("#") > 1:
        raise _bad(text, f"only one “#” can stand in a reference; the second is at position {text.rindex('#') + 1}")
    if wrong := _BAD_ESCAPE.search(text):
        raise _bad(text, f"“%” at position {wrong.start() + 1} needs two hexadecimal digits behind it")
    _check_decoded(text)


def _check_decoded(text: str) -> None:
    """What percent signs hide obeys the same alphabet, and no component climbs out of its folder."""
    decoded = unquote(text, errors="replace")
    if "%" in decoded or (decoded != text and _OUTSIDE_GRAMMAR.search(decoded)):
        raise _bad(text, "a percent sign hides a character that can't stand in a reference")
    if decoded.count("#") + decoded.count("?") != text.count("#") + text.count("?"):
        raise _bad(text, "a percent sign hides a “#” or “?”")
    if ".." in re.split(r"[/?&=#:]", decoded):
        raise _bad(text, "“..” leads out of its folder")


def _named(character: str) -> str:
    """A character for a message: itself where it can be seen."""
    if character == " ":
        return "a space"
    return f"“{character}”" if character.isprintable() else f"the character U+{ord(character):04X}"


def _check_attribute(text: str, fragment: str) -> None:
    if not fragment:
        raise _bad(text, "an attribute is missing behind “#”")
    if not _ATTRIBUTE_PATH.fullmatch(fragment):
        raise _bad(
            text, f"“{fragment}” is no attribute path: names of letters, digits and _ + -, joined by single dots"
        )


def _split_scheme(text: str, before: str) -> tuple[Scheme, str]:
    """The scheme and what follows its colon; a bare name is an entry of the flake registry."""
    if match := _SCHEME.match(before):
        try:
            return Scheme(match[1]), before[match.end() :]
        except ValueError:
            raise _unknown_scheme(text, match[1]) from None
    if before.startswith((".", "/", "~")):
        hint = "Write path:./FOLDER for a folder of the repository, path:/FOLDER for another one."
        raise _bad(text, "a folder is written with “path:” before it", hint=hint)
    if not before:
        raise _bad(text, "what the attribute belongs to is missing before “#”", hint="Write nixpkgs#ATTRIBUTE.")
    return Scheme.FLAKE, before


def _unknown_scheme(text: str, name: str) -> InvalidRequest:
    known = ", ".join(scheme.value for scheme in Scheme)
    if name.lower() in {scheme.value for scheme in Scheme}:
        return _bad(text, f"“{name}:” is written in lower case", hint=f"Write {name.lower()}: instead.")
    hint = f"Write {_INSTEAD[name]} instead." if name in _INSTEAD else f"These can be used: {known}."
    return _bad(text, f"“{name}:” is no kind of source that can be used", hint=hint)


def _split_query(text: str, scheme: Scheme, query_text: str) -> tuple[tuple[str, str], ...]:
    """The parameters, each known to the scheme, given once and of its form."""
    checks = _parameters_of(scheme)
    found: dict[str, str] = {}
    for part in query_text.split("&"):
        key, equals, value = part.partition("=")
        if key not in checks:
            known = f"known are {', '.join(checks)}" if checks else "it knows none"
            raise _bad(text, f"“{key}” is no parameter of “{scheme}:”; {known}")
        if key in found:
            raise _bad(text, f"the parameter “{key}” is given twice")
        if not equals or not checks[key](unquote(value)):
            raise _bad(text, f"“{value}” is no value for the parameter “{key}”", hint=_PARAMETER_HINTS.get(key, ""))
        found[key] = value
    return tuple(found.items())


def _parameters_of(scheme: Scheme) -> Mapping[str, Callable[[str], bool]]:
    if scheme in _FORGES:
        return {"ref": _is_forge_ref, "rev": _is_commit, "dir": _is_folder, "host": _is_host}
    if scheme in _GITS:
        switches = dict.fromkeys(("submodules", "shallow", "allRefs"), _is_switch)
        return {"ref": _is_git_ref, "rev": _is_commit, "dir": _is_folder, **switches}
    if scheme in _TARBALLS:
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


def _is_commit(value: str) -> bool:
    return _COMMIT.fullmatch(value) is not None


def _is_folder(value: str) -> bool:
    return _FOLDER.fullmatch(value) is not None and not {".", ".."} & set(value.split("/"))


def _is_host(value: str) -> bool:
    return _HOST.fullmatch(value) is not None and ".." not in value


def _is_switch(value: str) -> bool:
    return _SWITCH.fullmatch(value) is not None


def _is_nar_hash(value: str) -> bool:
    return _NAR_HASH.fullmatch(value) is not None


def _check_path(reference: FlakeRef) -> None:
    """The part between scheme and query, by the rules of the scheme."""
    scheme = reference.scheme
    if scheme in _FORGES:
        _check_forge(reference)
    elif scheme is Scheme.GIT_FILE:
        _check_git_file(reference)
    elif scheme in _WITH_AUTHORITY:
        _check_address(reference)
    elif scheme is Scheme.PATH:
        _check_folder(reference)
    else:
        _check_indirect(reference)


def _check_forge(reference: FlakeRef) -> None:
    text, scheme = reference.text, reference.scheme
    owner, _, rest = reference.path.partition("/")
    repository = rest.partition("/")[0]
    if not _is_owner(scheme, unquote(owner)) or not _REPOSITORY.fullmatch(repository):
        raise _bad(text, f"behind “{scheme}:” comes OWNER/REPO", hint=f"For example {scheme}:{_EXAMPLES[scheme]}.")
    in_path = reference._revision_in_path()
    if in_path is None and rest.count("/"):
        raise _bad(text, "a branch, tag or commit is missing behind the last “/”")
    if in_path is not None and not _is_forge_ref(in_path):
        raise _bad(text, f"“{in_path}” is no branch, tag or commit", hint=_PARAMETER_HINTS["ref"])
    given = [
        value for value in (in_path, reference._parameter("ref"), reference._parameter("rev")) if value is not None
    ]
    if len(given) > 1:
        raise _bad(text, f"{' and '.join(given)} are given together: only one branch, tag or commit can hold")


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


def _check_address(reference: FlakeRef) -> None:
    text, scheme = reference.text, reference.scheme
    slashes, authority, path = reference.path[:2], *reference.path[2:].partition("/")[::2]
    user, at_sign, host = authority.rpartition("@")
    if at_sign and scheme is not Scheme.GIT_SSH:
        hint = "Credentials belong into the configuration of nix; a reference is committed for everybody to read."
        raise _bad(text, "a user name or password can't stand in a reference", hint=hint)
    if at_sign and not _USER.fullmatch(user):
        raise _bad(text, "before “@” comes a plain user name, without a password")
    if slashes != "//" or not _is_host(host):
        raise _bad(text, f"behind “{scheme}:” comes //HOST/PATH", hint="A host has letters, digits, dots and dashes.")
    _check_components(reference, path)


def _check_git_file(reference: FlakeRef) -> None:
    if not reference.path.startswith("///"):
        raise _bad(
            reference.text, "behind “git+file:” comes ///FOLDER", hint="Three slashes: git+file:///home/me/flake."
        )
    _check_components(reference, reference.path.removeprefix("///"))


def _check_folder(reference: FlakeRef) -> None:
    text, path = reference.text, reference.path
    if path.startswith("~"):
        raise _bad(text, "“~” is not expanded", hint="Write the folder in full: path:/home/USER/FOLDER.")
    if "%" in path:
        raise _bad(text, "“%” has different meanings in “path:” for different versions of nix")
    if not path.startswith(("./", "/")):
        hint = "Write path:./FOLDER for a folder of the repository, path:/FOLDER for another one."
        raise _bad(text, "behind “path:” comes ./FOLDER or /FOLDER", hint=hint)
    _check_components(reference, path.removeprefix(".").removeprefix("/"))


def _check_components(reference: FlakeRef, path: str) -> None:
    """A path in a URL or folder names something, without detours; one slash at its end is tolerated."""
    parts = unquote(path).removesuffix("/").split("/")
    if parts == [""]:
        raise _bad(reference.text, f"a path is missing behind “{reference.scheme}:”")
    if "" in parts or "." in parts:
        raise _bad(reference.text, "an empty or “.” component stands in the path")
    if wrong := next(
        (part for part in parts if ":" in part or ("@" in part and reference.scheme is Scheme.PATH)), None
    ):
        raise _bad(reference.text, f"“{wrong}” can't be a component of the path")


def _check_indirect(reference: FlakeRef) -> None:
    name, slash, revision = reference.path.partition("/")
    if not _INDIRECT_NAME.fullmatch(name):
        hint = "A package is looked up by name; a reference looks like github:OWNER/REPO or nixpkgs#ATTRIBUTE."
        raise _bad(reference.text, f"“{name}” is no name of a flake registry", hint=hint)
    if slash and not _is_indirect_ref(revision):
        raise _bad(reference.text, f"“{revision}” is no branch, tag or commit behind “{name}/”")


def _check_pin(reference: FlakeRef, pin: str) -> None:
    scheme = reference.scheme
    if scheme not in _FORGES | _GITS | {Scheme.FLAKE}:
        why = f"“{scheme}:” has no branches, tags or commits, so it takes no pin"
        raise _bad(reference.text, why, hint="Name another source, or leave the pin out.")
    fits = _is_forge_ref if scheme in _FORGES else _is_git_ref if scheme in _GITS else _is_indirect_ref
    if len(pin) > MAX_REFERENCE_BYTES or not fits(pin):
        raise _bad(pin, "a pin is a branch, a tag or a full commit id", hint=_PARAMETER_HINTS["ref"])


def _is_nixpkgs(nixpkgs_url: str | None) -> bool:
    """Whether a URL, which the user's own flake may spell as it likes, is the official repository at any revision."""
    if nixpkgs_url is None:
        return False
    try:
        reference = FlakeRef.parse(nixpkgs_url)
    except InvalidRequest:
        return False
    if reference.scheme is Scheme.FLAKE:
        return reference._base_path() == "nixpkgs"
    same = f"{reference.scheme}:{reference._base_path()}".lower() == NIXPKGS_REPOSITORY.lower()
    return same and all(key in ("ref", "rev") for key, _ in reference.query)


def _tarball_names(segments: list[str]) -> list[str]:
    """A forge's archive is named after what stands before `archive`; any other file after itself, then after its folders."""
    names = [_ARCHIVE_SUFFIX.sub("", segment) for segment in reversed(segments)]
    if "archive" in segments[1:]:
        above = [segment for segment in segments[: segments.index("archive")] if segment != "-"]
        return above[-1:] + names
    return names
