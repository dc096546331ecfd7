# SPDX-License-Identifier: GPL-3.0-or-later
"""A service on a bus that does nothing but answer, as quickly as it can: what is left of a flood's effect is the bus's own."""

from __future__ import annotations

import multiprocessing
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from glixd.backends import bus_header, bus_library
from glixd.backends.bus_header import Kind
from glixd.backends.bus_library import Message
from glixd.protocol import BUS_NAME
from tests.support.daemon import PATIENCE

_PLENTY = 1 << 20


@contextmanager
def bare_service(address: str) -> Iterator[None]:
    """Own the name of the daemon on the bus at `address`, and answer each call with nothing."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    service = context.Process(target=_serve, args=(address, theirs), daemon=True)
    service.start()
    try:
        assert ours.poll(PATIENCE)
        ours.recv()
        yield
    finally:
        service.kill()
        service.join()


def _serve(address: str, told: Connection) -> None:
    path = address.partition("=")[2].partition(",")[0]
    with socket.socket(socket.AF_UNIX) as bus:
        bus.connect("\0" + path if address.startswith("unix:abstract") else path)
        bus.sendall(b"\0AUTH EXTERNAL %b\r\n" % str(os.geteuid()).encode().hex().encode())
        assert bus.recv(_PLENTY).startswith(b"OK ")
        bus.sendall(b"BEGIN\r\n" + _to_the_bus("Hello", 1) + _to_the_bus("RequestName", 2, "su", BUS_NAME, 4))
        told.send("ready")
        kept = bytearray()
        while data := bus.recv(_PLENTY):
            kept += data
            answers = bytearray()
            while len(kept) >= bus_header.FIXED and len(kept) >= (size := sum(bus_header.sizes(kept))):
                call = bus_header.read(bytes(kept[:size]))
                del kept[:size]
                if call and call.kind == Kind.CALL:
                    answers += _nothing(call.serial, call.sender.encode())
            bus.sendall(answers)


def _to_the_bus(member: str, serial: int, signature: str = "", *body: object) -> bytes:
    name, path = "org.freedesktop.DBus", "/org/freedesktop/DBus"
    return bus_library.marshalled(
        Message(
            destination=name,
            path=path,
            interface=name,
            member=member,
            signature=signature,
            body=list(body),
            serial=serial,
        )
    )


def _nothing(serial: int, sender: bytes) -> bytes:
    """An answer without arguments to a call, spelt by hand: to make a Message takes longer than all the rest."""
    fields = struct.pack("<BBBBI", 5, 1, ord("u"), 0, serial)
    fields += struct.pack("<BBBBI", 6, 1, ord("s"), 0, len(sender)) + sender + b"\0"
    header = struct.pack("<BBBBIII", ord("l"), Kind.RETURN, 1, 1, 0, serial + 2, len(fields)) + fields
    return header + bytes(-len(header) % 8)
