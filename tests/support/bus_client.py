# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to a daemon over D-Bus that is used like one to its socket."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Final, Self

from glixctl.bus import BusTransport
from glixctl.errors import ClientError
from tests.support.daemon import PATIENCE, Answer, RpcError

ONE_WAIT: Final = 20.0
"""Seconds for which one call of `Wait` waits."""


class BusClient:
    """One connection to the session bus of DBUS_SESSION_BUS_ADDRESS; for one thread."""

    def __init__(self) -> None:
        self._transport = BusTransport("user", PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; what was started goes on."""
        connection = self._transport._bus
        self._transport.close()
        connection._sock.close()  # the library leaves that to the end of its loop, which is over

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of an operation; raises RpcError."""
        try:
            return self._transport.request(method, parameters, lambda event: None)
        except ClientError as error:
            told = {"name": error.name, "hint": error.hint, "details": error.details}
            raise RpcError({"code": 0, "message": error.message, "data": told}) from error

    def wait(self, transaction: str) -> Answer:
        """The transaction, when it has ended."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                ended: Answer = self.call("Wait", transaction=transaction, timeout=ONE_WAIT)
            except RpcError as error:
                if error.name != "TimedOut" or time.monotonic() > deadline:
                    raise
            else:
                return ended

    def run(self, method: str, **parameters: Any) -> Answer:
        """The transaction of a mutation, when it has ended."""
        return self.wait(self.call(method, **parameters)["transaction"])
