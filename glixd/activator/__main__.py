# SPDX-License-Identifier: GPL-3.0-or-later
"""One connection, one order: check everything, ask polkit, switch, write down how it went.

The connection is standard input. The configuration is the command line and the file of settings, which are root's; of the
daemon nothing is believed.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pwd
import socket
import struct
import sys
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from glixd.activator import authority, system
from glixd.activator.order import LIMIT, Order, Refused, parse

ORDER_TIMEOUT: Final = 600.0
"""Seconds that an order may take to come: the daemon connects before it has one, so that this program is ready by then."""
SETTINGS: Final = Path("/etc/glixd/config.toml")
_USUAL: Final = """repository=/var/lib/glixd/repo results=/var/lib/glixd-activate wishes=/run/glixd-activate peer=glixd branch=main
store=/nix/store built=/var/lib/glixd-eval/built profile=/nix/var/nix/profiles/system current=/run/current-system"""


def main() -> None:
    """Serve the connection on standard input."""
    with socket.socket(fileno=os.dup(0)) as connection, suppress(TimeoutError):
        connection.settimeout(ORDER_TIMEOUT)
        config = _config()
        if not (line := connection.makefile("rb").readline(LIMIT + 1)):
            return
        connection.settimeout(30.0)
        try:
            peer = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
            if config.wrong or peer != config.uid:
                raise Refused(*config.wrong or ("this socket is for the daemon",))
            answer = {"result": _carry_out(parse(line), config, connection)}
        except (Refused, OSError) as error:
            code, words = getattr(error, "code", "ActivationFailed"), f"The activator refuses: {error}."
            answer = {"refused": {"code": code, "message": words}}
        _tell(answer)
        _say(connection, answer)
    sys.exit(bool(config.wrong))


def _carry_out(order: Order, config: argparse.Namespace, connection: socket.socket) -> dict[str, Any]:
    file = config.results / f"{order.transaction}.json"
    with (config.results / "lock").open("a") as lock:
        _let_read(lock.fileno(), config)
        fcntl.flock(lock, fcntl.LOCK_EX)  # one after the other; who gave up meanwhile does not say go
        uid = None
        if file.exists():
            uid = _may_go_back(order, json.loads(file.read_text()), system.current_generation(config))
            file = file.with_suffix(".back")
        system.check(order, config)
        about = order._asdict() | {"uid": _authorise(order, config, connection) if uid is None else uid}
        _say(connection, {"allowed": True})
        if connection.recv(3, socket.MSG_WAITALL) != b"go\n":
            raise Refused("the transaction was cancelled", "Cancelled")
        _tell(about)
        about |= {"previous": system.current_generation(config)}
        _write(file, about | {"status": "interrupted", "failed_units": [], "generation": None, "tail": []}, config)
        return _write(file, about | system.activate(order, config, lambda message: _say(connection, message)), config)


def _may_go_back(order: Order, earlier: dict[str, Any], now: int | None) -> int:
    """Whoever was allowed to switch may undo that when it failed, as long as nothing came after it, without a question."""
    back = order.generation is not None and (order.generation, order.caller) == (earlier["previous"], earlier["caller"])
    failed = earlier["status"] in ("failed", "interrupted") and now in (earlier["generation"], earlier["previous"])
    if not (back and failed):
        raise Refused("the transaction was carried out already", "Conflict")
    return int(earlier["uid"])


def _authorise(order: Order, config: argparse.Namespace, connection: socket.socket) -> int:
    subject, uid = authority.subject_of(order.caller)
    if uid == 0:
        authority.take_wish(config.wishes, order.transaction)
        if order.generation is None:
            system.compare(order, config)
        return uid
    if uid < 1000 or 61184 <= uid <= 65535:  # those of services, and nobody: none of them can log in
        raise Refused(f"uid {uid} is that of a service")
    details = {"action": order.action, "transaction": order.transaction, "host": config.host}
    if order.generation is None:
        changes, trusted = system.pending(order, config)
        action = "system-activate-trusted" if trusted else "system-activate"
        details |= {"commit": order.commit, "changes": changes, "contains_untrusted": "no" if trusted else "yes"}
    else:
        action = "system-rollback"
        details |= {"from": f"{system.current_generation(config)}", "to": f"{order.generation}"}
    authority.ask(action, subject, details, connection, may=order.interactive)
    return uid


def _say(connection: socket.socket, message: dict[str, Any]) -> None:
    with suppress(OSError):  # a switch may restart whoever listens, and goes on without
        connection.sendall(json.dumps(message).encode() + b"\n")


def _tell(message: dict[str, Any]) -> None:
    sys.stderr.write(f"<5>{json.dumps(message)}\n")  # to the journal, one line each


def _write(path: Path, value: dict[str, Any], config: argparse.Namespace) -> dict[str, Any]:
    """Write a value into a file for the daemon to read, so that it is there after a crash; the value."""
    with path.with_suffix(".new").open("w") as file:
        json.dump(value, file)
        file.flush()
        _let_read(file.fileno(), config)
        os.fsync(file.fileno())
    path.with_suffix(".new").replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    return value


def _let_read(descriptor: int, config: argparse.Namespace) -> None:
    os.fchown(descriptor, 0, config.gid)
    os.fchmod(descriptor, 0o640)


def _config() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="glixd-activate", description="Activate a built system for glixd.")
    usual = dict(word.split("=") for word in _USUAL.split()) | {"host": socket.gethostname().split(".")[0].lower()}
    given, wrong = usual, tuple[str, ...]()
    try:
        given = usual | (tomllib.loads(SETTINGS.read_text()) if SETTINGS.exists() else {})
    except (OSError, ValueError, RecursionError) as error:
        wrong = (f"{SETTINGS} has to be corrected: {error}", "ActivationFailed")
    for name, word in usual.items():
        parser.add_argument(f"--{name}", type=Path if word[:1] == "/" else str, default=f"{given[name]}", help=word)
    parser.add_argument("--without-systemd", dest="systemd", action="store_false", help="switch without a unit")
    config = parser.parse_args(namespace=argparse.Namespace(wrong=wrong))
    config.uid, config.gid = pwd.getpwnam(config.peer)[2:4]
    return config


if __name__ == "__main__":
    main()
