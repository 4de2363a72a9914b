"""Composition root: builds everything once, registers the routes, starts with the server and ends with it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import socket
from pathlib import Path

from . import nodes
from .api import register_routes
from .api.intercept import Interceptor
from .api.services import Services
from .host.capabilities import choices_of, output_types, read_capabilities
from .host.execution import CachePromptWatch, progress_of
from .host.facts import configured_port, host_version
from .host.node_api import ComfyExtension, io
from .host.previews import latest_preview
from .host.queue import ComfyQueue
from .host.screen import Screen
from .host.server import HostServer, private_folder
from .relay.previews import PreviewSource
from .runtime import context
from .runtime.agent import Agent
from .runtime.coordinator import Coordinator
from .runtime.own_results import OwnResults
from .runtime.pushes import InputPusher
from .runtime.results import ResultFetcher
from .storage.database import sqlite_url
from .storage.journal import Journal
from .transport.memory import Reserve
from .transport.spool_place import default_spool, total_ram_bytes
from .utils.background import Background
from .utils.clock import SystemClock
from .utils.errors import JournalUnavailable
from .utils.ids import new_id
from .utils.log import get_logger
from .utils.version import VERSION
from .workers.connection import WorkerHealth
from .workers.handshake import Identity
from .workers.home import home_id
from .workers.key import load_or_create
from .workers.messages import Message
from .workers.pool import NetworkDialler, WorkerPool
from .workers.registry import WorkerRegistry

log = get_logger("plugin")

TRIM_EVERY_S = 10.0
TRIM_JOURNAL_EVERY_S = 600.0
SECONDS_PER_HOUR = 3600.0
SECONDS_PER_DAY = 24 * SECONDS_PER_HOUR
BYTES_PER_MB = 1_000_000
RESERVE_SHARE_OF_RAM = 0.25
"""How much memory of past results may be kept for the next job, for some seconds."""
OLDER_FILE = "gpu_config.json"
DATABASE_VARIABLE = "FLOTILLA_DATABASE_URL"
"""Where the journal is kept if not in a file of this instance; may hold a password."""


class Flotilla:
    """Everything that one ComfyUI runs of this pack."""

    def __init__(self, server: HostServer) -> None:
        clock = SystemClock()
        folder = private_folder()
        self.server = server
        self.clock = clock
        self.background = Background("plugin")
        self.queue = ComfyQueue()
        self.key = load_or_create(folder, os.environ)
        self.identity = Identity(
            instance_id=new_id(),
            version=VERSION,
            name=os.environ.get("FLOTILLA_NAME") or socket.gethostname(),
            home_id=home_id(folder, configured_port()),
        )
        self.registry = WorkerRegistry(folder / "workers.json", import_from=older_configuration())
        self.reserve = Reserve(int(total_ram_bytes() * RESERVE_SHARE_OF_RAM))
        self.spool = default_spool(self.identity.home_id, folder)
        self.pool = WorkerPool(
            self.registry,
            NetworkDialler(self.key, self.identity, clock),
            self._on_message,
            self._on_state,
            clock=clock,
        )
        url = os.environ.get(DATABASE_VARIABLE) or sqlite_url(folder)
        self.journal = Journal(url, self.identity.home_id, wall_clock=clock.wall_s)
        self.fetcher = ResultFetcher(clock=clock, same_host=os.environ.get("FLOTILLA_SAME_HOST", "1") != "0")
        self.coordinator = Coordinator(
            registry=self.registry,
            pool=self.pool,
            queue=self.queue,
            fetcher=self.fetcher,
            clock=clock,
            call_soon=server.call_soon,
            make_watch=CachePromptWatch,
            journal=self.journal,
            screen=Screen(),
            own_results=OwnResults(self.spool, self.identity.home_id, clock),
            home_id=self.identity.home_id,
            spool=self.spool,
            pusher=InputPusher(clock=clock),
            output_types=output_types,
            reserve=self.reserve,
            own_choices=choices_of,
        )
        self.agent = Agent(
            queue=self.queue,
            spool=self.spool,
            clock=clock,
            call_soon=server.call_soon,
            make_watch=CachePromptWatch,
            read_capabilities=read_capabilities,
            progress_of=progress_of,
            home_id=self.identity.home_id,
            previews=PreviewSource(latest_preview, clock),
        )
        self.interceptor = Interceptor(self.coordinator)

    def register(self) -> None:
        """Registers routes and hooks. Must run while the host imports packs."""
        context.install(
            context.Context(
                self.coordinator.stage_of,
                self.coordinator.plan_of,
                self.agent.deliver,
                self.agent.input_values,
                self.agent.prepared,
            )
        )
        services = Services(
            server=self.server,
            queue=self.queue,
            registry=self.registry,
            pool=self.pool,
            coordinator=self.coordinator,
            agent=self.agent,
            fetcher=self.fetcher,
            spool=self.spool,
            journal=self.journal,
            key=self.key,
            identity=self.identity,
        )
        register_routes(services, self.interceptor)
        self.server.add_middleware(self.interceptor.middleware)
        self.server.add_prompt_handler_last(self.interceptor.on_prompt)
        self.server.on_startup(self.start)
        atexit.register(self.spool.close)
        atexit.register(self.journal.close)

    async def _on_message(self, worker_id: str, message: Message) -> None:
        await self.coordinator.inbox.on_message(worker_id, message)

    def _on_state(self, worker_id: str, health: WorkerHealth) -> None:
        self.coordinator.inbox.on_state(worker_id, health)

    async def start(self) -> None:
        """The server is set up: links open now."""
        log.info("started", version=VERSION, host=host_version(), workers=len(self.registry.entries()))
        for remark in self.registry.import_remarks:
            log.warning("taken over from an older configuration", remark=remark)
        self.journal.start()
        self.background.spawn(self._open())

    async def _open(self) -> None:
        """Finds what an earlier process of this home has left, then lets links open: they tell of it at once."""
        self.spool.keep_s = self.registry.settings().keep_results_hours * SECONDS_PER_HOUR
        try:
            found = await asyncio.to_thread(self.spool.adopt)
            self.agent.adopt(found)
            self.coordinator.adopt(found)
        except Exception:
            log.exception("what an earlier process has left could not be taken over")
        self.pool.start()
        removed = await asyncio.to_thread(self.spool.clear_at_start)
        if removed:
            log.info("removed spools of instances that are gone", count=removed)
        self.background.spawn(self._keep_memory())
        self.background.spawn(self._keep_journal())

    async def _keep_memory(self) -> None:
        """Gives unused memory back."""
        while True:
            await asyncio.sleep(TRIM_EVERY_S)
            self.spool.keep_s = self.registry.settings().keep_results_hours * SECONDS_PER_HOUR
            await asyncio.to_thread(self.spool.trim, self.clock.now_s())
            await asyncio.to_thread(self.reserve.trim, self.clock.now_s())

    async def _keep_journal(self) -> None:
        """Keeps the journal within its bounds."""
        while True:
            settings = self.registry.settings()
            with contextlib.suppress(JournalUnavailable):
                forgotten = await self.journal.trim(
                    settings.journal_max_age_days * SECONDS_PER_DAY,
                    settings.journal_max_mb * BYTES_PER_MB,
                    keep={run.job_id for run in self.coordinator.runs()},
                )
                self.coordinator.strangers.forgotten(forgotten)
            await asyncio.sleep(TRIM_JOURNAL_EVERY_S)


def older_configuration() -> Path:
    """The ``gpu_config.json`` of the older extension: in this folder, else in one beside it."""
    own = Path(__file__).parent
    beside = sorted(own.parent.glob("*[dD]istributed*/" + OLDER_FILE))
    return next((path for path in [own / OLDER_FILE, *beside] if path.is_file()), own / OLDER_FILE)


class FlotillaExtension(ComfyExtension):
    """The pack as ComfyUI sees it."""

    async def on_load(self) -> None:
        """Called once, while the host imports packs."""
        Flotilla(HostServer()).register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes of this pack."""
        return nodes.ALL_NODES


def load() -> FlotillaExtension:
    """The extension object for the host."""
    return FlotillaExtension()
