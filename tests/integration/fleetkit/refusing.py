"""Servers that answer the link's handshake as an instance of another time would."""

from __future__ import annotations

from aiohttp import web

from .background import Server

LINK_PATH = "/distributed/v2/link"
OTHER_PROTOCOL = 99
OTHER_VERSION = "99.0.0"


async def _speak_another_protocol(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.receive()
    hello = {
        "type": "hello",
        "protocol_min": OTHER_PROTOCOL,
        "protocol_max": OTHER_PROTOCOL,
        "name": "from the future",
        "version": OTHER_VERSION,
        "something": {"new": True},
    }
    await socket.send_json(hello)
    await socket.receive()
    return socket


def from_the_future() -> Server:
    """A worker that speaks only `OTHER_PROTOCOL`, and shapes the rest of its hello as nobody knows today."""
    return Server(LINK_PATH, _speak_another_protocol)
