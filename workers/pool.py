"""The links to all enabled workers of the registry, kept in step with it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Literal, Protocol

import aiohttp

from ..utils.clock import Clock, SystemClock
from ..utils.errors import LinkRefused
from ..utils.log import get_logger
from .connection import OnMessage, OnState, WorkerConnection, WorkerHealth
from .doors import dial
from .entries import WorkerEntry
from .handshake import Dialler, Identity
from .heart import LiveLink, Sleep
from .key import FleetKey
from .link import Link, WebSocketLink, lost
from .messages import Message
from .registry import WorkerRegistry

log = get_logger("workers")


class Dials(Protocol):
    """Makes links to workers; closed together with the pool."""

    async def __call__(self, entry: WorkerEntry) -> Link:
        """Raises LinkRefused or LinkLost."""
        ...

    async def close(self) -> None:
        """Frees what dialling needs; a later call needs it anew."""
        ...


class NetworkDialler:
    """Dials workers over the network, with one HTTP session for all, opened when first needed."""

    def __init__(self, key: FleetKey | None, me: Identity, clock: Clock | None = None) -> None:
        self._key = key
        self._me = me
        self._clock = clock or SystemClock()
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, entry: WorkerEntry) -> WebSocketLink:
        """Raises like `dial`."""
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession()
        return await dial(self._session, entry.where, Dialler(self._key, self._me), clock=self._clock)

    async def close(self) -> None:
        """Closes the session; a later call opens a new one."""
        if self._session is not None:
            await self._session.close()


class WorkerPool:
    """Holds a `WorkerConnection` for each enabled entry. Use from one event loop; the registry may change anywhere.

    Only connections whose address changed or which were enabled or disabled are touched by a change.
    """

    def __init__(
        self,
        registry: WorkerRegistry,
        dial_worker: Dials,
        on_message: OnMessage,
        on_state: OnState,
        *,
        clock: Clock | None = None,
        sleep: Sleep = asyncio.sleep,
        random_unit: Callable[[], float] = random.random,
    ) -> None:
        self._registry = registry
        self._dial_worker = dial_worker
        self._on_message = on_message
        self._on_state = on_state
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._random_unit = random_unit
        self._connections: dict[str, WorkerConnection] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Begins to link the workers; needs a running loop. A second start changes nothing."""
        if self._task is not None:
            return
        loop = asyncio.get_running_loop()

        def on_change() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._changed.set)

        self._unsubscribe = self._registry.subscribe(on_change)
        self._changed.set()
        self._task = loop.create_task(self._follow())

    async def stop(self) -> None:
        """Ends all links; prompt, and harmless before a start or twice."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        connections = list(self._connections.values())
        self._connections.clear()
        await asyncio.gather(*(connection.stop() for connection in connections))
        await self._dial_worker.close()

    def health(self) -> dict[str, WorkerHealth]:
        """The health of every worker of the registry, in its order."""
        return {entry.id: self._health_of(entry) for entry in self._registry.entries()}

    def link(self, worker_id: str) -> LiveLink | None:
        """The live link to a worker, None while there is none."""
        connection = self._connections.get(worker_id)
        return connection.link if connection is not None else None

    async def send(self, worker_id: str, message: Message) -> None:
        """Raises LinkLost for a worker that is not linked."""
        connection = self._connections.get(worker_id)
        if connection is None:
            raise lost("local", "The worker is not linked: it is unknown or disabled.")
        await connection.send(message)

    def kick(self, worker_id: str | None = None) -> None:
        """Tries one worker, or all that are not linked, at once."""
        for connection in self._connections.values():
            if worker_id in (None, connection.entry.id):
                connection.kick()

    # Following the registry

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._sync()
            except Exception:
                log.exception("the links could not follow a change of the worker registry")

    async def _sync(self) -> None:
        wanted = {entry.id: entry for entry in self._registry.entries() if entry.enabled}
        gone = [
            connection
            for worker_id, connection in self._connections.items()
            if worker_id not in wanted or wanted[worker_id].address != connection.entry.address
        ]
        # Stopped before they are forgotten: should this be cancelled here, stop() still finds them.
        await asyncio.gather(*(connection.stop() for connection in gone))
        for connection in gone:
            del self._connections[connection.entry.id]
            self._tell(connection.entry.id, "connecting" if connection.entry.id in wanted else "disabled")
        for worker_id, entry in wanted.items():
            if worker_id in self._connections:
                self._connections[worker_id].entry = entry
            else:
                self._connections[worker_id] = self._connect(entry)

    def _tell(self, worker_id: str, state: Literal["connecting", "disabled"]) -> None:
        """The link to this worker is gone because somebody changed its entry."""
        try:
            self._on_state(worker_id, WorkerHealth(state, since_s=self._clock.now_s()))
        except Exception:
            log.exception("a listener of a worker's state failed", worker=worker_id)

    def _connect(self, entry: WorkerEntry) -> WorkerConnection:
        connection = WorkerConnection(
            entry,
            self._dial_once,
            self._on_message,
            self._on_state,
            clock=self._clock,
            sleep=self._sleep,
            random_unit=self._random_unit,
        )
        connection.start()
        return connection

    async def _dial_once(self, entry: WorkerEntry) -> Link:
        """Dials, and refuses a server that is linked already under another entry: it would get work twice."""
        link = await self._dial_worker(entry)
        for other in self._connections.values():
            if other.entry.id == entry.id or other.link is None:
                continue
            if other.link.peer.instance_id == link.peer.instance_id:
                await link.close("linked already under another entry")
                raise LinkRefused(
                    "twice",
                    f"This is the same server as the worker {other.entry.name!r}.",
                    cure="Remove one of the two entries.",
                )
        return link

    def _health_of(self, entry: WorkerEntry) -> WorkerHealth:
        if not entry.enabled:
            return WorkerHealth("disabled")
        connection = self._connections.get(entry.id)
        return connection.health if connection is not None else WorkerHealth("connecting")
