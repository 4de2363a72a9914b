"""An in-memory pair of links, and a dialler that gives out such pairs. `test_link_contract` holds it to the real one."""

from __future__ import annotations

import asyncio
from collections import deque

from flotilla.utils.clock import Clock, ManualClock
from flotilla.utils.errors import FlotillaError, LinkLost
from flotilla.workers.entries import WorkerEntry
from flotilla.workers.handshake import PROTOCOL_MAX, PeerInfo, Session
from flotilla.workers.link import lost
from flotilla.workers.messages import Bye, Message, dump, parse_message


class FakeLink:
    """One end. Messages take the real way through text, so what the real link refuses is refused here."""

    def __init__(self, peer: PeerInfo, session: Session, clock: Clock) -> None:
        self.peer = peer
        self.session = session
        self.began_s = self.last_sent_s = self.last_heard_s = clock.now_s()
        self.other: FakeLink | None = None
        self.frozen = False
        self.sent: list[Message] = []
        self._clock = clock
        self._inbox: deque[str] = deque()
        self._news = asyncio.Event()
        self._lost: LinkLost | None = None

    async def send(self, message: Message) -> None:
        text = dump(message)
        await asyncio.sleep(0)
        if self._lost is not None:
            raise self._lost
        self.last_sent_s = self._clock.now_s()
        self.sent.append(message)
        if self.other is not None and not self.frozen:
            self.other.arrive(text)

    async def receive(self) -> Message:
        while True:
            if self._lost is not None and (not self._inbox or self._lost.details["reason"] != "closed"):
                raise self._lost
            if self._inbox:
                self.last_heard_s = self._clock.now_s()
                try:
                    return parse_message(self._inbox.popleft())
                except FlotillaError as error:
                    self.abort(lost("malformed", error.message))
                    continue
            self._news.clear()
            await self._news.wait()

    async def close(self, reason: str = "") -> None:
        if self._lost is None:
            await self.send(Bye(reason=reason))
        self.abort(lost("local", "This side closed the link."))

    def abort(self, cause: LinkLost) -> None:
        if self._lost is not None:
            return
        self._lost = cause
        self._news.set()
        if self.other is not None and not self.frozen:
            self.other.sever()

    # For tests

    def arrive(self, text: str) -> None:
        """Puts a raw frame into this end's inbox."""
        self._inbox.append(text)
        self._news.set()

    def sever(self) -> None:
        """The connection ends under this end; what had arrived can still be read."""
        if self._lost is None:
            self._lost = lost("closed", "The other side ended the connection.")
        self._news.set()

    def freeze(self) -> None:
        """From now on nothing gets through in either direction, and nobody is told."""
        self.frozen = True
        if self.other is not None:
            self.other.frozen = True


def link_pair(
    clock: Clock | None = None,
    worker_id: str = "worker-1",
    master_id: str = "master-1",
    master_home: str = "home of master-1",
) -> tuple[FakeLink, FakeLink]:
    """The master's end and the worker's end. ``master_id`` is new at each start of a master, ``master_home`` is not."""
    clock = clock or ManualClock()
    session = Session("0" * 32, b"k" * 32)
    master = FakeLink(
        PeerInfo(worker_id, worker_id, "0.0.1", PROTOCOL_MAX, True, f"home of {worker_id}"), session, clock
    )
    worker = FakeLink(PeerInfo(master_id, "Master", "0.0.1", PROTOCOL_MAX, True, master_home), session, clock)
    master.other, worker.other = worker, master
    return master, worker


class FakeDialler:
    """Stands in for the network: each dial takes the next scripted outcome of the worker, else makes a fresh pair.

    ``workers`` holds the worker's ends by entry id, in the order of dialling.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.script: dict[str, deque[FlotillaError]] = {}
        self.workers: dict[str, list[FakeLink]] = {}
        self.dialled: list[str] = []
        self.closed = 0
        self.instance_of: dict[str, str] = {}

    def then(self, worker_id: str, *outcomes: FlotillaError) -> None:
        """The next dials of this worker end so."""
        self.script.setdefault(worker_id, deque()).extend(outcomes)

    async def __call__(self, entry: WorkerEntry) -> FakeLink:
        await asyncio.sleep(0)
        self.dialled.append(entry.id)
        script = self.script.get(entry.id)
        if script:
            raise script.popleft()
        master, worker = link_pair(self.clock, self.instance_of.get(entry.id, f"instance of {entry.id}"))
        self.workers.setdefault(entry.id, []).append(worker)
        return master

    async def close(self) -> None:
        self.closed += 1


class ManualSleep:
    """A sleep for `ManualClock`: `advance` wakes, in order, everybody whose time has come."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    async def __call__(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.clock.now_s() + seconds, future))
        try:
            await future
        finally:
            self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[1] is not future]

    async def advance(self, seconds: float) -> None:
        """Moves the clock on, stopping at each sleeper that becomes due on the way."""
        end_s = self.clock.now_s() + seconds
        await settle()
        while due := sorted((s for s in self._sleepers if s[0] <= end_s and not s[1].done()), key=lambda s: s[0]):
            self.clock.advance(max(0.0, due[0][0] - self.clock.now_s()))
            due[0][1].set_result(None)
            await settle()
        self.clock.advance(max(0.0, end_s - self.clock.now_s()))
        await settle()


async def settle(rounds: int = 50) -> None:
    """Lets everything run that can run without time passing."""
    for _ in range(rounds):
        await asyncio.sleep(0)
