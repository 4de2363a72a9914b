"""Keeps one worker linked for as long as it is wanted: dial, read, and dial again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Literal

from ..utils.clock import Clock, SystemClock
from ..utils.errors import LinkLost, LinkRefused
from ..utils.log import get_logger
from .entries import WorkerEntry
from .handshake import PeerInfo
from .heart import LiveLink, Sleep
from .link import Link, lost
from .messages import Message

log = get_logger("workers")

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
LASTED_S = 10.0
"""A link that lived this long counts as one that worked: the pauses begin anew."""

CANCEL_AGAIN_S = 0.5

State = Literal["disabled", "connecting", "online", "offline", "refused"]


@dataclass(frozen=True)
class WorkerHealth:
    """What is known about one worker. ``reason`` is a code ("" while all is well), ``message`` and ``cure`` are for
    people, ``since_s`` is when this state began on the clock of this process, ``rtt_ms`` the latest round trip."""

    state: State
    reason: str = ""
    message: str = ""
    cure: str = ""
    since_s: float = 0.0
    rtt_ms: float | None = None
    peer: PeerInfo | None = None


Dial = Callable[[WorkerEntry], Awaitable[Link]]
OnMessage = Callable[[str, Message], Awaitable[None]]
OnState = Callable[[str, WorkerHealth], None]


class WorkerConnection:
    """One worker's link, renewed for ever.

    ``dial`` makes a link or raises LinkRefused or LinkLost. ``on_message`` is awaited for each message but heartbeats,
    one after the other; ``on_state`` is called at each change of state or reason, in the loop's thread. Use from one event loop.
    """

    def __init__(
        self,
        entry: WorkerEntry,
        dial: Dial,
        on_message: OnMessage,
        on_state: OnState,
        *,
        clock: Clock | None = None,
        sleep: Sleep = asyncio.sleep,
        random_unit: Callable[[], float] = random.random,
    ) -> None:
        self.entry = entry
        self._dial = dial
        self._on_message = on_message
        self._on_state = on_state
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._random_unit = random_unit
        self._health = WorkerHealth("connecting", since_s=self._clock.now_s())
        self._task: asyncio.Task[None] | None = None
        self._kicked = asyncio.Event()
        self._stopping = False
        self._failures = 0
        self.link: LiveLink | None = None

    @property
    def health(self) -> WorkerHealth:
        """What is known about the worker now."""
        rtt_s = self.link.rtt_s if self.link is not None else None
        return replace(self._health, rtt_ms=None if rtt_s is None else rtt_s * 1_000)

    def start(self) -> None:
        """Begins to dial; needs a running loop. A second start changes nothing."""
        if self._task is None:
            self._stopping = False
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Ends the link and all that belongs to it; prompt, and harmless before a start or twice."""
        self._stopping = True
        task, self._task = self._task, None
        while task is not None and not task.done():
            task.cancel()
            # Older Pythons may lose a cancellation that arrives together with a result, so it is repeated.
            await asyncio.wait({task}, timeout=CANCEL_AGAIN_S)

    def kick(self) -> None:
        """Tries again at once instead of after the pause."""
        self._kicked.set()

    async def send(self, message: Message) -> None:
        """Raises LinkLost while the worker is not linked."""
        if self.link is None:
            raise lost("local", f"The worker {self.entry.name!r} is not linked.")
        await self.link.send(message)

    # The loop

    async def _run(self) -> None:
        while True:
            self._kicked.clear()
            pause_s = await self._try_once()
            if self._stopping:
                return
            await self._wait(pause_s)

    async def _try_once(self) -> float:
        """One link from dialling to its end. Returns how long to pause before the next try, in seconds."""
        try:
            link = await self._dial(self.entry)
        except LinkRefused as error:
            self._set("refused", error.reason, error.message, error.cure)
            return LONGEST_PAUSE_S
        except LinkLost as error:
            self._set("offline", str(error.details.get("reason", "closed")), error.message, error.cure)
            return self._next_pause_s()
        except Exception:
            log.exception("dialling a worker failed unexpectedly", worker=self.entry.id)
            self._set("offline", "internal", "Dialling failed for a reason nobody foresaw.", "See this server's log.")
            return LONGEST_PAUSE_S
        began_s = self._clock.now_s()
        cause = await self._live(link)
        if self._clock.now_s() - began_s >= LASTED_S:
            self._failures = 0
        self._set("offline", str(cause.details.get("reason", "closed")), cause.message, cause.cure)
        return self._next_pause_s()

    async def _live(self, link: Link) -> LinkLost:
        """Reads the link until it ends; returns why it did."""
        self.link = live = LiveLink(link, self._clock, self._sleep)
        try:
            self._set("online", peer=link.peer)
            while True:
                await self._deliver(await live.receive())
        except LinkLost as error:
            return error
        finally:
            self.link = None
            await live.close("the master ended the link")

    async def _deliver(self, message: Message) -> None:
        try:
            await self._on_message(self.entry.id, message)
        except LinkLost as error:
            # Lost while answering: the next read says the same.
            log.debug("answer could not be sent", worker=self.entry.id, cause=error.message)
        except Exception:
            log.exception("a worker's message could not be handled", worker=self.entry.id, type=message.type)

    async def _wait(self, pause_s: float) -> None:
        """Sleeps, or until somebody kicks."""
        loop = asyncio.get_running_loop()
        waits = {loop.create_task(_until(self._sleep(pause_s))), loop.create_task(_until(self._kicked.wait()))}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.wait(waits)

    def _next_pause_s(self) -> float:
        longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures, 10))
        self._failures += 1
        # Half of it is chance, so that many masters do not come back to one worker at the same moment.
        return longest_s * (0.5 + 0.5 * self._random_unit())

    def _set(
        self, state: State, reason: str = "", message: str = "", cure: str = "", peer: PeerInfo | None = None
    ) -> None:
        old = self._health
        same = (old.state, old.reason) == (state, reason)
        since_s = old.since_s if same else self._clock.now_s()
        self._health = WorkerHealth(state, reason, message, cure, since_s, peer=peer)
        if same:
            return
        if state == "online":
            log.info("worker linked", worker=self.entry.id, address=self.entry.address)
        else:
            log.warning("worker is not linked", worker=self.entry.id, reason=reason, cause=message)
        try:
            self._on_state(self.entry.id, self._health)
        except Exception:
            log.exception("a listener of a worker's state failed", worker=self.entry.id)


async def _until(awaitable: Awaitable[object]) -> None:
    await awaitable
