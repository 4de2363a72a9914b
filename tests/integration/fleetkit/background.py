"""An asyncio loop in a thread beside the test: for websocket listeners and small servers."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
from aiohttp import web

from .client import Client
from .waiting import eventually

Result = TypeVar("Result")
Self = TypeVar("Self", bound="Background")

CALL_TIMEOUT_S = 10.0

PREVIEW, PREVIEW_WITH_METADATA = 1, 4
"""The host's numbers of binary messages that carry a picture."""


class Background:
    """Runs coroutines in a thread of its own; a context manager.

    What lives there overrides `_open` and `_close`, which run in that thread at the block's begin and end.
    """

    def __enter__(self: Self) -> Self:
        self._started: list[Future[None]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-background", daemon=True)
        self._thread.start()
        self.call(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.call(self._close())
        finally:
            for work in self._started:
                work.cancel()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _open(self) -> None:
        """Begins what lives here; nothing by itself."""

    async def _close(self) -> None:
        """Ends it."""

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Lets a coroutine run on its own until the block ends."""
        self._started.append(asyncio.run_coroutine_threadsafe(work, self._loop))

    def call(self, work: Coroutine[Any, Any, Result], timeout_s: float = CALL_TIMEOUT_S) -> Result:
        """The coroutine's result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)


class Listener(Background):
    """What a browser tab hears of its prompts: the JSON messages of the host's websocket, in order.

    Attributes:
        client_id: To be sent with the prompts whose messages are wanted.
        messages: ``(type, data)`` of every message so far.
        pictures: ``(metadata, image file)`` of every preview so far; older clients get no metadata.
    """

    def __init__(self, client: Client, *, takes_metadata: bool = True) -> None:
        """``takes_metadata``: whether it tells the host that it can show pictures on any node."""
        self.client_id = uuid.uuid4().hex
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.pictures: list[tuple[dict[str, Any], bytes]] = []
        self._takes_metadata = takes_metadata
        self._url = f"{client.url}/ws?clientId={self.client_id}"

    def __enter__(self: Self) -> Self:
        super().__enter__()
        eventually(lambda: self.messages, "the websocket's first message")
        return self

    async def _open(self) -> None:
        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(self._url, max_msg_size=0)
        flags = {"supports_preview_metadata": self._takes_metadata}
        await self._socket.send_json({"type": "feature_flags", "data": flags})
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type == aiohttp.WSMsgType.TEXT:
                told = json.loads(message.data)
                self.messages.append((told["type"], told["data"]))
            elif message.type == aiohttp.WSMsgType.BINARY:
                self._see(message.data)

    def _see(self, data: bytes) -> None:
        (kind,) = struct.unpack_from(">I", data)
        if kind == PREVIEW:
            self.pictures.append(({}, data[8:]))
        elif kind == PREVIEW_WITH_METADATA:
            (count,) = struct.unpack_from(">I", data, 4)
            self.pictures.append((json.loads(data[8 : 8 + count]), data[8 + count :]))

    async def _close(self) -> None:
        await self._socket.close()
        await self._session.close()
        await asyncio.wait([self._reader], timeout=CALL_TIMEOUT_S)

    def of(self, kind: str, prompt_id: str) -> list[dict[str, Any]]:
        """The messages of one type about one prompt."""
        return [data for data in self.told(kind) if data.get("prompt_id") == prompt_id]

    def told(self, kind: str) -> list[dict[str, Any]]:
        """All messages of one type."""
        return [data for name, data in list(self.messages) if name == kind]


class Server(Background):
    """A small HTTP server on a free loopback port, for the length of a ``with`` block.

    Attributes:
        url: Where it answers.
    """

    def __init__(self, path: str, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self._app = web.Application()
        self._app.router.add_route("*", path, handler)
        self.url = ""

    async def _open(self) -> None:
        self._runner = web.AppRunner(self._app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _close(self) -> None:
        await self._runner.cleanup()
