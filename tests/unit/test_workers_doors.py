"""Dialling and accepting over real sockets: every way in which it can go wrong ends soon, with a reason and a cure."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from fakes.doors import KEY, MASTER, SOON_S, WORKER, acceptor, dialled, echo, served, serving
from flotilla.utils.errors import FlotillaError, InvalidInput, LinkLost, LinkRefused
from flotilla.workers import framing
from flotilla.workers.address import LINK_PATH, WorkerAddress, parse_address
from flotilla.workers.doors import REFUSED_BEFORE, accept, dial, peer_is_loopback, serve_link
from flotilla.workers.handshake import REASONS, Acceptor, Dialler, Identity
from flotilla.workers.key import FleetKey
from flotilla.workers.link import LOST
from flotilla.workers.messages import AskCapabilities


@asynccontextmanager
async def raw_server(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[WorkerAddress]:
    writers: list[asyncio.StreamWriter] = []

    async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await talk(reader, writer)

    server = await asyncio.start_server(on_connect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield parse_address(f"127.0.0.1:{port}")
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def failure(address: WorkerAddress, dialler: Dialler | None = None, timeout_s: float = SOON_S) -> FlotillaError:
    """The error of a dial that must fail soon, and leave nothing open."""
    session = aiohttp.ClientSession()
    with pytest.raises((LinkRefused, LinkLost)) as caught:
        await asyncio.wait_for(dial(session, address, dialler or Dialler(KEY, MASTER), timeout_s=timeout_s), 2 * SOON_S)
    await asyncio.sleep(0)
    assert session.connector is not None
    assert not session.connector._acquired  # type: ignore[attr-defined]
    await session.close()
    error: FlotillaError = caught.value
    reason = error.details["reason"]
    assert error.message
    assert error.cure == {**LOST, **REASONS, **REFUSED_BEFORE}[reason]
    return error


@pytest.mark.parametrize("prefix", ["", "/comfy"])
async def test_a_link_works_behind_a_prefix_too(prefix: str) -> None:
    async with served(serving(), prefix) as address, dialled(address) as link:
        await link.send(AskCapabilities())
        assert await link.receive() == AskCapabilities()


@pytest.mark.parametrize(
    ("worker_key", "master_key", "worker", "reason"),
    [
        (FleetKey(b"o" * 43), KEY, WORKER, "wrong_key"),
        (None, KEY, WORKER, "worker_has_no_key"),
        (KEY, None, WORKER, "no_key_here"),
        (KEY, KEY, replace(WORKER, protocol_min=7, protocol_max=8), "protocol"),
        (KEY, KEY, replace(WORKER, instance_id="master-id"), "itself"),
    ],
)
async def test_refusals_of_the_handshake(
    worker_key: FleetKey | None, master_key: FleetKey | None, worker: Identity, reason: str
) -> None:
    async with served(serving(worker_key, worker)) as address:
        error = await failure(address, Dialler(master_key, MASTER))
    assert isinstance(error, LinkRefused)
    assert error.reason == reason


async def test_no_key_on_either_side_works_over_loopback() -> None:
    async with served(serving(None)) as address, dialled(address, Dialler(None, MASTER)) as link:
        assert not link.peer.proved


async def test_without_a_key_other_machines_are_not_even_dialled() -> None:
    error = await failure(parse_address("192.0.2.1:8188"), Dialler(None, MASTER))
    assert error.details["reason"] == "loopback_only"


async def test_a_worker_without_a_key_refuses_what_a_tunnel_brings() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        assert not peer_is_loopback(request.clone(headers={**request.headers, "CF-Connecting-IP": "203.0.113.9"}))
        assert peer_is_loopback(request)
        return await serve_link(request, Acceptor(None, WORKER, False), echo)

    async with served(handler) as address:
        error = await failure(address, Dialler(None, MASTER))
    assert error.details["reason"] == "loopback_only"


async def test_a_server_without_the_route() -> None:
    async with served(None) as address:
        error = await failure(address)
    assert error.details["reason"] == "not_flotilla"
    assert "404" in error.message


@pytest.mark.parametrize(
    ("status", "reason"),
    [(200, "not_flotilla"), (401, "login"), (403, "login"), (502, "unreachable"), (503, "unreachable")],
)
async def test_other_answers_of_http(status: int, reason: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="<html>")

    async with served(handler) as address:
        assert (await failure(address)).details["reason"] == reason


async def test_a_redirect_is_not_followed() -> None:
    visited: list[str] = []

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        visited.append(request.path)
        return await serving()(request)

    async with served(elsewhere) as target:

        async def handler(request: web.Request) -> web.StreamResponse:
            raise web.HTTPTemporaryRedirect(target.url(LINK_PATH))

        async with served(handler) as address:
            error = await failure(address)
    assert error.details["reason"] == "redirected"
    assert visited == []


async def test_nothing_listens() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        error = await failure(parse_address(f"127.0.0.1:{reserved.getsockname()[1]}"))
    assert isinstance(error, LinkLost)
    assert error.details["reason"] == "unreachable"
    assert "nothing listens" in error.message


async def test_an_unknown_host_name() -> None:
    error = await failure(parse_address("no-such-host.invalid:8188"))
    assert error.details["reason"] == "unreachable"


async def test_a_server_that_takes_the_connection_and_says_nothing() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_server(silent) as address:
        error = await failure(address, timeout_s=0.3)
    assert isinstance(error, LinkLost)
    assert error.details["reason"] == "timeout"


async def test_a_server_that_upgrades_and_says_nothing() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.WebSocketResponse()
        await response.prepare(request)
        await response.receive()  # the hello
        await response.receive()  # the end of the connection
        return response

    async with served(handler) as address:
        error = await failure(address, timeout_s=0.3)
    assert error.details["reason"] == "timeout"


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.6\r\n", b"\x15\x03\x01\x00\x02\x02\x50", b"rubbish\r\n\r\n"])
async def test_a_server_of_another_kind(greeting: bytes) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await writer.drain()
        await reader.read()

    async with raw_server(other) as address:
        error = await failure(address, timeout_s=1.0)
    assert error.details["reason"] == "not_flotilla"


async def test_a_server_that_hangs_up() -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with raw_server(rude) as address:
        error = await failure(address)
    assert isinstance(error, LinkLost)
    assert error.details["reason"] == "unreachable"


async def test_https_to_a_server_that_speaks_http() -> None:
    async with served(serving()) as address:
        error = await failure(WorkerAddress("https", address.host, address.port))
    assert isinstance(error, LinkRefused)
    assert error.reason == "tls"


@pytest.mark.parametrize(
    "frame",
    [
        b"binary",
        "not json",
        "[]",
        "[" * 10_000,
        json.dumps({"type": "hello", "x": "y" * 20_000}),
        "x" * (framing.MAX_FRAME_BYTES + 10),
        json.dumps({"type": "proof", "mac": "0" * 64}),
    ],
    ids=["binary", "text", "list", "deep", "long", "huge", "early proof"],
)
async def test_rubbish_in_the_handshake_from_either_side(frame: str | bytes) -> None:
    async def send(socket: Any) -> None:
        await (socket.send_bytes(frame) if isinstance(frame, bytes) else socket.send_str(frame))

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.WebSocketResponse()
        await response.prepare(request)
        await send(response)
        async for _ in response:
            pass
        return response

    async with served(handler) as address:
        error = await failure(address)
    assert error.details["reason"] == "malformed"

    caught: list[FlotillaError] = []

    async def accepting(request: web.Request) -> web.StreamResponse:
        try:
            await accept(request, acceptor())
        except FlotillaError as error:
            caught.append(error)
        return web.Response()

    async with (
        served(accepting) as address,
        aiohttp.ClientSession() as session,
        session.ws_connect(address.link_url()) as stranger,
    ):
        await send(stranger)
        async for message in stranger:
            assert json.loads(message.data)["type"] == "refused"
    assert [error.details["reason"] for error in caught] == ["malformed"]


async def test_a_stranger_that_connects_and_says_nothing_is_dropped() -> None:
    caught: list[FlotillaError] = []

    async def accepting(request: web.Request) -> web.StreamResponse:
        try:
            await accept(request, acceptor(), timeout_s=0.2)
        except FlotillaError as error:
            caught.append(error)
        return web.Response()

    async with (
        served(accepting) as address,
        aiohttp.ClientSession() as session,
        session.ws_connect(address.link_url()) as stranger,
    ):
        message = await asyncio.wait_for(stranger.receive(), SOON_S)
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.ERROR)
    assert [error.details["reason"] for error in caught] == ["timeout"]


async def test_web_pages_and_plain_requests_are_turned_away() -> None:
    caught: list[FlotillaError] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            return await serve_link(request, acceptor(None), echo)
        except FlotillaError as error:
            caught.append(error)
            return web.Response(status=error.status)

    async with served(handler) as address, aiohttp.ClientSession() as session:
        async with session.get(address.url(LINK_PATH)) as answer:
            assert answer.status == 400
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(address.link_url(), origin="http://127.0.0.1")
    assert isinstance(caught[0], InvalidInput)
    assert caught[1].details["reason"] == "browser"
