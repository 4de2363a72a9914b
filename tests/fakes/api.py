"""One instance with all routes of ``api/``, as far as it goes without a ComfyUI.

Coordinator, state machine, interceptor, registry, spool are the real ones. Made up are the host's queue and prompt watch,
and the links to workers; ``tests/unit/test_api_fakes.py`` holds them against the signatures of the real parts.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiohttp import web
from fakes.host import FakeScreen
from flotilla.api import compat_config, compat_queue, v2_fleet, v2_jobs
from flotilla.api.intercept import Interceptor
from flotilla.api.services import Services
from flotilla.graph.model_side import no_types
from flotilla.host.records import Outcome, Queued, Refused
from flotilla.runtime.coordinator import Coordinator
from flotilla.runtime.jobrun import JobRun
from flotilla.runtime.own_results import OwnResults
from flotilla.runtime.pushes import InputPusher
from flotilla.runtime.results import ResultFetcher
from flotilla.runtime.wishes import Wishes
from flotilla.storage.database import sqlite_url
from flotilla.storage.journal import Journal
from flotilla.transport.spool import Spool
from flotilla.utils.clock import ManualClock
from flotilla.workers.connection import WorkerHealth
from flotilla.workers.handshake import Identity
from flotilla.workers.key import FleetKey
from flotilla.workers.messages import Message
from flotilla.workers.registry import WorkerRegistry

PROMPT: dict[str, Any] = {
    "1": {"class_type": "KitImage", "inputs": {"seed": ["2", 0]}},
    "2": {"class_type": "DistributedSeed", "inputs": {"seed": 40}},
    "3": {"class_type": "DistributedCollector", "inputs": {"images": ["1", 0]}},
    "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
}
"""A prompt that is spread: one item per participant."""

PLAIN_PROMPT: dict[str, Any] = {"1": {"class_type": "KitImage", "inputs": {"seed": 1}}}
KNOWN_CLASSES = frozenset({"KitImage", "DistributedSeed", "DistributedCollector", "PreviewImage"})
HOME = "the-desk"
SECRET = "a secret that no answer may ever hold, 0123456789"


class FakePool:
    """Every enabled worker is online unless ``healths`` says otherwise; messages are kept in ``sent``."""

    def __init__(self, registry: WorkerRegistry) -> None:
        self._registry = registry
        self.healths: dict[str, WorkerHealth] = {}
        self.kicked: list[str | None] = []
        self.sent: list[tuple[str, Message]] = []

    def health(self) -> dict[str, WorkerHealth]:
        return {
            entry.id: self.healths.get(entry.id, WorkerHealth("online" if entry.enabled else "disabled"))
            for entry in self._registry.entries()
        }

    def link(self, worker_id: str) -> None:
        return None

    async def send(self, worker_id: str, message: Message) -> None:
        self.sent.append((worker_id, message))

    def kick(self, worker_id: str | None = None) -> None:
        self.kicked.append(worker_id)


class FakeWatch:
    """A host that tells nothing of its prompts."""

    available = True

    def hold(self) -> None:
        pass

    def let_go(self) -> None:
        pass


class FakeQueue:
    """The host's queue: every prompt waits in it for ever, or is refused with ``refusal``.

    ``handler`` is the one prompt handler; ``gate`` is awaited before a prompt is taken.
    """

    def __init__(self) -> None:
        self.handler: Callable[[dict[str, Any]], dict[str, Any]] = lambda json_data: json_data
        self.refusal: Refused | None = None
        self.gate: Callable[[], Awaitable[None]] | None = None
        self.taken: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        self.cancelled: list[str] = []

    def run_prompt_handlers(self, json_data: dict[str, Any]) -> dict[str, Any]:
        return self.handler(json_data)

    async def submit(
        self, prompt: dict[str, Any], prompt_id: str, extra_data: dict[str, Any], *, targets: list[str] | None = None
    ) -> Queued | Refused:
        if self.gate is not None:
            await self.gate()
        if self.refusal is not None:
            return self.refusal
        self.taken.append((prompt_id, copy.deepcopy(prompt), copy.deepcopy(extra_data)))
        return Queued(prompt_id, float(len(self.taken)))

    def cancel(self, prompt_id: str) -> bool:
        self.cancelled.append(prompt_id)
        return True

    def live(self) -> tuple[list[str], list[str]]:
        return [], [taken[0] for taken in self.taken]

    def outcome(self, prompt_id: str) -> Outcome | None:
        return None

    def forget_outcome(self, prompt_id: str) -> None:
        pass


class Instance:
    """Everything behind the routes. Must be made and closed in the loop that uses it."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.registry = WorkerRegistry(folder / "workers.json")
        self.pool = FakePool(self.registry)
        self.queue = FakeQueue()
        self.fetcher = ResultFetcher(clock=self.clock)
        self.spool = Spool(None, folder / "spool", memory_cap_bytes=0, disk_cap_bytes=1_000, recycle_cap_bytes=0)
        self.screen = FakeScreen()
        self.journal = Journal(sqlite_url(folder), HOME, wall_clock=self.clock.wall_s)
        self.journal.start()
        parts: Any = {"pool": self.pool, "make_watch": lambda started, ended: FakeWatch()}
        self.coordinator = Coordinator(
            registry=self.registry,
            queue=self.queue,
            fetcher=self.fetcher,
            clock=self.clock,
            call_soon=asyncio.get_running_loop().call_soon,
            journal=self.journal,
            screen=self.screen,
            own_results=OwnResults(self.spool, HOME, self.clock),
            home_id=HOME,
            spool=self.spool,
            pusher=InputPusher(clock=self.clock),
            output_types=no_types,
            own_choices=lambda classes: (KNOWN_CLASSES, {}),
            **parts,
        )
        self.interceptor = Interceptor(self.coordinator)
        self.queue.handler = self.interceptor.on_prompt

    async def close(self) -> None:
        await self.coordinator.close()
        self.journal.close()
        self.spool.close()

    def services(self, key: FleetKey | None) -> Services:
        none: Any = SimpleNamespace()
        pool: Any = self.pool
        return Services(
            server=none,
            queue=self.queue,
            registry=self.registry,
            pool=pool,
            coordinator=self.coordinator,
            agent=none,
            fetcher=self.fetcher,
            spool=self.spool,
            journal=self.journal,
            key=key,
            identity=Identity(instance_id="instance-1", version="0.1.0", name="desk", home_id="home-1"),
            clock=self.clock,
        )

    def routes(self, key: FleetKey | None = None) -> web.RouteTableDef:
        """All routes of ``api/`` but those between instances."""
        services = self.services(key)
        routes = web.RouteTableDef()
        v2_jobs.register(services, routes)
        v2_fleet.register(services, routes)
        compat_queue.register(services, self.interceptor, routes)
        compat_config.register(services, routes)
        return routes

    def app(self, key: FleetKey | None = None) -> web.Application:
        """All routes, registered as the host does it: below ``/api``, and once more plain."""
        routes = self.routes(key)
        prefixed = web.RouteTableDef()
        for route in routes:
            assert isinstance(route, web.RouteDef)
            prefixed.route(route.method, "/api" + route.path)(route.handler, **route.kwargs)
        app = web.Application()
        app.add_routes(prefixed)
        app.add_routes(routes)
        return app

    def add_worker(self, worker_id: str, port: int, **fields: Any) -> None:
        """Adds an enabled worker on this machine, linked at once."""
        entry = {"id": worker_id, "name": worker_id.upper(), "address": f"http://127.0.0.1:{port}", **fields}
        self.registry.change(lambda old: {"workers": [*(one.to_json() for one in old.workers), entry]})
        self.coordinator.inbox.on_state(worker_id, WorkerHealth("online"))

    def add_job(self, prompt: dict[str, Any] = PROMPT) -> JobRun:
        """A job of the given prompt on the master and all enabled workers, its prompt waiting in the host's queue."""
        run = self.coordinator.plan({"prompt": prompt}, Wishes())
        assert run is not None
        self.queue.taken.append((run.job_id, prompt, {}))
        self.coordinator.accept(run.job_id)
        return run
