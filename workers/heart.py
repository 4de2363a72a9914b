"""Heartbeats of a link.

A link that carries nothing for a while gets a Ping; one that stays silent too long is declared lost, because a broken
network often tells nobody. Both sides do the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ..utils.clock import Clock, SystemClock
from ..utils.errors import FlotillaError, LinkLost
from .handshake import PeerInfo, Session
from .link import Link, lost
from .messages import Bye, Message, Ping, Pong

PING_AFTER_S = 2.0
SILENCE_S = 10.0
UNREAD_SILENCE_S = 60.0
"""The same while nobody reads: then what the peer says may lie here unread, yet not for ever."""

LATE_S = 1.0
"""A tick that comes later than this tells that this process itself was held up, so the silence may be its own."""

MAX_SENDING = 4
"""Heartbeats that may wait for a full network at once; further ones are dropped."""

Sleep = Callable[[float], Awaitable[Any]]


class Heart:
    """Keeps one link alive and notices its death. ``rtt_s`` is the latest round trip, None until one was measured;
    ``reading`` says whether somebody waits for messages now."""

    def __init__(self, link: Link, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        self._link = link
        self._clock = clock
        self._sleep = sleep
        self._sending: set[asyncio.Task[None]] = set()
        self.rtt_s: float | None = None
        self.reading = False

    async def run(self) -> None:
        """Beats until cancelled, or until the link was silent too long: then it is aborted and this returns."""
        try:
            while True:
                now_s = self._clock.now_s()
                silent_s = now_s - self._link.last_heard_s
                limit_s = SILENCE_S if self.reading else UNREAD_SILENCE_S
                if silent_s >= limit_s:
                    self._link.abort(lost("silent", f"Nothing was heard over the link for {silent_s:.0f} s."))
                    return
                idle_s = now_s - self._link.last_sent_s
                if idle_s >= PING_AFTER_S:
                    self._send(Ping(sent_s=now_s))
                    idle_s = 0.0
                await self._tick(min(PING_AFTER_S - idle_s, limit_s - silent_s))
        finally:
            for task in list(self._sending):
                task.cancel()

    def answer(self, ping: Ping) -> None:
        """Answers in the background: a reader that waits for the network to take its answer would stop reading."""
        self._send(Pong(sent_s=ping.sent_s))

    def hear(self, pong: Pong) -> None:
        """Takes the answer to a Ping."""
        self.rtt_s = max(0.0, self._clock.now_s() - pong.sent_s)

    async def _tick(self, seconds: float) -> None:
        due_s = self._clock.now_s() + seconds
        await self._sleep(seconds)
        if self._clock.now_s() - due_s > LATE_S:
            # What arrived meanwhile is still unread; let it be read before judging.
            await self._sleep(LATE_S)

    def _send(self, message: Ping | Pong) -> None:
        if len(self._sending) >= MAX_SENDING:
            return
        task = asyncio.get_running_loop().create_task(self._quietly(self._link.send(message)))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    @staticmethod
    async def _quietly(sending: Coroutine[Any, Any, None]) -> None:
        # The reader learns of a lost link by itself.
        with contextlib.suppress(FlotillaError):
            await sending


class LiveLink:
    """A `Link` that keeps itself alive: heartbeats run by themselves and never come out of ``receive``.

    Needs a running loop; ends with ``close`` or ``abort`` like any link.
    """

    def __init__(self, link: Link, clock: Clock | None = None, sleep: Sleep = asyncio.sleep) -> None:
        self._link = link
        self._heart = Heart(link, clock or SystemClock(), sleep)
        self._beating = asyncio.get_running_loop().create_task(self._heart.run())

    @property
    def peer(self) -> PeerInfo:
        """Who is at the other end."""
        return self._link.peer

    @property
    def session(self) -> Session:
        """What only the two ends know."""
        return self._link.session

    @property
    def began_s(self) -> float:
        """When the handshake ended, on this side's clock."""
        return self._link.began_s

    @property
    def last_sent_s(self) -> float:
        """When a frame was last handed to the network."""
        return self._link.last_sent_s

    @property
    def last_heard_s(self) -> float:
        """When a frame last came."""
        return self._link.last_heard_s

    @property
    def rtt_s(self) -> float | None:
        """The latest round trip in seconds, None until one was measured."""
        return self._heart.rtt_s

    async def send(self, message: Message) -> None:
        """See `Link`."""
        await self._link.send(message)

    async def receive(self) -> Message:
        """See `Link`."""
        while True:
            self._heart.reading = True
            try:
                message = await self._link.receive()
            finally:
                self._heart.reading = False
            if isinstance(message, Ping):
                self._heart.answer(message)
            elif isinstance(message, Pong):
                self._heart.hear(message)
            elif isinstance(message, Bye):
                self._link.abort(
                    lost("bye", f"{self.peer.name} closed the link: {message.reason or 'no reason given'}.")
                )
            else:
                return message

    async def close(self, reason: str = "") -> None:
        """See `Link`."""
        self._beating.cancel()
        try:
            await self._link.close(reason)
        finally:
            await asyncio.wait({self._beating})

    def abort(self, cause: LinkLost) -> None:
        """See `Link`."""
        self._link.abort(cause)
