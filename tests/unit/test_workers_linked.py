"""Links over real sockets after the handshake: rubbish, a peer that stops reading or dies, and what is left open."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from fakes.doors import KEY, MASTER, SOON_S, acceptor, dialled, served, serving
from flotilla.utils.errors import LinkLost
from flotilla.workers import framing
from flotilla.workers.doors import accept
from flotilla.workers.entries import make_entry
from flotilla.workers.heart import LiveLink
from flotilla.workers.link import WebSocketLink
from flotilla.workers.messages import AskCapabilities, Capabilities, dump
from flotilla.workers.pool import NetworkDialler


async def until_closed(raw: Any) -> None:
    while raw.fileno() != -1:
        await asyncio.sleep(0.01)


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[WebSocketLink, WebSocketLink]]:
    """The master's link and the worker's, whose bare sockets (`_socket`) can misbehave."""
    links: asyncio.Queue[WebSocketLink] = asyncio.Queue()
    done = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        link, response = await accept(request, acceptor())
        links.put_nowait(link)
        await done.wait()
        request.transport.abort()  # type: ignore[union-attr]
        return response

    async with served(handler) as address, dialled(address) as link:
        try:
            yield link, await links.get()
        finally:
            done.set()


TOO_LONG_A_FRAME = dump(Capabilities(data={"x": "y" * framing.MAX_FRAME_BYTES}))


@pytest.mark.parametrize("frame", [b"binary", "{}", "text", ">piece", TOO_LONG_A_FRAME], ids=range(5))
@pytest.mark.parametrize("offender", ["worker", "master"])
async def test_rubbish_on_a_link_ends_it(frame: str | bytes, offender: str) -> None:
    async with linked() as (master, worker):
        bad, good = (worker, master) if offender == "worker" else (master, worker)
        socket: Any = bad._socket
        await (socket.send_bytes(frame) if isinstance(frame, bytes) else socket.send_str(frame))
        with pytest.raises(LinkLost) as caught:
            await asyncio.wait_for(good.receive(), SOON_S)
        assert caught.value.details["reason"] == "malformed"


async def test_a_huge_message_in_pieces_ends_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_MESSAGE_BYTES", 1_000_000)
    async with linked() as (link, worker):
        for piece in ("<" + "{" * 200_000, *("+" + "x" * 200_000 for _ in range(4)), "+x"):
            await worker._socket.send_str(piece)
        with pytest.raises(LinkLost) as caught:
            await asyncio.wait_for(link.receive(), SOON_S)
        assert caught.value.details["reason"] == "malformed"


async def test_a_peer_that_stops_reading_blocks_the_sender_until_the_link_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("doors", "link"):  # giving up must not wait for any closing by the book
        monkeypatch.setattr(f"flotilla.workers.{module}.CLOSE_TIMEOUT_S", 60.0)
    async with linked() as (link, _):
        big = Capabilities(data={"x": "y" * 1_000_000})

        async def flood() -> None:
            while True:
                await link.send(big)

        flooding = asyncio.ensure_future(flood())
        done, _ = await asyncio.wait({flooding}, timeout=0.5)
        assert not done, "the sender must wait while the network is full"
        live = LiveLink(link)
        live.abort(LinkLost("given up", details={"reason": "silent"}))
        with pytest.raises(LinkLost):
            await asyncio.wait_for(flooding, SOON_S)
        await asyncio.wait_for(live.close(), SOON_S)


async def test_a_close_towards_a_peer_that_stops_reading_is_bounded_and_leaves_no_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("doors", "link"):
        monkeypatch.setattr(f"flotilla.workers.{module}.CLOSE_TIMEOUT_S", 0.1)
    async with linked() as (link, _):
        client: Any = link._socket
        raw = client.get_extra_info("socket")
        flooding = asyncio.ensure_future(link.send(Capabilities(data={"x": "y" * 20_000_000})))
        done, _ = await asyncio.wait({flooding}, timeout=0.3)
        assert not done
        await asyncio.wait_for(link.close(), SOON_S)
        with pytest.raises(LinkLost):
            await asyncio.wait_for(flooding, SOON_S)
        await asyncio.wait_for(until_closed(raw), SOON_S)


async def test_a_worker_that_dies_is_noticed_at_once() -> None:
    async with linked() as (link, worker):
        worker._cut()
        with pytest.raises(LinkLost) as caught:
            await asyncio.wait_for(link.receive(), SOON_S)
        assert caught.value.details["reason"] == "closed"


async def test_the_network_dialler_shares_a_session_and_leaves_nothing_open() -> None:
    async with served(serving()) as address:
        dialler = NetworkDialler(KEY, MASTER)
        await dialler.close()
        entry = make_entry({"id": "a", "name": "a", "address": str(address)})
        for _ in range(2):  # it can be used again after a close
            links = [await dialler(entry) for _ in range(2)]
            for link in links:
                await link.send(AskCapabilities())
                assert await link.receive() == AskCapabilities()
            await asyncio.gather(*(link.close() for link in links))
            await dialler.close()
            await dialler.close()
    gc.collect()  # an unclosed session or connector would warn, and warnings of that kind fail tests
