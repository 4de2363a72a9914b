"""A worker whose blob routes are served over a real socket, and what a master needs to send inputs there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from fakes.agents import Worker
from fakes.link import FakeLink
from flotilla.api import links
from flotilla.runtime.pushes import InputPusher, blob_target
from flotilla.transport.limits import FetchPolicy
from flotilla.transport.uses import StoredBlob
from flotilla.utils.clock import Clock, ManualClock
from flotilla.workers.address import WorkerAddress, parse_address
from flotilla.workers.tokens import issue

QUICK = FetchPolicy(max_tries=3, idle_timeout_s=5.0, connect_timeout_s=5.0, backoff_first_s=0.0, backoff_max_s=0.0)
WORKER_ID = "w1"
JOB = "job"


class Depot:
    """A worker, its address, and one link of a master to it. ``requests`` are the methods and targets that came."""

    def __init__(self, folder: Path, clock: Clock | None = None, **spool: int) -> None:
        self.worker = Worker(folder, clock, **spool)
        self.master = self.worker.link()
        self.pusher = InputPusher(clock=self.worker.clock, policy=QUICK)
        self.requests: list[str] = []
        self.gate: asyncio.Event | None = None
        self.address: WorkerAddress
        self.port = 0

    @property
    def link(self) -> FakeLink:
        """The link that the master has."""
        return self.master

    async def push(self, blob: StoredBlob, *, keep: bool = False, job_id: str = JOB) -> None:
        """Sends the blob as the master would."""
        await self.pusher.push(WORKER_ID, self.address, lambda: self.master, job_id, blob, keep=keep)

    def token(self, target: str, method: str = "PUT") -> dict[str, str]:
        """The header that proves the link for one request."""
        age_s = self.worker.clock.now_s() - self.master.began_s
        return {"Authorization": issue(self.master.session.key, self.master.session.id, method, target, age_s)}

    def target(self, blob_hash: str, *, keep: bool = False, job_id: str = JOB) -> str:
        """Path and query of a PUT."""
        return blob_target(blob_hash, job_id, keep=keep)

    def held(self) -> dict[tuple[str, str], tuple[bool, int]]:
        """The worker's books: (job, hash) → kept, and how often it came for one item."""
        sessions = self.worker.agent._sessions.values()
        return {key: (held.kept, held.sent) for one in sessions for key, held in one.inputs.items()}

    def files(self) -> list[str]:
        """What lies in the worker's spool."""
        folders = self.worker.spool.folders
        found = [path.name for folder in folders for path in folder.iterdir() if path.is_file()]
        return sorted(name for name in found if not name.startswith(("nonce-", ".")))


@asynccontextmanager
async def run_depot(folder: Path, clock: Clock | None = None, **spool: int) -> AsyncIterator[Depot]:
    depot = Depot(folder, clock or ManualClock(), **spool)
    routes = web.RouteTableDef()
    services: Any = SimpleNamespace(agent=depot.worker.agent, spool=depot.worker.spool)
    links.register(services, routes)

    @web.middleware
    async def note(request: web.Request, handler: Any) -> web.StreamResponse:
        depot.requests.append(f"{request.method} {request.rel_url.raw_path_qs}")
        if depot.gate is not None:
            await depot.gate.wait()
        answer: web.StreamResponse = await handler(request)
        return answer

    app = web.Application(middlewares=[note], client_max_size=1)  # bodies go past that cap: they are never read whole
    app.add_routes(routes)
    server = TestServer(app)
    await server.start_server()
    depot.port = int(server.port or 0)
    depot.address = parse_address(f"127.0.0.1:{server.port}")
    try:
        yield depot
    finally:
        await server.close()
        await depot.worker.close()
