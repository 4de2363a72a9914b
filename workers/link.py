"""A link between two instances: messages both ways over one WebSocket, once both have proved the fleet key.

`dial` and `accept` (in `doors`) make links. A link ends once and for good with a `LinkLost` whose ``details["reason"]``
is one of the words in `LOST`; every later call raises it again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import aiohttp

from ..utils.clock import Clock
from ..utils.errors import FlotillaError, LinkLost
from ..utils.log import get_logger
from .framing import Joiner, split
from .handshake import Established, PeerInfo, Session
from .messages import Bye, Message, dump, parse_message

log = get_logger("workers")

CLOSE_TIMEOUT_S = 1.0
"""How long a closing side waits for the other's part of the closing; then the connection is cut."""

LOST: dict[str, str] = {
    "unreachable": "Check that the worker runs, that the address and port are right, and that no firewall is between.",
    "timeout": "Check that the worker runs and is not overloaded, and that the address leads to it.",
    "closed": "The worker may be restarting; it is tried again by itself.",
    "bye": "The worker may be restarting; it is tried again by itself.",
    "silent": "Check the network between the two, and whether the worker still answers.",
    "malformed": "Check that both run the same version of Flotilla and that no proxy changes the messages.",
    "local": "",
}
"""Every reason for which a link is lost, with what a person can do about it."""


def lost(reason: str, message: str) -> LinkLost:
    """A LinkLost with one of the reasons in `LOST`."""
    return LinkLost(message, cure=LOST[reason], details={"reason": reason})


class Link(Protocol):
    """One live connection to a peer that has proved itself."""

    @property
    def peer(self) -> PeerInfo:
        """Who is at the other end."""
        ...

    @property
    def session(self) -> Session:
        """What only the two ends know."""
        ...

    @property
    def began_s(self) -> float:
        """When the handshake ended, on this side's clock; the session's age for `tokens` counts from here."""
        ...

    @property
    def last_sent_s(self) -> float:
        """When a frame was last handed to the network."""
        ...

    @property
    def last_heard_s(self) -> float:
        """When a frame last came."""
        ...

    async def send(self, message: Message) -> None:
        """Returns when the message is handed to the network; waits while that is full. Raises LinkLost, TooLarge."""
        ...

    async def receive(self) -> Message:
        """The next message; one caller at a time. Raises LinkLost."""
        ...

    async def close(self, reason: str = "") -> None:
        """Says goodbye and ends the link; bounded, never raises, may be called twice."""
        ...

    def abort(self, cause: LinkLost) -> None:
        """Ends the link at once; pending and later calls raise ``cause``."""
        ...


class Socket(Protocol):
    """What the WebSockets of aiohttp's client and server have in common."""

    async def send_str(self, data: str) -> None:
        """Sends a text frame."""
        ...

    async def receive(self) -> aiohttp.WSMessage:
        """The next frame."""
        ...

    async def close(self, *, code: int = 1000, message: bytes = b"") -> bool:
        """Closes in bounded time."""
        ...


class WebSocketLink:
    """A `Link` over an aiohttp WebSocket of either side. ``cut`` breaks the connection beneath it at once."""

    def __init__(self, socket: Socket, established: Established, clock: Clock, cut: Callable[[], Any]) -> None:
        self.peer = established.peer
        self.session = established.session
        self.began_s = self.last_sent_s = self.last_heard_s = clock.now_s()
        self._socket = socket
        self._clock = clock
        self._cut = cut
        self._joiner = Joiner()
        self._one_frame = asyncio.Lock()
        self._one_long_message = asyncio.Lock()
        self._lost: LinkLost | None = None
        self._ending: asyncio.Task[None] | None = None

    async def send(self, message: Message) -> None:
        """See `Link`."""
        frames = list(split(dump(message)))
        if len(frames) == 1:
            await self._send_frame(frames[0])
            return
        async with self._one_long_message:
            for frame in frames:
                await self._send_frame(frame)

    async def receive(self) -> Message:
        """See `Link`."""
        while True:
            text = self._take(await self._next_frame())
            if text is None:
                continue
            try:
                return parse_message(text)
            except FlotillaError as error:
                raise self._malformed(error) from None

    async def close(self, reason: str = "") -> None:
        """See `Link`."""
        if self._lost is None:
            with contextlib.suppress(FlotillaError, asyncio.TimeoutError):
                await asyncio.wait_for(self.send(Bye(reason=reason)), CLOSE_TIMEOUT_S)
        self._end(lost("local", "This side closed the link."))
        if self._ending is not None:
            # The end goes on by itself even if the caller is cancelled here.
            await asyncio.shield(self._ending)

    def abort(self, cause: LinkLost) -> None:
        """See `Link`."""
        if self._lost is None:
            self._cut()
        self._end(cause)

    # Frames

    async def _send_frame(self, frame: str) -> None:
        async with self._one_frame:
            if self._lost is not None:
                raise self._lost
            try:
                await self._socket.send_str(frame)
            except (OSError, RuntimeError, aiohttp.ClientError) as error:
                raise self._end(lost("closed", f"The connection ended while sending ({_name(error)}).")) from error
            self.last_sent_s = self._clock.now_s()

    async def _next_frame(self) -> str:
        if self._lost is not None:
            raise self._lost
        try:
            frame = await self._socket.receive()
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            raise self._end(lost("closed", f"The connection ended ({_name(error)}).")) from error
        if self._lost is not None:
            raise self._lost
        if frame.type is aiohttp.WSMsgType.TEXT:
            self.last_heard_s = self._clock.now_s()
            return str(frame.data)
        if frame.type is aiohttp.WSMsgType.BINARY:
            raise self._malformed("A binary frame came over the link.")
        if frame.type is aiohttp.WSMsgType.ERROR and isinstance(frame.data, aiohttp.WebSocketError):
            raise self._malformed("A frame came that breaks the WebSocket's rules or is too large.")
        raise self._end(lost("closed", "The other side ended the connection."))

    def _take(self, frame: str) -> str | None:
        try:
            return self._joiner.feed(frame)
        except FlotillaError as error:
            raise self._malformed(error) from None

    def _malformed(self, cause: FlotillaError | str) -> LinkLost:
        return self._end(lost("malformed", cause if isinstance(cause, str) else cause.message))

    def _end(self, cause: LinkLost) -> LinkLost:
        """Ends the link for the first cause; returns the cause that counts."""
        if self._lost is None:
            self._lost = cause
            self._ending = asyncio.get_running_loop().create_task(self._shut())
        return self._lost

    async def _shut(self) -> None:
        try:
            await asyncio.wait_for(self._socket.close(), 2 * CLOSE_TIMEOUT_S)
        except (OSError, RuntimeError, aiohttp.ClientError, asyncio.TimeoutError) as error:
            log.debug("link did not close cleanly", peer=self.peer.name, error=_name(error))
        finally:
            self._cut()


def _name(error: BaseException) -> str:
    return type(error).__name__
