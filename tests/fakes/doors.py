"""Both doors over real sockets: a server that serves a link, and one dialled link to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from flotilla.workers.address import LINK_PATH, WorkerAddress, parse_address
from flotilla.workers.doors import dial, serve_link
from flotilla.workers.handshake import Acceptor, Dialler, Identity
from flotilla.workers.heart import LiveLink
from flotilla.workers.key import FleetKey
from flotilla.workers.link import WebSocketLink

KEY = FleetKey(b"k" * 43)
MASTER = Identity("master-id", "Master", "0.2.0", "master-home")
WORKER = Identity("worker-id", "GPU box", "0.1.0", "worker-home")
SOON_S = 5.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(handler: Handler | None, prefix: str = "") -> AsyncIterator[WorkerAddress]:
    app = web.Application()
    if handler is not None:
        app.router.add_get(prefix + LINK_PATH, handler)
    async with TestServer(app) as server:
        yield parse_address(f"127.0.0.1:{server.port}{prefix}")


def acceptor(key: FleetKey | None = KEY, me: Identity = WORKER) -> Acceptor:
    return Acceptor(key, me, True)


@asynccontextmanager
async def dialled(address: WorkerAddress, dialler: Dialler | None = None) -> AsyncIterator[WebSocketLink]:
    async with aiohttp.ClientSession() as session:
        link = await dial(session, address, dialler or Dialler(KEY, MASTER), timeout_s=SOON_S)
        try:
            yield link
        finally:
            await link.close()


async def echo(link: LiveLink) -> None:
    while True:
        await link.send(await link.receive())


def serving(key: FleetKey | None = KEY, me: Identity = WORKER) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await serve_link(request, acceptor(key, me), echo)

    return handler
