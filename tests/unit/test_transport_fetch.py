"""Bringing a blob over: one contract for the file next door and for HTTP; cancelling, threads, TLS and addresses."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp import web
from aiohttp.test_utils import TestServer
from blake3 import blake3
from fakes.certificates import make_certificate
from fakes.peer import BATCH_BYTES, QUICK, Parcel, Peer, announcing, fetch, make_parcel, plain, run_peer, whole
from flotilla.transport import http_get
from flotilla.transport.codec import plan_blob
from flotilla.transport.fetch import Sink, read_local
from flotilla.transport.http_get import Target
from flotilla.transport.limits import KIB, MIB, TransportLimits
from flotilla.transport.manifest import BlobManifest
from flotilla.transport.values import IMAGE, Value
from flotilla.utils.errors import FetchFailed, InvalidBlob, InvalidInput, NotFound


@pytest.fixture(scope="module")
def parcel() -> Parcel:
    return make_parcel()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with run_peer() as running:
        yield running


async def let_threads_end() -> None:
    """Waits for the fetching threads; one that hangs is a failure."""
    for thread in [thread for thread in threading.enumerate() if thread.name == "flotilla-fetch"]:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()


# -- the contract, over both ways ------------------------------------------------------------------------------

Bring = Callable[..., Awaitable[None]]


@pytest.fixture(params=["local", "http"])
async def bring(request: pytest.FixtureRequest, peer: Peer, tmp_path: Path) -> Bring:
    """Brings ``data`` over as the blob of a manifest."""

    async def local(data: bytes, manifest: BlobManifest, sink: Sink, **options: Any) -> None:
        path = tmp_path / "blob"
        path.write_bytes(data)
        await asyncio.to_thread(read_local, path, manifest, sink, **options)

    async def http(data: bytes, manifest: BlobManifest, sink: Sink, **options: Any) -> None:
        peer.handler = whole(data, tmp_path)
        await fetch(peer, manifest, sink, **options)

    return local if request.param == "local" else http


async def test_every_byte_arrives(bring: Bring, parcel: Parcel) -> None:
    sink = parcel.fresh()
    await bring(parcel.data, parcel.manifest, sink)
    assert parcel.is_filled(sink)


@pytest.mark.parametrize("length", [0, 7, 200, 5000, -1])
async def test_too_little(bring: Bring, parcel: Parcel, length: int) -> None:
    with pytest.raises(InvalidBlob):
        await bring(parcel.data[:length], parcel.manifest, parcel.fresh())


async def test_too_much(bring: Bring, parcel: Parcel) -> None:
    with pytest.raises(InvalidBlob):
        await bring(parcel.data + b"x", parcel.manifest, parcel.fresh())


@pytest.mark.parametrize("place", [3, 100, 4000, -1])
async def test_one_wrong_byte(bring: Bring, parcel: Parcel, place: int) -> None:
    wrong = bytearray(parcel.data)
    wrong[place] ^= 1
    with pytest.raises(InvalidBlob, match="hash"):
        await bring(bytes(wrong), parcel.manifest, parcel.fresh())


async def test_a_header_that_tells_another_story_than_the_manifest(bring: Bring, parcel: Parcel) -> None:
    first, *rest = parcel.manifest.tensors
    other = replace(parcel.manifest, tensors=(replace(first, shape=first.shape[::-1]), *rest))
    with pytest.raises(InvalidBlob, match="something else"):
        await bring(parcel.data, other, parcel.fresh())
    other = replace(parcel.manifest, values={**parcel.manifest.values, "facts": {"kind": "JSON", "json": {"a": 2}}})
    with pytest.raises(InvalidBlob, match="something else"):
        await bring(parcel.data, other, parcel.fresh())


async def test_a_blob_over_the_cap_is_not_begun(bring: Bring, parcel: Parcel) -> None:
    with pytest.raises(InvalidBlob, match="are allowed"):
        await bring(parcel.data, parcel.manifest, parcel.fresh(), limits=TransportLimits(max_blob_bytes=KIB))


async def test_a_sink_that_does_not_fit_is_refused(bring: Bring, parcel: Parcel) -> None:
    short = {**parcel.fresh(), "images": memoryview(bytearray(5))}
    frozen = {**parcel.fresh(), "images": memoryview(bytes(BATCH_BYTES))}
    for sink in (short, frozen):
        with pytest.raises(InvalidInput, match="images"):
            await bring(parcel.data, parcel.manifest, sink)


# -- the file next door ----------------------------------------------------------------------------------------


def test_no_file(parcel: Parcel, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_local(tmp_path / "missing", parcel.manifest, parcel.fresh())


@pytest.mark.skipif(os.name != "posix", reason="links and pipes as POSIX has them")
def test_only_regular_files_are_read(parcel: Parcel, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(parcel.data)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder", "pipe"):
        with pytest.raises(InvalidBlob):
            read_local(tmp_path / name, parcel.manifest, parcel.fresh())


# -- HTTP --------------------------------------------------------------------------------------------------------


async def test_bytes_are_reported_on_the_event_loop(peer: Peer, parcel: Parcel, tmp_path: Path) -> None:
    peer.handler = whole(parcel.data, tmp_path)
    reported: list[int] = []
    threads = set()

    def on_bytes(count: int) -> None:
        reported.append(count)
        threads.add(threading.get_ident())

    await fetch(peer, parcel.manifest, parcel.fresh(), on_bytes=on_bytes)
    assert sum(reported) == parcel.manifest.size_bytes
    assert threads == {threading.get_ident()}


async def test_cancelling_cuts_the_connection_and_lets_go_of_the_sink(peer: Peer, parcel: Parcel) -> None:
    gone = asyncio.Event()
    started = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = announcing(len(parcel.data))
        await response.prepare(request)
        await response.write(parcel.data[: MIB // 2])
        try:
            while request.transport is not None and not request.transport.is_closing():
                await asyncio.sleep(0.01)  # a peer that sends nothing more learns of the end only by looking
        finally:
            gone.set()
        return response

    peer.handler = handler
    patient = replace(QUICK, idle_timeout_s=600.0, stop_wait_s=600.0)
    task = asyncio.create_task(
        fetch(peer, parcel.manifest, parcel.fresh(), policy=patient, on_bytes=lambda count: started.set())
    )
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)  # not by waiting for a time-out
    await asyncio.wait_for(gone.wait(), 30)
    await let_threads_end()


async def test_cancelling_before_the_connection_stands(
    parcel: Parcel, monkeypatch: pytest.MonkeyPatch, peer: Peer, tmp_path: Path
) -> None:
    connecting, go_on = threading.Event(), threading.Event()
    connect = http_get.HttpGet._connect

    def slow(self: http_get.HttpGet, connection: Any) -> None:
        connecting.set()
        go_on.wait(10)
        connect(self, connection)

    monkeypatch.setattr(http_get.HttpGet, "_connect", slow)
    peer.handler = whole(parcel.data, tmp_path)
    sink = parcel.fresh()
    task = asyncio.create_task(fetch(peer, parcel.manifest, sink, policy=replace(QUICK, stop_wait_s=0.01)))
    await asyncio.to_thread(connecting.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await let_threads_end()
    assert peer.ranges == []
    assert not any(sink["images"])


async def test_the_event_loop_stays_free(peer: Peer, tmp_path: Path) -> None:
    plan = plan_blob({"images": Value(IMAGE, torch.zeros(8, 256, 256, 3))})
    data = b"".join(plan.chunks())
    manifest = plan.manifest(blake3(data).hexdigest())
    sink = {"images": memoryview(bytearray(manifest.tensors[0].size_bytes))}
    path = tmp_path / "blob"
    path.write_bytes(data)
    loop_thread = threading.get_ident()
    calls = []
    update = http_get.Reception.advance

    def watched(self: Any, count: int) -> None:
        calls.append(threading.get_ident())
        update(self, count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_get.Reception, "advance", watched)
        peer.handler = whole(data, tmp_path)
        await fetch(peer, manifest, sink)
    assert calls
    assert loop_thread not in calls


async def test_tls(parcel: Parcel, tmp_path: Path) -> None:
    key, certificate = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    app = web.Application()
    app.router.add_get("/blob", whole(parcel.data, tmp_path))
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=context)
    peer = Peer(str(server.make_url("/blob")), plain())
    try:
        sink = parcel.fresh()
        await fetch(peer, parcel.manifest, sink, tls=ssl.create_default_context(cafile=str(certificate)))
        assert parcel.is_filled(sink)
        with pytest.raises(FetchFailed, match="certificate is not trusted"):
            await fetch(peer, parcel.manifest, parcel.fresh())
    finally:
        await server.close()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "http:///x",
        "http://user:secret@127.0.0.1/x",
        "http://127.0.0.1:99999/x",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/ä",
        "http://[::1/x",
        "",
    ],
)
def test_addresses_are_checked(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Target.parse(url)
    assert "secret" not in str(caught.value)


def test_addresses_that_are_fine() -> None:
    assert Target.parse("https://w.example:8443/a/b?c=d") == Target("w.example", 8443, "/a/b?c=d", True)
    assert Target.parse("http://[::1]") == Target("::1", None, "/", False)
