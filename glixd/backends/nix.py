# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to nix: lock in a folder, look a reference up, evaluate. Answers are values; what nix says is cleaned.

Written for nix 2.8 to 2.34; nothing asks for a version. The caller's configuration does not count: no user files, no
`accept-flake-config`, no import from derivation while something is only looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from glixd.api import Consent
from glixd.backends.evaluator import Evaluator, Files, OnLine
from glixd.backends.index import Entry, Found
from glixd.backends.process import UNLIMITED, Cancellation, Completed, Processes
from glixd.errors import Failed
from glixd.evaluator.jobs import FEATURES, UNTRUSTING, Job, Kind
from glixd.model.nixtext import nix_string
from glixd.protocol import ErrorCode
from glixd.values import dataclass

INDEX_MEMORY: Final = 256 * 1024 * 1024
"""Bytes of heap for an evaluation in the background."""
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
_EVENT: Final = b"@nix "
_MESSAGE: Final = b'@nix {"action":"msg"'
_STARTED_BUILDING: Final = re.compile(rb'"action":"start".*"type":105\b')

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


# The machine that a folder describes alone, and the host that it became, but for the mark of the commit that glixd leaves in
# every host; then the packages that the host's own files install and that are plain ones of its nixpkgs.
_TAKEN_OVER: Final = """
  folder = flake.outPath + "/hosts/" + @HOST@;
  host = flake.nixosConfigurations.${@HOST@};
  lib = flake.inputs.nixpkgs.lib;
  # The folder as it was sent, at a place of its own: what depends on its place, or on files of glixd, shows.
  sent = builtins.path {
    name = "source";
    path = /. + builtins.unsafeDiscardStringContext folder;
    filter = path: _: !builtins.elem path (map (name: builtins.unsafeDiscardStringContext folder + "/" + name) [ "default.nix" "glix.toml" ]);
  };
  written = import (sent + "/flake.nix");
  asks = (written.inputs or { }) // builtins.functionArgs written.outputs // { self = null; };
  own = written.outputs (builtins.intersectAttrs asks (flake.inputs // { self = own // { outPath = sent; }; }));
  machines = own.nixosConfigurations;
  alone =
    if builtins.pathExists (sent + "/flake.nix") then machines.${@HOST@} or (builtins.head (builtins.attrValues machines))
    else lib.nixosSystem {
      modules = [ (sent + "/configuration.nix") ({ lib, ... }: { nixpkgs.hostPlatform = lib.mkOverride 1250 @SYSTEM@; }) ];
    };
  unmarked = host.extendModules {
    modules = [ ({ lib, ... }: {
      system.configurationRevision = lib.mkForce alone.config.system.configurationRevision;
      environment.etc = lib.genAttrs [ "glixos-revision" "glixos-release" ] (_: { enable = lib.mkForce false; });
    }) ];
  };
  pkgs = host.config._module.args.pkgs;
  text = value: builtins.unsafeDiscardStringContext (toString value);
  mine = builtins.filter (found: lib.hasPrefix (text folder) (text found.file))
    (host.options.environment.systemPackages.definitionsWithLocations or [ ]);
  names = package:
    let
      name = package.pname or (builtins.parseDrvName package.name).name;
      plain = builtins.tryEval (builtins.isAttrs package && pkgs ? ${name} && pkgs.${name}.drvPath == package.drvPath);
    in
    if builtins.isAttrs package && plain.success && plain.value then [ name ] else [ ];
in {
  alone = text alone.config.system.build.toplevel.drvPath;
  taken = text unmarked.config.system.build.toplevel.drvPath;
  offers = builtins.concatMap (found: builtins.concatMap names found.value) mine;
}
"""


@dataclass(frozen=True, slots=True)
class Product:
    """What a derivation builds to, whether it is built or not."""

    path: Path
    derivation: str


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A folder that became a host, evaluated."""

    same: bool
    """Whether the host is the system that the folder describes alone."""
    offers: tuple[str, ...]
    """Packages of nixpkgs that its files install, and that its manifest could."""


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

    def __init__(self, processes: Processes, evaluator: Evaluator) -> None:
        self._processes = processes
        self._evaluator = evaluator

    def lock(self, files: Files, *, cancellation: Cancellation | None = None) -> str:
        """The flake.lock for these files, empty where there is nothing to lock; raises LockFailed with nix's own words."""
        done = self._evaluator.run(Job(Kind.LOCK), files, cancellation=cancellation)
        if done.status:
            raise Failed(
                f"The inputs could not be locked: {_words(done)}",
                code=ErrorCode.LOCK_FAILED,
                hint="Check the reference and the network; nothing was changed.",
            )
        with _as_expected(done, "what the lock is"):
            return done.stdout.decode()

    def prepare(self, commit: str) -> None:
        """Get ready to build a commit."""
        self._evaluator.prepare(commit)

    def stay_ready(self) -> None:
        """Get ready for whatever is evaluated or built next."""
        self._evaluator.stay_ready()

    def remove_left(self) -> None:
        """Remove what a daemon that was killed left; only while there is no other."""
        self._evaluator.remove_left()

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
        done = self._nix("eval", "--json", f"path:{quote(str(folder))}#answer")
        if done.status or done.stdout.strip() != b"42":
            raise Failed(
                f"nix does not evaluate flakes here: {_words(done).replace(str(folder), '.')}",
                code=ErrorCode.EVALUATION_FAILED,
                hint="Run: nix --extra-experimental-features 'nix-command flakes' store ping",
            )

    def trusted_users(self) -> list[str]:
        """Whom nix lets do as root would; raises EvaluationFailed where it can't say."""
        for words in (("show-config", "--json"), ("config", "show", "--json")):  # the later name came with 2.19
            done = self._nix(*words)
            if done.status == 0:
                with _as_expected(done, "its configuration"):
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
        job = Job(Kind.EVALUATE, commit, host, memory=_heap(memory), background=memory is not None)
        done = self._evaluator.run(job, cancellation=cancellation)
        if done.status:
            raise Failed(
                f"{host} does not evaluate: {_words(done)}",
                code=ErrorCode.EVALUATION_FAILED,
                hint="The commit stays; fix the configuration, or remove the package that breaks it.",
                details={"host": host, "commit": commit},
            )
        with _as_expected(done, f"what {host} evaluates to"):
            if not (derivation := done.stdout.decode().strip()):
                raise ValueError("it said nothing")
            return derivation

    def taken_over(self, commit: str, host: str, system: str, *, cancellation: Cancellation | None = None) -> TakenOver:
        """Evaluate a host that a folder became beside what the folder describes alone; raises EvaluationFailed."""
        body = "let" + _TAKEN_OVER.replace("@HOST@", nix_string(host)).replace("@SYSTEM@", nix_string(system))
        found = self._on_commit(commit, body, "what the folder describes", cancellation)
        return TakenOver(found["alone"] == found["taken"], tuple(dict.fromkeys(map(str, found["offers"]))))

    def build(
        self,
        commit: str,
        host: str,
        *,
        user: str = "",
        dry_run: bool = False,
        keep_going: bool = False,
        on_line: OnLine,
        cancellation: Cancellation,
    ) -> Product:
        """Build the system of a host at a commit, or with `user` that user's home on it.

        `on_line` hears every line of nix's internal-json. Raises EvaluationFailed, or BuildFailed where something was
        being built, with nix's own words. With `dry_run` nothing is built, and the path is what would be.
        """
        job = Job(Kind.BUILD, commit, host, user, dry_run=dry_run, keep_going=keep_going)
        story = _Story(on_line)
        done = self._evaluator.run(job, on_line=story.hear, cancellation=cancellation)
        if done.status == 0:
            with _as_expected(done, f"what it built of {host}"):
                (product,) = json.loads(done.stdout)
                return Product(Path(product["outputs"]["out"]), str(product["drvPath"]))
        what = f"the home of {user} on {host}" if user else host
        raise Failed(
            f"{what} {'does not build' if story.building else 'does not evaluate'}: {story.words}",
            code=ErrorCode.BUILD_FAILED if story.building else ErrorCode.EVALUATION_FAILED,
            hint="Fix the configuration, or remove the package that breaks it.",
            details={"host": host, "commit": commit},
        )

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
        timeout: float = 0.0,
        memory: int | None = None,
    ) -> Any:
        job = Job(
            Kind.EXPRESSION, commit, body=body, timeout=timeout, memory=_heap(memory), background=memory is not None
        )
        done = self._evaluator.run(job, cancellation=cancellation)
        if done.status:
            raise Failed(f"nix can't say {what}: {_words(done)}", code=ErrorCode.EVALUATION_FAILED)
        with _as_expected(done, what):
            return json.loads(done.stdout)

    def _nix(self, *words: str) -> Completed:
        """Run nix on nothing that others wrote."""
        return self._processes.run(["nix", *FEATURES, *UNTRUSTING, *words], timeout=PROBE_TIMEOUT)


class _Story:
    """What a build says about itself: whether it came as far as building, and its errors."""

    def __init__(self, on_line: OnLine) -> None:
        self._on_line = on_line
        self._errors: list[str] = []
        self.building = False

    def hear(self, line: bytes) -> None:
        """Take one line in, and pass it on."""
        if line.startswith(_EVENT):
            if _STARTED_BUILDING.search(line):
                self.building = True
            elif line.startswith(_MESSAGE):
                self._take_message(line)
        elif line.strip():
            self._errors.append(line.decode(errors="replace"))
        self._on_line(line)

    @property
    def words(self) -> str:
        """What went wrong, in nix's own words."""
        return _cleaned("\n".join(self._errors)) or "nix did not say why"

    def _take_message(self, line: bytes) -> None:
        try:
            event = json.loads(line[len(_EVENT) :])
        except ValueError:
            return
        if event.get("level") == 0:
            self._errors.append(str(event.get("msg", "")))


def _heap(memory: int | None) -> int:
    """Bytes of heap as a job has them; none where there is no limit."""
    return 0 if memory is None or memory == UNLIMITED else memory


def _listed(path: Sequence[str], value: Mapping[str, Any]) -> Entry:
    description = " ".join(str(value.get("description", "")).split())
    return Entry(".".join(path), value["name"], str(value.get("version", "")), description, _marks(value))


def _marks(value: Mapping[str, Any]) -> tuple[Consent, ...]:
    return tuple(mark for mark in Consent if value.get(mark.value) is True)


def json_list(words: Sequence[str]) -> str:
    """A Nix list of strings."""
    return "[ " + " ".join(nix_string(word) for word in words) + " ]"


@contextmanager
def _as_expected(done: Completed, what: str) -> Iterator[None]:
    """Turn an answer of another form into an error: a nix that says nonsense is not a defect of ours."""
    try:
        yield
    except (ValueError, LookupError, TypeError) as error:
        shown = ascii(done.stdout[:60].decode(errors="replace"))
        raise Failed(
            f"nix ended well and did not say {what}; it said {shown}.",
            code=ErrorCode.EVALUATION_FAILED,
            hint="Look at the nix that the daemon finds on its path.",
        ) from error


def _words(done: Completed) -> str:
    """What nix said; the last lines carry the cause."""
    return _cleaned(done.stderr.decode(errors="replace")) or f"nix ended with status {done.status}"


def _cleaned(text: str) -> str:
    """Without colours and progress."""
    text = _ESCAPES.sub("", text)
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not _NOISE.match(line)]
    return "\n".join(lines[-20:]).removeprefix("error: ")[:4000]
