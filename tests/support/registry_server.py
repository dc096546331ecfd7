# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry behind HTTP on the loopback interface, which answers as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def document(packages: Mapping[str, str], **more: object) -> bytes:
    """A registry that lists names with their references."""
    entries = {name: {"flake": flake, "description": f"About {name}"} for name, flake in packages.items()}
    return json.dumps({"schema": 1, "packages": entries, **more}).encode()


@dataclass
class RegistryServer:
    """What is answered, and what was asked."""

    body: bytes = b""
    etag: str | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drips: bool = False
    """Whether the answer begins and never ends."""
    asked: list[dict[str, str]] = field(default_factory=list)
    """The headers of every request."""
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        self.asked.append({name.lower(): value for name, value in handler.headers.items()})
        known = self.etag is not None and handler.headers.get("If-None-Match") == self.etag
        handler.send_response(304 if known else self.status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        if self.etag:
            handler.send_header("ETag", self.etag)
        if not known:
            handler.send_header("Content-Length", str(len(self.body)))
        handler.end_headers()
        if self.drips:
            handler.wfile.write(self.body[:1])
            self.released.wait(60)
        elif not known:
            handler.wfile.write(self.body)


@contextmanager
def serving() -> Iterator[RegistryServer]:
    """A server that answers until the end of the block."""
    server = RegistryServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                server.answer(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Say nothing: the test knows what it asked."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_address[1]}/registry.json"
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            http.shutdown()
            thread.join()
