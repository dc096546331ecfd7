# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to the web: one small document, over http or https, within a time and a size.

Loaded when something is fetched: what it needs of the standard library would cost every start of the daemon.
"""

from __future__ import annotations

import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import urlsplit

from glixd.errors import Failed
from glixd.protocol import VERSION, ErrorCode
from glixd.settings import registry_problem

ANSWER_WITHIN: Final = 10.0
"""Seconds for each step of a connection."""
JOIN: Final = 0.1
"""Seconds between two looks whether the daemon is to end."""
REDIRECTS: Final = 5

Document = tuple[bytes | None, str | None]
"""What stands behind a URL and its tag; no bytes when the tag that was known still holds."""


def fetch(
    url: str, etag: str | None, environment: Mapping[str, str], stop: threading.Event, *, most: int, within: float
) -> Document:
    """The document behind a URL; raises Failed with one line about what keeps it away.

    `environment` has the proxies and certificates; `most` is in bytes, `within` in seconds; `stop` ends the waiting.
    """
    try:
        return _bounded(within, stop, lambda: _download(url, etag, environment, most, within))
    except HTTPException as error:
        raise Failed(f"it does not speak HTTP: {error!r}"[:200]) from None
    except OSError as error:
        raise Failed(_reason(error)) from None


def _download(url: str, etag: str | None, environment: Mapping[str, str], most: int, seconds: float) -> Document:
    deadline = time.monotonic() + seconds
    headers = {"User-Agent": f"glixd/{VERSION}", "Accept": "application/json"}
    if etag:
        headers["If-None-Match"] = etag
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - registry_problem allows http and https only
    try:
        with _opener(url, environment).open(request, timeout=min(ANSWER_WITHIN, seconds)) as response:
            body = bytearray()
            while block := response.read1(65536):
                body += block
                if len(body) > most:
                    raise Failed(f"it is larger than {most // 1024 // 1024} MiB", code=ErrorCode.TOO_LARGE)
                if time.monotonic() > deadline:
                    raise TimeoutError
            return bytes(body), response.headers.get("ETag")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 304 and etag:
            return None, etag
        if 300 <= error.code < 400:
            raise Failed(f"it answers {error.code}, and where that leads is not followed") from None
        raise Failed(f"it answers {error.code}") from None


def _opener(url: str, environment: Mapping[str, str]) -> urllib.request.OpenerDirector:
    """What follows http and https alone, with the proxies and certificates of our children's environment."""
    variables = {name.lower(): value for name, value in environment.items()}
    proxies = {scheme: proxy for scheme in ("http", "https") if (proxy := variables.get(f"{scheme}_proxy"))}
    direct = {"no": variables.get("no_proxy", "")}
    bypass = urllib.request.proxy_bypass_environment(urlsplit(url).netloc, direct)  # type: ignore[attr-defined]
    context = ssl.create_default_context(cafile=environment.get("NIX_SSL_CERT_FILE") or None)
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if bypass else proxies),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=context),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirections, and none from https to anything else."""

    max_redirections = REDIRECTS

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The request that follows; raises when it would leave https, or what a registry may be."""
        if registry_problem(newurl, allow_files=False) or (req.type == "https" and urlsplit(newurl).scheme != "https"):
            fp.close()
            raise Failed(f"it redirects to {newurl[:200]!a}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _bounded(seconds: float, stop: threading.Event, work: Callable[[], Document]) -> Document:
    """The result of `work`, which is left behind when it takes longer: a server may send a header a byte at a time."""
    results: list[Document] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run, name="registry", daemon=True)
    thread.start()
    deadline = time.monotonic() + seconds
    while thread.is_alive() and not stop.is_set() and time.monotonic() < deadline:
        thread.join(JOIN)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError
    return results[0]


def _reason(error: OSError) -> str:
    match error:
        case TimeoutError():
            return "it does not answer in time"
        case urllib.error.URLError():
            return _reason(error.reason) if isinstance(error.reason, OSError) else str(error.reason)[:200]
        case _:
            return f"it can't be reached: {error.strerror or error}"
