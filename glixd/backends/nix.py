# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to nix: lock in a folder, look a reference up, evaluate. Answers are values; what nix says is cleaned.

Written for nix 2.8 to 2.34; nothing asks for a version. The caller's configuration does not count: no user files, no
`accept-flake-config`, no import from derivation while something is only looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from glixd.api import Consent
from glixd.backends.index import Entry, Found
from glixd.backends.process import UNLIMITED, Cancellation, Completed, Processes
from glixd.errors import Failed
from glixd.model.nixtext import nix_string
from glixd.protocol import ErrorCode

FEATURES: Final = ("--extra-experimental-features", "nix-command flakes")
GUARDED: Final = ("--option", "accept-flake-config", "false", "--option", "allow-import-from-derivation", "false")
TIMEOUT: Final = 1800.0
"""Seconds after which a nix that only locks or evaluates is given up."""
INDEX_MEMORY: Final = 256 * 1024 * 1024
"""Bytes of heap for an evaluation in the background."""
ADDRESS_SPACE: Final = 8
"""Bytes of address space for each byte of heap: stacks, libraries and the store's database are mapped too."""
INDEX_DEPTH: Final = 4
"""Parts of the longest attribute path that is looked at."""

# What nixpkgs says of a package, and what it is by its licence and vulnerabilities where an older one does not say.
_MARKS_OF: Final = """
    or_ = default: value:
      let tried = builtins.tryEval (builtins.deepSeq value value); in if tried.success then tried.value else default;
    unfree = licence:
      if builtins.isAttrs licence then !(licence.free or true)
      else if builtins.isList licence then builtins.any unfree licence
      else false;
    marks = package:
      {
        unfree = or_ false (package.meta.unfree or (unfree (package.meta.license or [ ])));
        insecure = or_ false (package.meta.insecure or (package.meta.knownVulnerabilities or [ ] != [ ]));
        broken = or_ false (package.meta.broken or false);
      };
"""
_LOOK_AT: Final = (
    "let root = flake.inputs.nixpkgs.legacyPackages.${@SYSTEM@};"
    + _MARKS_OF
    + """
    text = value: if builtins.isString value then builtins.unsafeDiscardStringContext value else "";
    parsed = package: builtins.parseDrvName (text (package.name or ""));
    package = value: marks value // {
      name = or_ "" (text (value.pname or (parsed value).name));
      version = or_ "" (text (value.version or (parsed value).version));
      description = or_ "" (builtins.substring 0 300 (text (value.meta.description or "")));
    };
    entry = value:
      if !builtins.isAttrs value then null
      else if (value.type or null) == "derivation" then package value
      else if (value.recurseForDerivations or false) == true then { names = builtins.attrNames value; }
      else null;
    at = builtins.foldl' (set: name: set.${name}) root;
    one = set: name: or_ null (entry set.${name});
    look = { path, names }: let set = at path; in map (one set) names;
    in map look (builtins.fromJSON @ASKED@)"""
)

PROBE_TIMEOUT: Final = 60.0

_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
_NOISE: Final = re.compile(
    r"^\s*(\(use '--show-trace'|GC Warning:|warning: |evaluating |copying |fetching |unpacking )"
)


_CONTRIBUTION: Final = """\
let
  input = flake.inputs.${{{input}}};
  path = {path};
  at = builtins.foldl' (set: name: if builtins.isAttrs set then set.${{name}} or null else null) input;
  text = value: let tried = builtins.tryEval (if builtins.isString value then value else null); in
    if tried.success then tried.value else null;
  about = value: {{
    kind = "package"; description = text (value.meta.description or null); version = text (value.version or null);
  }};
  module = {{ kind = {kind}; description = null; version = null; }};
  first = candidates: let found = builtins.filter (value: value != null) (map at candidates); in
    if found == [ ] then {{ kind = null; description = null; version = null; }} else about (builtins.head found);
  modules = builtins.filter (set: at [ set "default" ] != null) {sets};
in
if path == [ ] then (if modules != [ ] then module else first [ [ "packages" {system} "default" ] ])
else if builtins.elem (builtins.head path) {sets} then module
else first [ ([ "packages" {system} ] ++ path) ([ "legacyPackages" {system} ] ++ path) path ]
"""
"""What importManifest would make of a package: a module of its scope before a package."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """A package of a manifest, to ask what it is."""

    input: str | None
    """None for an attribute of the host's own nixpkgs."""
    attribute: str | None
    system: str
    scope: str


@dataclass(frozen=True, slots=True)
class Marked:
    """What a package of a host's package set is marked as."""

    marks: tuple[Consent, ...]
    own: bool
    """Whether only an overlay of the host has it, so that it may change with any file of the repository."""


class Nix:
    """The nix program with an environment of ours."""

    def __init__(self, processes: Processes, repository: Path) -> None:
        self._processes = processes
        self._repository = repository

    def lock(self, folder: Path, *, cancellation: Cancellation | None = None) -> None:
        """Write `flake.lock` beside the `flake.nix` in `folder`; raises LockFailed with nix's own words."""
        done = self._nix("flake", "lock", f"path:{quote(str(folder))}", cwd=folder, cancellation=cancellation)
        if done.status:
            raise Failed(
                f"The inputs could not be locked: {_words(done, folder)}",
                code=ErrorCode.LOCK_FAILED,
                hint="Check the reference and the network; nothing was changed.",
            )

    def version(self) -> str:
        """What nix calls itself; raises UnsupportedHere where there is none."""
        done = self._nix("--version")
        return done.stdout.decode(errors="replace").strip()

    @property
    def store(self) -> Path:
        """The folder of the store."""
        return Path(self._processes.environment.get("NIX_STORE_DIR", "/nix/store"))

    def probe_flakes(self, folder: Path) -> None:
        """Evaluate a flake that is made in `folder`; raises EvaluationFailed with nix's own words."""
        (folder / "flake.nix").write_text("{ outputs = _: { answer = 42; }; }\n")
        done = self._nix("eval", "--json", f"path:{quote(str(folder))}#answer", timeout=PROBE_TIMEOUT)
        if done.status or done.stdout.strip() != b"42":
            raise Failed(
                f"nix does not evaluate flakes here: {_words(done, folder)}",
                code=ErrorCode.EVALUATION_FAILED,
                hint="Run: nix --extra-experimental-features 'nix-command flakes' store ping",
            )

    def trusted_users(self) -> list[str]:
        """Whom nix lets do as root would; raises EvaluationFailed where it can't say."""
        for words in (("show-config", "--json"), ("config", "show", "--json")):  # the later name came with 2.19
            done = self._nix(*words, timeout=PROBE_TIMEOUT)
            if done.status == 0:
                return [str(user) for user in json.loads(done.stdout)["trusted-users"]["value"]]
        raise Failed(
            f"nix does not tell its configuration: {_words(done)}",
            code=ErrorCode.EVALUATION_FAILED,
            hint="Look at nix.conf: a line there may be no setting of this nix.",
        )

    def registry(self) -> dict[str, str]:
        """The flake registries of this machine: name → reference. Empty where nix has none or can't reach one."""
        done = self._nix("registry", "list")
        entries: dict[str, str] = {}
        for line in done.stdout.decode(errors="replace").splitlines():
            words = line.split()
            if len(words) == 3 and words[1].startswith("flake:"):
                entries.setdefault(words[1].removeprefix("flake:"), words[2])
        return entries

    def package_marks(
        self, commit: str, host: str, system: str, attribute: str, *, cancellation: Cancellation | None = None
    ) -> Marked | None:
        """What `attribute` is marked as; None unless it is a package of the host's nixpkgs, or of its set with overlays."""
        path = json_list(attribute.split("."))
        body = (
            "let at = builtins.foldl' (set: name: if builtins.isAttrs set then set.${name} or null else null); "
            f"path = {path}; "
            f"plain = at flake.inputs.nixpkgs.legacyPackages.${{{nix_string(system)}}} path; "
            f"own = at flake.nixosConfigurations.${{{nix_string(host)}}}.config._module.args.pkgs path; "
            'is = value: let tried = builtins.tryEval (builtins.isAttrs value && (value.type or null) == "derivation"); '
            "in tried.success && tried.value; "
            f"{_MARKS_OF} in if is plain then marks plain else if is own then marks own // {{ own = true; }} else null"
        )
        found = self._on_commit(commit, body, f"whether {attribute} is a package", cancellation)
        return Marked(_marks(found), bool(found.get("own"))) if isinstance(found, dict) else None

    def package_names(
        self, commit: str, system: str, *, cancellation: Cancellation | None = None, memory: int | None = None
    ) -> list[str]:
        """The names of the top level of the locked nixpkgs; with `memory`, as work for the background."""
        body = f"builtins.attrNames flake.inputs.nixpkgs.legacyPackages.${{{nix_string(system)}}}"
        found = self._on_commit(commit, body, "the names of nixpkgs", cancellation, memory=memory)
        return [str(name) for name in found] if isinstance(found, list) else []

    def look_at(
        self, commit: str, system: str, paths: Sequence[tuple[str, ...]], *, cancellation: Cancellation | None = None
    ) -> Found:
        """The packages at these attribute paths of the locked nixpkgs, and what is in the package sets among them.

        Work for the background, with little memory: raises EvaluationFailed where that does not do, or where an attribute
        fails in a way that Nix can't catch; then fewer paths at once may do.
        """
        folders: dict[tuple[str, ...], list[str]] = {}
        for path in paths:
            folders.setdefault(path[:-1], []).append(path[-1])
        asked = json.dumps([{"path": folder, "names": names} for folder, names in folders.items()])
        body = _LOOK_AT.replace("@ASKED@", nix_string(asked)).replace("@SYSTEM@", nix_string(system))
        answers = self._on_commit(commit, body, "what nixpkgs has", cancellation, memory=INDEX_MEMORY)
        packages, below = [], []
        for (folder, names), values in zip(folders.items(), answers, strict=True):
            for name, value in zip(names, values, strict=True):
                match value:
                    case {"names": children}:
                        below += [(*folder, name, str(child)) for child in children]
                    case {"name": str()}:
                        packages.append(_listed((*folder, name), value))
        return Found(tuple(packages), tuple(path for path in below if len(path) <= INDEX_DEPTH))

    def refuses(self, commit: str, host: str, attribute: str, *, cancellation: Cancellation | None = None) -> bool:
        """Whether the host's package set, as it is configured, refuses a package that it has."""
        body = (
            "let at = builtins.foldl' (set: name: set.${name}); "
            f"pkgs = flake.nixosConfigurations.${{{nix_string(host)}}}.config._module.args.pkgs; "
            f"in !(builtins.tryEval (at pkgs {json_list(attribute.split('.'))}).drvPath).success"
        )
        return self._on_commit(commit, body, f"whether {attribute} may be used", cancellation) is True

    def core_features(self, commit: str, *, cancellation: Cancellation | None = None) -> list[str]:
        """What the locked core says that it understands; empty for a core that says nothing, such as glix's own."""
        body = "flake.inputs.glixos-core.lib.manifestFeatures or [ ]"
        found = self._on_commit(commit, body, "the features of the core", cancellation)
        return [str(name) for name in found] if isinstance(found, list) else []

    def contribution(self, commit: str, wanted: Contribution, *, timeout: float) -> dict[str, str | None]:
        """What a package of a manifest is: its `kind` (package, nixosModule or homeModule), `description` and `version`.

        All are None where the flake has no such thing. Raises EvaluationFailed or TimedOut.
        """
        source = "nixpkgs" if wanted.input is None else wanted.input
        body = _CONTRIBUTION.format(
            input=nix_string(source),
            system=nix_string(wanted.system),
            path=json_list(wanted.attribute.split(".") if wanted.attribute else []),
            sets=json_list(["nixosModules"] if wanted.scope == "system" else ["homeModules", "homeManagerModules"]),
            kind=nix_string("nixosModule" if wanted.scope == "system" else "homeModule"),
        )
        found = self._on_commit(commit, body, "what the package is", None, timeout=timeout)
        return {name: str(value) if value else None for name, value in found.items()}

    def evaluate_host(
        self, commit: str, host: str, *, cancellation: Cancellation | None = None, memory: int | None = None
    ) -> str:
        """Evaluate the whole system of a host at a commit; its derivation, or EvaluationFailed with nix's own words.

        With `memory`, it is work for the background.
        """
        attribute = f"nixosConfigurations.{nix_string(host)}.config.system.build.toplevel.drvPath"
        done = self._nix(
            *("eval", "--raw", "--", f"{self.url(commit)}#{attribute}"),
            guarded=True,
            cancellation=cancellation,
            memory=memory,
        )
        if done.status:
            raise Failed(
                f"{host} does not evaluate: {_words(done)}",
                code=ErrorCode.EVALUATION_FAILED,
                hint="The commit stays; fix the configuration, or remove the package that breaks it.",
                details={"host": host, "commit": commit},
            )
        return done.stdout.decode().strip()

    def url(self, commit: str) -> str:
        """The repository at exactly that commit, whatever its work tree shows."""
        return f"git+file://{quote(str(self._repository))}?rev={commit}"

    def system(self) -> str:
        """The system of this machine, such as x86_64-linux."""
        import platform

        return f"{platform.machine()}-linux"

    def _on_commit(
        self,
        commit: str,
        body: str,
        what: str,
        cancellation: Cancellation | None,
        *,
        timeout: float = TIMEOUT,
        memory: int | None = None,
    ) -> Any:
        expression = f"let flake = builtins.getFlake {nix_string(self.url(commit))}; in {body}"
        done = self._nix(
            "eval",
            "--json",
            "--expr",
            expression,
            guarded=True,
            cancellation=cancellation,
            timeout=timeout,
            memory=memory,
        )
        if done.status:
            raise Failed(f"nix can't say {what}: {_words(done)}", code=ErrorCode.EVALUATION_FAILED)
        return json.loads(done.stdout)

    def _nix(
        self,
        *words: str,
        cwd: Path | None = None,
        guarded: bool = False,
        cancellation: Cancellation | None = None,
        timeout: float = TIMEOUT,
        memory: int | None = None,
    ) -> Completed:
        """Run nix; with `memory`, in the background and with a heap of that size at most."""
        argv = ["nix", *FEATURES, *(GUARDED if guarded else GUARDED[:3]), *words]
        return self._processes.run(
            argv,
            cwd=cwd,
            timeout=timeout,
            cancellation=cancellation,
            environment=_small_heap(memory),
            memory=_address_space(memory),
        )


def _small_heap(size: int | None) -> dict[str, str]:
    """What keeps the garbage collector of nix to a heap of `size` bytes; it would start with a quarter of the machine's."""
    if size is None or size == UNLIMITED:
        return {}
    return {"GC_INITIAL_HEAP_SIZE": str(32 * 1024 * 1024), "GC_MAXIMUM_HEAP_SIZE": str(size)}


def _address_space(heap: int | None) -> int | None:
    return heap if heap is None or heap == UNLIMITED else heap * ADDRESS_SPACE


def _listed(path: Sequence[str], value: Mapping[str, Any]) -> Entry:
    description = " ".join(str(value.get("description", "")).split())
    return Entry(".".join(path), value["name"], str(value.get("version", "")), description, _marks(value))


def _marks(value: Mapping[str, Any]) -> tuple[Consent, ...]:
    return tuple(mark for mark in Consent if value.get(mark.value) is True)


def json_list(words: Sequence[str]) -> str:
    """A Nix list of strings."""
    return "[ " + " ".join(nix_string(word) for word in words) + " ]"


def _words(done: Completed, folder: Path | None = None) -> str:
    """What nix said, without colours, progress and our own scratch folder; the last lines carry the cause."""
    text = _ESCAPES.sub("", done.stderr.decode(errors="replace"))
    if folder is not None:
        text = text.replace(str(folder), ".")
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not _NOISE.match(line)]
    kept = lines[-20:] or [f"nix ended with status {done.status}"]
    return "\n".join(kept).removeprefix("error: ")[:4000]
