"""A master made of the pack's own link code, without a ComfyUI around it: to ask a real worker what masters may."""

from __future__ import annotations

import contextlib
from typing import Any

import aiohttp
from flotilla.utils.errors import LinkLost
from flotilla.workers.address import parse_address
from flotilla.workers.doors import dial
from flotilla.workers.handshake import Dialler, Identity
from flotilla.workers.heart import LiveLink
from flotilla.workers.key import FleetKey
from flotilla.workers.tokens import issue

from .background import Background

BLOBS = "/distributed/v2/blobs/"
IDENTITY = Identity(
    instance_id="00000000-0000-4000-8000-00000000ab1e", name="test master", version="0.0.1", home_id="test-master"
)


class LinkedMaster(Background):
    """Holds a link to the worker at ``url`` for the length of a ``with`` block.

    Attributes:
        session_key: The 32 bytes that sign this link's blob requests.
        ended: Whether the worker has ended the link after `send_raw`.
    """

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = FleetKey(key.encode())
        self.session_key = b""
        self.ended = False

    async def _open(self) -> None:
        self._session = aiohttp.ClientSession()
        link = await dial(self._session, parse_address(self._url), Dialler(self._key, IDENTITY))
        self._bare = link
        self._link = LiveLink(link)
        self._link_session = link.session
        self.session_key = link.session.key

    async def _close(self) -> None:
        await self._link.close("the test is over")
        await self._session.close()

    def token(self, path: str, method: str = "GET") -> dict[str, str]:
        """The header that proves this link for one request."""
        value = issue(self._link_session.key, self._link_session.id, method, path, 0.0)
        return {"Authorization": value}

    def send_raw(self, text: str) -> None:
        """Sends a text frame past all checks of this side; `ended` then tells whether the worker ended the link."""

        async def send() -> None:
            await self._bare._socket.send_str(text)

        self.call(send())
        self.start(self._until_end())

    async def _until_end(self) -> None:
        with contextlib.suppress(LinkLost):
            while True:
                await self._link.receive()
        self.ended = True

    def first_messages(self, count: int) -> list[Any]:
        """The first messages that the worker says of itself."""

        async def read() -> list[Any]:
            return [await self._link.receive() for _ in range(count)]

        return self.call(read())
