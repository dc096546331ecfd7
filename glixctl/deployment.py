# SPDX-License-Identifier: GPL-3.0-or-later
"""Other machines are switched: their systems are built one after the other, then as many machines as allowed at once.

The daemon builds. What touches the other machines is done here, by the person who calls: the daemon has no keys to them. One
machine that fails keeps no other from being switched, and those that are switched stay so.
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from glixctl import output
from glixctl.errors import ClientError, Unreachable, UsageError
from glixctl.machine import Machine, parse_address, ssh_environment
from glixctl.programs import Programs
from glixctl.switching import Switching
from glixd.protocol import Activation, ErrorCode, Exit, State

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future
    from typing import Any

    from glixctl.switching import Wanted

    Remember = Callable[[str, int], None]
    """Lets the daemon tag what a transaction built, as the generation that it became."""
    Build = Callable[[str, str], Mapping[str, Any]]
    """Builds a host with an action of a rebuild: the transaction, once it has ended."""

HEADER = ("HOST", "MACHINE", "RESULT", "GENERATION", "COMMIT")


class Row:
    """One machine, and what became of it."""

    def __init__(self, host: str, target: str) -> None:
        self.host = host
        self.target = target
        self.facts: dict[str, Any] = {"state": "failed"}
        self.error: ClientError | None = None

    def fail(self, error: ClientError) -> None:
        """It is not as it should be."""
        self.error = error
        self.facts["state"] = "cancelled" if error.name == ErrorCode.CANCELLED else "failed"

    @property
    def exit_code(self) -> int:
        """What glixctl would end with if this machine were the only one."""
        if self.error is not None:
            return self.error.exit_code
        match self.facts.get("activation"):
            case Activation.UNITS_FAILED:
                return Exit.UNITS_FAILED
            case Activation.REBOOT_NEEDED:
                return Exit.REBOOT_NEEDED
        return Exit.DONE

    def document(self) -> dict[str, Any]:
        """What `--json` prints of it."""
        error = self.error.document() if self.error else {}
        facts = {name: value for name, value in self.facts.items() if value is not None}
        return {"host": self.host, "target": self.target, **facts, **error}

    def cells(self) -> tuple[str, ...]:
        """Its line of the table."""
        generation = self.facts.get("generation") or self.facts.get("restored") or ""
        return self.host, self.target, self._result(), str(generation), output.short(self.facts.get("commit"))

    def _result(self) -> str:
        said = str(self.facts["state"])
        if self.error is not None:
            return f"{said}: {self.error.message.splitlines()[0].rstrip(':.')}"
        match self.facts.get("activation"):
            case Activation.UNITS_FAILED:
                return f"{said}; failed: {', '.join(self.facts['failed_units']) or 'some units'}"
            case Activation.REBOOT_NEEDED:
                return f"{said}; needs a reboot"
        return said


def targets(texts: Sequence[str], host: str | None) -> list[Row]:
    """The machines that the flags name, as HOST=ADDRESS or, beside --host, as ADDRESS; raises UsageError."""
    rows = []
    for text in texts:
        name, equals, where = text.partition("=")
        if not equals:
            name, where = host or "", text
        if not name:
            raise UsageError(f"{text} names no host of the repository.", f"Write --host HOST, or HOST={text}.")
        rows.append(Row(name, parse_address(where)))
    for kind, values in (("host", [row.host for row in rows]), ("machine", [row.target for row in rows])):
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise UsageError(f"The {kind} {twice} is named twice.", "Write HOST=ADDRESS for each machine.")
    return rows


class Deployment:
    """Several machines, from the build to the table."""

    def __init__(self, wanted: Wanted, rows: Sequence[Row], environment: Mapping[str, str], *, quiet: bool) -> None:
        self._wanted = wanted
        self._rows = rows
        self._quiet = quiet
        self._environment = environment
        self._programs = Programs(ssh_environment(environment))
        self._writing = threading.Lock()

    def run(self, build: Build, remember: Remember) -> None:
        """Build all, then switch all that were built, and have their generations tagged; each row knows its end."""
        for row in self._rows:
            self._build(row, build)
        built = [row for row in self._rows if row.error is None]
        with ThreadPoolExecutor(max_workers=self._wanted.parallel) as pool:
            self._await({pool.submit(self._switch, row) for row in built})
        for row in built:
            if generation := row.facts.get("generation"):
                _remember(row, generation, remember)

    def report(self, *, documents: bool) -> int:
        """Print the table, and what is to be said about those that failed; the exit code for all of them."""
        if documents:
            output.document({"hosts": [row.document() for row in self._rows]})
        elif not self._quiet:
            for row in self._rows:
                for command in row.facts.get("commands") or ():
                    output.line(f"{row.host}: {output.escape(command)}")
            output.print_table(HEADER, [row.cells() for row in self._rows])
        for row in self._rows:
            if row.error is not None:
                row.error.message = f"{row.host}: {row.error.message}"
                output.failure(row.error)
        return exit_code(self._rows)

    def _build(self, row: Row, build: Build) -> None:
        try:
            transaction = build(row.host, "dry-build" if self._wanted.build_host else "build")
        except Unreachable:
            raise  # no host can be built
        except ClientError as error:
            row.fail(error)
            return
        rebuilt = (transaction.get("outcome") or {}).get("rebuild")
        if transaction.get("state") != State.SUCCEEDED or not rebuilt:
            row.fail(ClientError.from_wire(transaction.get("error") or {}))
            return
        row.facts |= {name: rebuilt[name] for name in ("commit", "path", "derivation") if rebuilt.get(name)}
        row.facts |= {"transaction": transaction["id"], "path": rebuilt.get("path") or rebuilt.get("output")}

    def _switch(self, row: Row) -> None:
        machines = [Machine(where, self._environment) for where in (row.target, self._wanted.build_host) if where]
        say = self._teller(row.host)
        try:
            builder = machines[1] if len(machines) > 1 else None
            Switching(machines[0], builder, self._wanted, row.facts, self._programs, say).run()
        except ClientError as error:
            row.fail(error)

    def _await(self, pending: set[Future[None]]) -> None:
        """Wait for all; the first Ctrl-C ends what is not being switched yet."""
        interrupted = False
        while pending:
            try:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for one in done:
                    one.result()
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                self._programs.stop()
                output.note("interrupted; a machine that is being switched already is waited for")

    def _teller(self, host: str) -> Callable[[str], None]:
        def say(text: str) -> None:
            if not self._quiet:
                with self._writing:
                    output.say(sys.stderr, f"{host}: {output.escape(text)}")

        return say


def _remember(row: Row, generation: int, remember: Remember) -> None:
    """Have a generation tagged; that it could not be is no failure of the switch."""
    try:
        remember(row.facts["transaction"], generation)
    except ClientError as error:
        output.warning(f"{row.host}: generation {generation} has no tag in the repository: {error.message}")


def exit_code(rows: Sequence[Row]) -> int:
    """The exit code of all: of the failures where there are any, units that failed before a reboot that is needed."""
    failures = {row.exit_code for row in rows if row.error is not None}
    if failures:
        return failures.pop() if len(failures) == 1 else Exit.FAILED
    codes = {row.exit_code for row in rows}
    return next((code for code in (Exit.UNITS_FAILED, Exit.REBOOT_NEEDED) if code in codes), Exit.DONE)
