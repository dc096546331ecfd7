# SPDX-License-Identifier: GPL-3.0-or-later
"""The glixos registries: short lists of names, each a JSON document behind a URL, kept so that they work offline.

    {"schema": 1, "packages": {"NAME": {"flake": "REFERENCE", "description": "…"}}}

Keys that are not known are allowed. Each URL has a cache of its own. What can't be fetched, is too large or is no registry
never takes the place of what was good before: the last good list stays in use, and the reason is told.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from glixd import hashes
from glixd.api import PACKAGE_NAME
from glixd.backends.files import translating, write_durably
from glixd.errors import Failed
from glixd.log import get_logger
from glixd.protocol import MAX_REFERENCE_BYTES, ErrorCode
from glixd.settings import RegistrySettings, registry_problem
from glixd.values import dataclass

log = get_logger()

SCHEMA: Final = 1
MAX_BYTES: Final = 8 * 1024 * 1024
"""Bytes of the largest registry that is read."""
ARRIVE_WITHIN: Final = 30.0
"""Seconds for a registry to arrive whole, however slowly it comes."""
RETRY_AFTER: Final = 60.0
"""Seconds after a failure before a registry is asked again without being told to."""
DESCRIPTION: Final = 300
"""Characters of a description that are kept."""


class Listed(NamedTuple):
    """What a registry says of one name."""

    name: str
    flake: str
    description: str
    url: str
    """The registry that says so."""
    trusted: bool


@dataclass(frozen=True, slots=True)
class Source:
    """One registry that is asked."""

    url: str
    trusted: bool
    origin: str
    """`settings`, or `host` for the one that a manifest names."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What is known of one registry."""

    entries: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Name → reference and description."""
    fetched: float | None = None
    """When the entries came, in seconds of the epoch."""
    checked: float | None = None
    """When it was last asked, whatever it said."""
    problem: str | None = None
    """Why the last asking gave nothing new that is good."""


@dataclass(frozen=True, slots=True)
class _Card:
    """What is kept beside the document of a registry."""

    url: str
    digest: str | None = None
    etag: str | None = None
    fetched: float | None = None
    checked: float | None = None
    problem: str | None = None


class Registries:
    """Every registry, with its cache. Safe from any thread."""

    def __init__(
        self,
        folder: Path,
        configured: Sequence[RegistrySettings],
        environment: Mapping[str, str],
        *,
        age: float,
        allow_files: bool,
        arrive_within: float = ARRIVE_WITHIN,
    ) -> None:
        self._folder = folder
        self._configured = tuple(Source(one.url, one.trust == "trusted", "settings") for one in configured)
        self._environment = dict(environment)
        self._age = age
        self._allow_files = allow_files
        self._arrive_within = arrive_within
        self._guards: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._parsed: dict[str, tuple[_Card, Listing]] = {}

    def sources(self, host_url: str | None) -> tuple[Source, ...]:
        """The registries in the order in which they are asked: the administrator's, then the one of a host."""
        known = {source.url for source in self._configured}
        own = (Source(host_url, trusted=False, origin="host"),) if host_url and host_url not in known else ()
        return self._configured + own

    def find(self, name: str, host_url: str | None) -> Listed | None:
        """What the first registry that knows the name says. A registry that was never asked is asked now."""
        for source in self.sources(host_url):
            found = self.listing(source, ask_first=True).entries.get(name)
            if found:
                return Listed(name, *found, source.url, source.trusted)
        return None

    def names(self, host_url: str | None) -> list[str]:
        """Every name that a registry knows, without asking one."""
        return [one.name for one in self.entries(host_url)]

    def entries(self, host_url: str | None) -> Iterator[Listed]:
        """What the registries say of each name they know, without asking one; the first that knows a name counts."""
        seen: set[str] = set()
        for source in self.sources(host_url):
            for name, (flake, description) in self.listing(source).entries.items():
                if name not in seen:
                    seen.add(name)
                    yield Listed(name, flake, description, source.url, source.trusted)

    def listing(self, source: Source, *, ask_first: bool = False) -> Listing:
        """What is known of a registry; with `ask_first`, one that was never heard of is asked."""
        card, listing = self._read(source.url)
        waits = card.problem and time.time() - (card.checked or 0) < RETRY_AFTER
        if not ask_first or card.digest or waits:
            return listing
        return self.refresh(source)

    def refresh(self, source: Source, *, since: float | None = None) -> Listing:
        """Ask a registry for what is new; whatever goes wrong is told in the listing.

        An answer that it gave `since` then will do, by default since now: who waited while it was asked for somebody else
        takes that answer, so many callers at once are one question more.
        """
        began = time.time() if since is None else since
        with self._one_at_a_time(source.url):
            card, listing = self._read(source.url)
            now = time.time()
            if card.checked is not None and began <= card.checked <= now:
                return listing
            try:
                body, etag = self._fetch(source.url, card.etag if card.digest else None)
                if body is None:
                    card = replace(card, checked=now, problem=None)
                else:
                    parse(body)
                    self._store(source.url, body)
                    digest = hashes.sha256(body)
                    card = _Card(source.url, digest, etag, now, now)
            except (Failed, ValueError, OSError) as error:
                problem = _reason(error)
                log.warning("a registry could not be refreshed", url=source.url, reason=problem)
                card = replace(card, checked=now, problem=problem)
            self._write(card)
        return self._read(source.url)[1]

    def refresh_stale(self, host_url: str | None) -> None:
        """Ask every registry that was not asked for long."""
        for source in self.sources(host_url):
            card, _ = self._read(source.url)
            patience = RETRY_AFTER if card.problem else self._age
            if card.checked is None or not 0 <= time.time() - card.checked < patience:
                self.refresh(source)

    def close(self) -> None:
        """Wait for no answer any more."""
        self._stop.set()

    # -- the cache -----------------------------------------------------------------------------------------------

    @contextmanager
    def _one_at_a_time(self, url: str) -> Iterator[None]:
        with self._guard:
            guard = self._guards.setdefault(url, threading.Lock())
        with guard:
            yield

    def _read(self, url: str) -> tuple[_Card, Listing]:
        """The card of a registry and its entries; a cache that does not fit together is as good as none."""
        card = self._card(url)
        known = self._parsed.get(url)
        if known and known[0] == card:
            return known
        entries: Mapping[str, tuple[str, str]] = {}
        if card.digest:
            try:
                body = self._path(url, "json").read_bytes()
                entries = parse(body) if hashes.sha256(body) == card.digest else {}
            except (OSError, ValueError):
                entries = {}
            if not entries:
                card = replace(card, digest=None, etag=None)
        found = (card, Listing(entries, card.fetched if card.digest else None, card.checked, card.problem))
        self._parsed[url] = found
        return found

    def _card(self, url: str) -> _Card:
        try:
            card = _Card(**json.loads(self._path(url, "card").read_bytes()))
        except (OSError, ValueError, TypeError):
            return _Card(url)
        return card if card.url == url else _Card(url)

    def _store(self, url: str, body: bytes) -> None:
        with translating(self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._replace(self._path(url, "json"), body)

    def _write(self, card: _Card) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._replace(self._path(card.url, "card"), json.dumps(asdict(card)).encode())
        except OSError as error:
            log.warning("what a registry said can't be kept", url=card.url, reason=str(error))
            self._parsed[card.url] = (card, Listing(checked=card.checked, problem=card.problem))

    def _replace(self, path: Path, data: bytes) -> None:
        new = path.with_suffix(path.suffix + ".new")
        write_durably(new, data, 0o600)
        new.replace(path)

    def _path(self, url: str, suffix: str) -> Path:
        return self._folder / f"{hashes.sha256(url.encode())}.{suffix}"

    # -- the world -----------------------------------------------------------------------------------------------

    def _fetch(self, url: str, etag: str | None) -> tuple[bytes | None, str | None]:
        """The document behind a URL and its tag; no document when the tag still holds. Raises what keeps it away."""
        problem = registry_problem(url, allow_files=self._allow_files)
        if problem:
            raise Failed(problem, code=ErrorCode.UNSUPPORTED_HERE)
        if urlsplit(url).scheme == "file":
            with open(unquote(urlsplit(url).path), "rb") as file:
                body = file.read(MAX_BYTES + 1)
            if len(body) > MAX_BYTES:
                raise Failed(f"it is larger than {MAX_BYTES // 1024 // 1024} MiB", code=ErrorCode.TOO_LARGE)
            return body, None
        from glixd.backends.download import fetch

        return fetch(url, etag, self._environment, self._stop, most=MAX_BYTES, within=self._arrive_within)


def parse(body: bytes) -> dict[str, tuple[str, str]]:
    """The entries of a registry; raises ValueError that says why it is none. Single entries that make no sense are left out."""
    try:
        document = json.loads(body, object_pairs_hook=_without_twins)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is no UTF-8 text") from None
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    if type(document.get("schema")) is not int or document["schema"] != SCHEMA:
        raise ValueError(f"its schema is {str(document.get('schema'))[:40]!a}, and glixd understands {SCHEMA}")
    packages = document.get("packages")
    if not isinstance(packages, dict):
        raise ValueError("it has no table of packages")
    return {name: entry for name, value in packages.items() if (entry := _entry(name, value))}


def _entry(name: str, value: Any) -> tuple[str, str] | None:
    if not PACKAGE_NAME.fullmatch(name) or not isinstance(value, dict):
        return None
    flake, description = value.get("flake"), value.get("description", "")
    if not isinstance(flake, str) or not 0 < len(flake) <= MAX_REFERENCE_BYTES or not flake.isprintable():
        return None
    text = " ".join(description.split())[:DESCRIPTION] if isinstance(description, str) else ""
    return flake, text


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it says a key twice")
    return found


def _reason(error: Exception) -> str:
    """One line about what went wrong."""
    match error:
        case Failed():
            return error.message
        case json.JSONDecodeError():
            return f"it is no JSON: {error.msg} (line {error.lineno})"
        case OSError():
            return f"it can't be read: {error.strerror or error}"
        case _:
            return str(error)
