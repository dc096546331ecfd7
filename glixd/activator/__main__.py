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

_PLACES: Final = """repository=/var/lib/glixd/repo results=/var/lib/glixd-activate wishes=/run/glixd-activate store=/nix/store
evaluator=/run/glixd/eval.sock profile=/nix/var/nix/profiles/system current=/run/current-system"""


def main() -> None:
    """Serve the connection on standard input."""
    config = _config()
    with socket.socket(fileno=os.dup(0)) as connection:
        connection.settimeout(30.0)
        try:
            if struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1] != config.uid:
                raise Refused("this socket is for the daemon")
            answer = {"result": _carry_out(parse(connection.makefile("rb").readline(LIMIT + 1)), config, connection)}
        except Refused as refused:
            answer = {"refused": {"code": refused.code, "message": f"The activator refuses: {refused}."}}
        except OSError as error:
            answer = {"refused": {"code": "ActivationFailed", "message": f"The activator can't go on: {error}."}}
        _tell(answer)
        _say(connection, answer)


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
        result = about | system.activate(order, config, lambda message: _say(connection, message))
        _write(file, result, config)
        return result


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


def _write(path: Path, value: dict[str, Any], config: argparse.Namespace) -> None:
    """Write a file for the daemon to read, so that it is there after a crash."""
    with path.with_suffix(".new").open("w") as file:
        json.dump(value, file)
        file.flush()
        _let_read(file.fileno(), config)
        os.fsync(file.fileno())
    path.with_suffix(".new").replace(path)
    system.sync(path)


def _let_read(descriptor: int, config: argparse.Namespace) -> None:
    os.fchown(descriptor, 0, config.gid)
    os.fchmod(descriptor, 0o640)


def _config() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="glixd-activate", description="Activate a built system for glixd.")
    given = tomllib.loads(file.read_text()) if (file := Path("/etc/glixd/config.toml")).exists() else {}
    for name, place in (word.split("=") for word in _PLACES.split()):
        parser.add_argument(f"--{name}", type=Path, default=Path(given.get(name, place)), help=place)
    host = socket.gethostname().partition(".")[0].lower()
    for name, word in {"peer": "glixd", "branch": "main", "host": host}.items():
        parser.add_argument(f"--{name}", default=given.get(name, word))
    parser.add_argument("--without-systemd", dest="systemd", action="store_false", help="switch without a unit")
    config = parser.parse_args()
    config.uid, config.gid = pwd.getpwnam(config.peer)[2:4]
    return config


if __name__ == "__main__":
    main()
