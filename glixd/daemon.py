# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon: builds every object once, starts the front-ends, says when it is ready, and stops in order."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from systemd import daemon as systemd

from glixd import lean
from glixd import log as log_events
from glixd.actions import REGISTERED
from glixd.backends.activator import ActivatorDoor
from glixd.backends.bell import Bell
from glixd.backends.bundles import Bundles, Uploads
from glixd.backends.evaluator import ChildEvaluators, Evaluator, EvaluatorProgram, EvaluatorSocket, OwnEvaluator
from glixd.backends.index import Indexes
from glixd.backends.logs import Logs
from glixd.backends.nix import Nix
from glixd.backends.packs import Packs
from glixd.backends.process import Processes
from glixd.backends.profile import Profile
from glixd.backends.registry import Registries
from glixd.backends.repository import Repository
from glixd.backends.state import Database
from glixd.backends.store import Store
from glixd.culprit import Culprits
from glixd.doctor import Doctor, Patient, has_user
from glixd.drafting import Drafter
from glixd.engine import Engine
from glixd.errors import Failed, GlixError
from glixd.frontends.jsonrpc import JsonRpcServer
from glixd.frontends.limits import BusLimits, Limits
from glixd.frontends.unix_socket import listen
from glixd.frontends.wire import login
from glixd.garbage import Collector
from glixd.health import HealthKeeper
from glixd.housekeeping import Housekeeper
from glixd.indexing import Indexer
from glixd.locking import Locker
from glixd.log import get_logger
from glixd.model.plans import Plans
from glixd.parts import Parts
from glixd.policy import Authority, OwnerOnly
from glixd.protocol import BUS_NAME, COPIED_REVISION, SYSTEM_EXPORT, VERSION, ErrorCode
from glixd.queries import Queries
from glixd.queue import Queue
from glixd.rates import Rates
from glixd.rebuilding.activation import Activation
from glixd.rebuilding.listing import Generations
from glixd.rebuilding.rebuilder import Rebuilder
from glixd.rebuilding.systems import Systems
from glixd.requests.preparer import Preparer
from glixd.requests.tools import Tools, Unattended
from glixd.resolvers.asking import Facts
from glixd.search import Searcher
from glixd.settings import Mode, Settings, child_environment
from glixd.transaction import Transactor
from glixd.watchers import Watchers

if TYPE_CHECKING:
    from glixd.authority import PolkitAuthority
    from glixd.backends.bus import Bus, BusError
    from glixd.frontends.dbus import DBusFrontend

log = get_logger()

PATIENCE: Final = 20.0
"""Seconds that a running transaction has to end when the daemon is asked to stop."""
LISTEN_FDS_START: Final = 3
FOR_THE_BUS: Final = ("glixd.frontends.dbus", "glixd.authority")
"""What only a daemon on a bus needs: 12 of 220 ms."""


class Daemon:
    """One running daemon."""

    def __init__(self, settings: Settings, environment: dict[str, str]) -> None:
        self._settings = settings
        self._environment = environment
        self._stopping = asyncio.Event()
        self._active = time.monotonic()
        self._bus_problem: str | None = None
        self._examination: asyncio.Task[None] | None = None

    async def run(self, ready_fd: int | None) -> None:
        """Serve until asked to stop, or until there was nothing to do for long enough."""
        os.chdir("/")
        locks = [_take_lock(folder) for folder in self._lock_folders()]
        try:
            # who may do what is asked over the bus in system mode; a user's daemon answers on its socket before
            bus = await self._bus() if self._settings.mode is Mode.SYSTEM else None
            authority, judged = await self._authority(bus)
            engine, parts = self._build(authority, judged)
            try:
                await asyncio.to_thread(self._recover, engine, parts)
                await self._serve(engine, bus, ready_fd)
            finally:
                parts.repository.close()
                parts.database.close()
        finally:
            for lock in locks:
                os.close(lock)

    def _lock_folders(self) -> list[Path]:
        """Where the right to serve a repository is held: in its state, and in itself, whatever state somebody chose."""
        git = self._settings.repository / ".git"
        writable = git.is_dir() and os.access(git, os.W_OK)
        return [self._settings.state, *([git / "glix"] if writable else [])]

    def _build(self, authority: Authority, judged: Callable[[], str | None]) -> tuple[Engine, Parts]:
        settings = self._settings
        processes = Processes(child_environment(settings, self._environment))
        for folder in ("home", "cache"):
            (settings.state / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        database = Database(settings.state / "state.db")
        bell = Bell(settings.bell, Path(SYSTEM_EXPORT, COPIED_REVISION))

        def build_repository(root: Path) -> Repository:
            return Repository(root, processes, branch=settings.branch, bell=bell)

        repository = build_repository(Path(os.path.realpath(settings.repository)))

        def nix_of(repository: Repository) -> Nix:
            return Nix(processes, self._evaluator(processes, repository))

        nix = nix_of(repository)
        culprits = Culprits(repository, nix)
        health = HealthKeeper(nix, database)
        owner_adopts = settings.mode is Mode.USER
        locker = Locker(nix)
        registries = Registries(
            settings.state / "registries",
            settings.registries,
            processes.environment,
            age=settings.registry_age,
            allow_files=settings.file_registries,
        )
        indexes = Indexes(settings.state / "index")
        indexer = Indexer(
            repository,
            nix,
            indexes,
            registries,
            default_host=settings.host,
            enabled=settings.index,
            delay=settings.index_delay,
        )
        facts = Facts(nix, database, indexes, registries)
        store = Store(processes)
        profile = Profile(
            settings.system_profile or _nix_state(self._environment) / "profiles" / "system", settings.system_root
        )
        systems = Systems(store, profile)
        generations = Generations(repository, profile, systems, database, machine=settings.host)
        activator = ActivatorDoor(settings.activator, settings.activations) if settings.activator else None
        activation = Activation(activator, profile)
        uploads = Uploads(settings.state / "uploads", processes)
        uploads.remove_left()
        unattended = Unattended(settings.auto_update, settings.auto_update_inputs, settings.auto_update_age)
        plans = Plans()
        tools = Tools(
            repository,
            nix,
            facts,
            locker,
            database,
            generations,
            profile,
            settings.host,
            switches=activation.possible,
            knock=activation.knock,
            rollback_on_failure=settings.rollback_on_failure,
            uploads=uploads,
            local_paths=settings.mode is Mode.USER,
            unattended=unattended,
            plans=plans,
        )
        preparer = Preparer(tools, owner_adopts=owner_adopts)
        parts = Parts(
            repository=repository,
            queries=Queries(repository, health, preparer, facts, mode=settings.mode, default_host=settings.host),
            doctor=Doctor(
                Patient(
                    repository,
                    nix,
                    locker,
                    facts,
                    health,
                    database,
                    machine=settings.host,
                    state=settings.state,
                    bus=lambda: self._bus_problem,
                    authority=judged,
                    has_user=has_user,
                )
            ),
            preparer=preparer,
            transactor=Transactor(
                repository,
                Drafter(repository, locker, plans, default_system=nix.system(), owner_adopts=owner_adopts),
                machine=settings.host,
                examine=nix.evaluate_host if settings.mode is Mode.SYSTEM and settings.evaluate else None,
            ),
            culprits=culprits,
            collector=Collector(
                store,
                repository,
                machine=settings.host,
                folders=profile_folders(self._environment) if settings.mode is Mode.USER else (),
                system_profile=profile.link,
            ),
            rebuilder=Rebuilder(
                repository,
                nix,
                systems,
                profile,
                activation,
                culprits,
                machine=settings.host,
            ),
            activation=activation,
            generations=generations,
            profile=profile,
            logs=Logs(settings.state / "logs"),
            locker=locker,
            queue=Queue(pending=settings.pending, pending_per_uid=settings.pending_per_uid),
            health=health,
            housekeeper=Housekeeper(Packs(repository.git), database, delay=settings.tidy_delay),
            indexer=indexer,
            searcher=Searcher(
                repository,
                indexes,
                indexer,
                registries,
                preparer,
                default_host=settings.host,
                default_system=nix.system(),
            ),
            database=database,
            authority=authority,
            watchers=Watchers(),
            bundles=Bundles(repository.git, settings.state / "bundles"),
            uploads=uploads,
            rates=Rates(settings.calls_per_second, settings.calls_at_once),
            build_repository=build_repository,
            nix_of=nix_of,
            mode=settings.mode,
            default_host=settings.host,
            branch=settings.branch or "main",
            evaluate=settings.evaluate,
            rollback_on_failure=settings.rollback_on_failure,
            unattended=settings.auto_update,
        )
        return Engine(parts), parts

    def _evaluator(self, processes: Processes, repository: Repository) -> Evaluator:
        """Whoever runs nix on what others wrote: only a user's own daemon does so itself."""
        settings = self._settings
        match settings.evaluator:
            case "own":
                return OwnEvaluator(processes, repository.root, settings.state)
            case "child":
                return EvaluatorProgram(ChildEvaluators(processes, settings.state / "evaluator"), repository.git)
            case path:
                return EvaluatorProgram(EvaluatorSocket(Path(path)), repository.git)

    def _recover(self, engine: Engine, parts: Parts) -> None:
        """Finish what an earlier daemon left; a repository that can't be written now is still read."""
        parts.locker.remove_left()
        if parts.repository.exists:
            try:
                parts.repository.check_index()
                with parts.repository.locked():
                    pass
                parts.repository.announce_unless_known()
            except GlixError as error:
                log.warning("the repository could not be recovered yet", reason=error.message)
        engine.recover()

    async def _serve(self, engine: Engine, bus: Bus | None, ready_fd: int | None) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        listener, own = self._listener()
        allowed = {
            "connections": self._settings.connections,
            "connections_per_uid": self._settings.connections_per_uid,
        }
        server = JsonRpcServer(engine, listener, Limits(**allowed))
        await server.start()
        try:
            await asyncio.to_thread(log_events.load)  # whoever connected is answered meanwhile
            bus = bus or await self._bus()
            frontend = await self._serve_bus(engine, bus, BusLimits(**allowed)) if bus else None
        except BaseException:
            if own:
                self._settings.socket.unlink(missing_ok=True)
            raise
        log.info("ready", version=VERSION, mode=self._settings.mode.value, repository=str(self._settings.repository))
        _say_ready(ready_fd)
        engine.begin()
        await self._until_stopped(engine, server, frontend)
        systemd.notify("STOPPING=1")
        if own:
            self._settings.socket.unlink(missing_ok=True)
        server.drain()  # whoever connected before the socket went is still served
        stops = [engine.stop(PATIENCE), server.stop(), *([frontend.stop()] if frontend else [])]
        await asyncio.gather(*stops)
        if bus:
            await bus.close()
        log.info("stopped")

    async def _serve_bus(self, engine: Engine, bus: Bus, limits: BusLimits) -> DBusFrontend:
        from glixd.frontends.dbus import DBusFrontend

        frontend = DBusFrontend(engine, bus, limits)
        await frontend.start()
        await self._own_name(bus)
        bus.lost.add_done_callback(self._bus_lost)
        return frontend

    def _listener(self) -> tuple[socket.socket, bool]:
        """The socket to serve, and whether its file is ours: systemd's where it activated us, else our own."""
        handed = systemd.listen_fds(unset_environment=True)
        if handed:
            return socket.socket(fileno=LISTEN_FDS_START), False
        everybody = self._settings.mode is Mode.SYSTEM
        return listen(self._settings.socket, mode=0o666 if everybody else 0o600), True

    async def _bus(self) -> Bus | None:
        if self._settings.bus == "none":
            return None
        await asyncio.to_thread(_load_for_the_bus)
        from glixd.backends.bus import Bus, BusError

        try:
            return await Bus.connect(self._settings.bus)
        except (BusError, Failed) as error:
            if self._settings.mode is Mode.SYSTEM:
                raise
            log.warning("there is no bus to serve", reason=error.message)
            self._bus_problem = f"there is no bus to serve: {error.message}"
            return None

    async def _authority(self, bus: Bus | None) -> tuple[Authority, Callable[[], str | None]]:
        """Who decides, and how a thread asks what keeps it from deciding."""
        if self._settings.mode is Mode.USER:
            return OwnerOnly(os.getuid()), lambda: None
        from glixd.authority import PolkitAuthority
        from glixd.backends.polkit import Polkit

        polkit = Polkit(bus, REGISTERED) if bus else None
        if polkit:
            await polkit.start()
        authority = PolkitAuthority(polkit, checks_per_uid=self._settings.checks_per_uid)
        loop = asyncio.get_running_loop()
        self._examination = loop.create_task(_examine(authority))

        def judged() -> str | None:
            return asyncio.run_coroutine_threadsafe(authority.problem(), loop).result()

        return authority, judged

    async def _own_name(self, bus: Bus) -> None:
        try:
            await bus.request_name(BUS_NAME)
        except GlixError as error:
            if self._settings.mode is Mode.SYSTEM:
                raise
            log.warning("the bus name belongs to somebody else", reason=error.message)
            self._bus_problem = f"{BUS_NAME} belongs to somebody else: {error.message}"

    def _bus_lost(self, lost: asyncio.Future[BusError]) -> None:
        """Without its bus a daemon that was activated by it can't be reached again: end, and be started anew."""
        if not self._stopping.is_set():
            log.warning("the bus is gone", reason=str(lost.result()))
            self._bus_problem = f"the bus is gone: {lost.result()}"
            if self._settings.mode is Mode.SYSTEM:
                self._stopping.set()

    async def _until_stopped(self, engine: Engine, server: JsonRpcServer, frontend: DBusFrontend | None) -> None:
        """Wait for a signal, or for a time without work, connections or calls."""
        watchdog = int(self._environment.get("WATCHDOG_USEC", "0")) / 2_000_000
        idle = self._settings.idle_exit
        tick = min(filter(None, (watchdog, idle / 4 if idle else 0, 5.0)))
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), tick)
            if watchdog:
                systemd.notify("WATCHDOG=1")
            if engine.busy or server.connections or (frontend and frontend.calls):
                self._active = time.monotonic()
            elif idle and time.monotonic() - self._active >= idle:
                log.info("nothing to do, so this daemon ends")
                self._stopping.set()


def _load_for_the_bus() -> None:
    with lean.loading():
        for name in FOR_THE_BUS:
            import_module(name)  # may refuse what the environment chooses


async def _examine(authority: PolkitAuthority) -> None:
    """Say at the start what would only show with the first request; it is looked at again then."""
    if problem := await authority.problem():
        log.warning("only root can change anything", reason=problem)


def profile_folders(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Where nix keeps the profiles of this user: beside its own state, and since 2.14 in the user's home."""
    home = Path(environment.get("HOME") or os.path.expanduser("~"))
    state = environment.get("XDG_STATE_HOME", "")
    own = Path(state) if os.path.isabs(state) else home / ".local" / "state"
    return (
        _nix_state(environment) / "profiles" / "per-user" / login(os.getuid()),
        own / "nix" / "profiles",
    )


def _nix_state(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("NIX_STATE_DIR") or "/nix/var/nix")


def _take_lock(folder: Path) -> int:
    """The right to serve the repository that this folder belongs to; raises Busy when another daemon has it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Failed(
            "Another glixd serves this repository already.",
            code=ErrorCode.BUSY,
            hint="Use that one, or stop it first.",
        ) from None
    return descriptor


def _say_ready(ready_fd: int | None) -> None:
    systemd.notify("READY=1")
    if ready_fd is None:
        return
    with suppress(OSError):
        os.write(ready_fd, b"\n")
    os.close(ready_fd)
    sys.stderr.flush()
