"""Sending a blob's file: every byte, again after a break, and an end that says why."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from fakes.certificates import make_certificate
from flotilla.transport.http_put import HttpPut, put_file
from flotilla.transport.limits import MIB, FetchPolicy
from flotilla.utils.errors import (
    Conflict,
    FetchFailed,
    FlotillaError,
    InvalidBlob,
    InvalidInput,
    NotAllowed,
    NotFound,
    SpoolFull,
    TooLarge,
)

DATA = bytes(range(256)) * (3 * MIB // 256)
QUICK = FetchPolicy(max_tries=3, idle_timeout_s=5.0, connect_timeout_s=5.0)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Receiver:
    """Answers with the next of ``statuses``, the last one again and again; keeps what was sent."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.url = ""
        self.got: list[bytes] = []
        self.headers: list[dict[str, str]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        self.got.append(await request.content.read())
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        words = {"error": {"code": "x", "message": "Because of this.", "cure": "", "details": {}}}
        return web.json_response(words, status=status)


@asynccontextmanager
async def receiving(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_put("/blob", handler)
    server = TestServer(app, scheme="https" if context else "http")
    await server.start_server(ssl=context)
    try:
        yield str(server.make_url("/blob"))
    finally:
        await server.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "blob"
    made.write_bytes(DATA)
    return made


async def put(url: str, path: Path, size_bytes: int = len(DATA), **options: Any) -> tuple[bool, list[float]]:
    """`put_file` without waiting, and the pauses that it would have made."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    settings: dict[str, Any] = {"headers": dict, "policy": QUICK, "sleep": sleep}
    return await put_file(url, path, size_bytes, **{**settings, **options}), pauses


@pytest.mark.parametrize(("status", "is_new"), [(201, True), (200, False)])
async def test_every_byte_arrives(path: Path, status: int, is_new: bool) -> None:
    receiver = Receiver(status)
    async with receiving(receiver.handle) as url:
        assert await put(url, path, headers=lambda: {"Authorization": "me"}) == (is_new, [])
    assert receiver.got == [DATA]
    assert receiver.headers[0]["Content-Length"] == str(len(DATA))
    assert receiver.headers[0]["Authorization"] == "me"


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 429])
async def test_what_may_pass_is_tried_again_from_the_start_with_new_headers(path: Path, status: int) -> None:
    receiver = Receiver(status, 201)
    asked = iter(["first", "second"])
    async with receiving(receiver.handle) as url:
        is_new, pauses = await put(url, path, headers=lambda: {"Authorization": next(asked)})
    assert is_new
    assert pauses == [QUICK.backoff_first_s]
    assert receiver.got == [DATA, DATA]
    assert [headers["Authorization"] for headers in receiver.headers] == ["first", "second"]


async def test_a_connection_cut_in_the_middle_is_made_again(path: Path) -> None:
    receiver = Receiver(201)
    cuts = [2]

    async def handle(request: web.Request) -> web.StreamResponse:
        if cuts[0]:
            cuts[0] -= 1
            await request.content.read(1_000)
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return await receiver.handle(request)

    async with receiving(handle) as url:
        assert await put(url, path) == (True, [0.1, 0.2])
    assert receiver.got == [DATA]


async def test_it_gives_up_and_says_why(path: Path) -> None:
    receiver = Receiver(503)
    async with receiving(receiver.handle) as url:
        with pytest.raises(FetchFailed, match=r"in 3 tries: the receiver answered 503"):
            await put(url, path)
    assert len(receiver.got) == 3


async def test_nobody_listens(path: Path, unused_tcp_port: int) -> None:
    with pytest.raises(FetchFailed, match="in 3 tries"):
        await put(f"http://127.0.0.1:{unused_tcp_port}/blob", path)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, NotAllowed),
        (403, NotAllowed),
        (404, NotFound),
        (405, NotFound),
        (409, Conflict),
        (413, TooLarge),
        (507, SpoolFull),
        (411, FetchFailed),
        (302, FetchFailed),
    ],
)
async def test_a_refusal_is_told_with_the_receivers_words(path: Path, status: int, kind: type[FlotillaError]) -> None:
    receiver = Receiver(status)
    async with receiving(receiver.handle) as url:
        with pytest.raises(kind, match="Because of this") as caught:
            await put(url, path)
    assert caught.value.details == {"status": status}
    assert len(receiver.got) == 1


async def test_a_refusal_that_comes_before_all_was_sent(tmp_path: Path) -> None:
    """Many megabytes more than any buffer between the two holds: sending breaks, and the answer counts all the same."""
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(256 * MIB)

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.json_response({"error": {"message": "Full."}}, status=507)
        response.force_close()
        await response.prepare(request)
        await response.write_eof()
        assert request.transport is not None
        request.transport.close()
        return response

    async with receiving(handle) as url:
        with pytest.raises((SpoolFull, FetchFailed)):
            await put(url, large, 256 * MIB)


async def test_bytes_that_arrive_wrong_are_sent_once_more(path: Path) -> None:
    receiver = Receiver(400, 201)
    async with receiving(receiver.handle) as url:
        assert (await put(url, path))[0]
    receiver = Receiver(400)
    async with receiving(receiver.handle) as url:
        with pytest.raises(InvalidBlob, match="Because of this"):
            await put(url, path)
    assert len(receiver.got) == 2


async def test_a_file_that_is_not_the_one_is_not_sent(path: Path) -> None:
    receiver = Receiver(201)
    async with receiving(receiver.handle) as url:
        with pytest.raises(InvalidBlob, match=f"has {len(DATA)} bytes"):
            await put(url, path, len(DATA) + 1)
        with pytest.raises(NotFound):
            await put(url, path.with_name("missing"))
    assert receiver.got == []


async def test_cancelling_cuts_the_connection(path: Path) -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        begun.set()
        try:
            await request.content.read()
            await asyncio.Event().wait()
        finally:
            over.set()
        return web.Response()

    app = web.Application()
    app.router.add_put("/blob", handle)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        task = asyncio.ensure_future(put(f"http://127.0.0.1:{port}/blob", path))
        await asyncio.wait_for(begun.wait(), 5.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(over.wait(), 5.0)
    finally:
        await runner.cleanup()


async def test_a_receiver_that_says_nothing(path: Path) -> None:
    never = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    async with receiving(handle) as url:
        policy = FetchPolicy(max_tries=2, idle_timeout_s=0.05, connect_timeout_s=5.0)
        with pytest.raises(FetchFailed, match="no byte came"):
            await put(url, path, policy=policy)
        never.set()


async def test_tls(path: Path, tmp_path: Path) -> None:
    key, certificate = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    receiver = Receiver(201)
    async with receiving(receiver.handle, context) as url:
        assert (await put(url, path, tls=ssl.create_default_context(cafile=str(certificate))))[0]
        with pytest.raises(FetchFailed, match="certificate is not trusted"):
            await put(url, path)
    assert receiver.got == [DATA]


async def test_a_bad_address_is_refused_before_anything_else(path: Path) -> None:
    with pytest.raises(InvalidInput):
        await put("ftp://127.0.0.1/blob", path)


async def test_no_byte_is_sent_from_the_event_loop(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()
    exchange = HttpPut._exchange

    def noting(self: HttpPut, connection: Any) -> None:
        threads.add(threading.get_ident())
        exchange(self, connection)

    monkeypatch.setattr(HttpPut, "_exchange", noting)
    receiver = Receiver(201)
    async with receiving(receiver.handle) as url:
        await put(url, path)
    assert threads
    assert threading.get_ident() not in threads
