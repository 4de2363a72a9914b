"""Bringing a blob over: one contract for the file next door and for HTTP, then a real server that misbehaves."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp import web
from aiohttp.test_utils import TestServer
from blake3 import blake3
from flotilla.transport import http_get
from flotilla.transport.codec import plan_blob
from flotilla.transport.fetch import Sink, fetch_http, read_local
from flotilla.transport.http_get import Target
from flotilla.transport.limits import KIB, MIB, FetchPolicy, TransportLimits
from flotilla.transport.manifest import BlobManifest
from flotilla.transport.values import IMAGE, JSON, Value
from flotilla.utils.errors import FetchFailed, InvalidBlob, InvalidInput, NotAllowed, NotFound

BATCH_BYTES = 2 * MIB
QUICK = FetchPolicy(max_tries=3, idle_timeout_s=5.0, connect_timeout_s=5.0)


@dataclass
class Parcel:
    """A blob's bytes and manifest, and a sink for it."""

    data: bytes
    manifest: BlobManifest
    sink: Sink = field(default_factory=dict)

    def fresh(self) -> Sink:
        return {spec.name: memoryview(bytearray(spec.size_bytes)) for spec in self.manifest.tensors}

    def is_filled(self, sink: Sink) -> bool:
        start = self.manifest.header_bytes
        return all(
            bytes(sink[spec.name]) == self.data[start + spec.offset : start + spec.offset + spec.size_bytes]
            for spec in self.manifest.tensors
        )


@pytest.fixture(scope="module")
def parcel() -> Parcel:
    numbers = torch.randint(0, 256, (2, BATCH_BYTES // 2, 1, 1), generator=torch.Generator().manual_seed(5))
    plan = plan_blob(
        {
            "images": Value(IMAGE, numbers.to(torch.uint8)),
            "empty": Value(IMAGE, torch.empty(0, 4, 4, 3)),
            "small": Value(IMAGE, torch.rand(1, 2, 2, 3)),
            "facts": Value(JSON, {"a": 1}),
        }
    )
    data = b"".join(plan.chunks())
    return Parcel(data, plan.manifest(blake3(data).hexdigest()))


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Peer:
    """A loopback server whose answers a test writes by hand."""

    url: str
    handler: Handler
    ranges: list[str] = field(default_factory=list)
    seen_headers: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async def answer(request: web.Request) -> web.StreamResponse:
        peer.ranges.append(request.headers.get("Range", ""))
        peer.seen_headers.append(dict(request.headers))
        return await peer.handler(request)

    async def unset(request: web.Request) -> web.StreamResponse:
        raise web.HTTPNotImplemented

    app = web.Application()
    app.router.add_get("/blob", answer)
    server = TestServer(app)
    await server.start_server()
    peer = Peer(str(server.make_url("/blob")), unset)
    yield peer
    await server.close()


def start_of(request: web.Request) -> int:
    header = request.headers.get("Range", "bytes=0-")
    return int(header.removeprefix("bytes=").removesuffix("-"))


def announcing(size_bytes: int, status: int = 200) -> web.StreamResponse:
    """An answer that promises so many bytes, whatever it sends."""
    response = web.StreamResponse(status=status)
    response.content_length = size_bytes
    assert response.content_length == size_bytes
    return response


def whole(data: bytes, tmp_path: Path) -> Handler:
    path = tmp_path / "served"
    path.write_bytes(data)

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(path)

    return handler


def cutting(data: bytes, after: int, *, times: int = 10**6, ranges: bool = True) -> Handler:
    """Cuts the connection after ``after`` bytes of each answer, the first ``times`` times."""
    calls = [0]

    async def handler(request: web.Request) -> web.StreamResponse:
        calls[0] += 1
        start = start_of(request) if ranges else 0
        response = announcing(len(data) - start, status=206 if start else 200)
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        await response.prepare(request)
        cut = calls[0] <= times
        await response.write(data[start : start + after] if cut else data[start:])
        if cut and request.transport is not None:
            request.transport.close()
        return response

    return handler


def plain(status: int = 200, body: bytes = b"", **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(
            status=status, body=body, headers={name.replace("_", "-"): h for name, h in headers.items()}
        )

    return handler


async def fetch(peer: Peer, manifest: BlobManifest, sink: Sink, **options: Any) -> list[float]:
    """`fetch_http` without waiting; returns the pauses that it would have made."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    settings: dict[str, Any] = {"headers": dict, "policy": QUICK, "sleep": sleep}
    await fetch_http(peer.url, manifest, sink, **{**settings, **options})
    return pauses


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


async def test_a_cut_connection_is_taken_up_where_it_broke(peer: Peer, parcel: Parcel) -> None:
    peer.handler = cutting(parcel.data, MIB, times=1)
    sink = parcel.fresh()
    pauses = await fetch(peer, parcel.manifest, sink)
    assert parcel.is_filled(sink)
    assert len(pauses) == 1
    assert peer.ranges[0] == ""
    assert 0 < int(peer.ranges[1].removeprefix("bytes=").removesuffix("-")) <= MIB


async def test_progress_resets_the_count_of_tries(peer: Peer, parcel: Parcel) -> None:
    peer.handler = cutting(parcel.data, 300 * KIB)
    sink = parcel.fresh()
    pauses = await fetch(peer, parcel.manifest, sink)
    assert parcel.is_filled(sink)
    assert len(pauses) > QUICK.max_tries
    assert set(pauses) == {QUICK.backoff_first_s}


async def test_a_peer_that_drips_is_given_up(peer: Peer, parcel: Parcel) -> None:
    peer.handler = cutting(parcel.data, KIB)
    with pytest.raises(FetchFailed, match="in 3 tries"):
        await fetch(peer, parcel.manifest, parcel.fresh())


async def test_no_ranges_and_always_cut_at_the_same_place_ends(peer: Peer, parcel: Parcel) -> None:
    peer.handler = cutting(parcel.data, MIB, ranges=False)
    with pytest.raises(FetchFailed) as caught:
        await fetch(peer, parcel.manifest, parcel.fresh())
    assert len(peer.ranges) <= QUICK.max_tries + 1
    assert caught.value.details["size_bytes"] == parcel.manifest.size_bytes


async def test_no_ranges_but_then_whole(peer: Peer, parcel: Parcel) -> None:
    peer.handler = cutting(parcel.data, MIB, times=1, ranges=False)
    sink = parcel.fresh()
    await fetch(peer, parcel.manifest, sink)
    assert parcel.is_filled(sink)


async def test_wrong_bytes_once_are_fetched_again_from_zero(peer: Peer, parcel: Parcel) -> None:
    calls = [0]

    async def handler(request: web.Request) -> web.StreamResponse:
        calls[0] += 1
        return web.Response(body=parcel.data if calls[0] == 2 else parcel.data[:-1] + b"?")

    peer.handler = handler
    sink = parcel.fresh()
    await fetch(peer, parcel.manifest, sink)
    assert parcel.is_filled(sink)
    assert peer.ranges == ["", ""]


async def test_wrong_bytes_twice_are_the_end(peer: Peer, parcel: Parcel) -> None:
    peer.handler = plain(body=parcel.data[:-1] + b"?")
    with pytest.raises(InvalidBlob, match="hash"):
        await fetch(peer, parcel.manifest, parcel.fresh())
    assert len(peer.ranges) == 2


@pytest.mark.parametrize(
    ("status", "error", "tries"),
    [
        (401, NotAllowed, 1),
        (403, NotAllowed, 1),
        (404, NotFound, 1),
        (410, NotFound, 1),
        (416, InvalidBlob, 1),
        (400, FetchFailed, 1),
        (204, FetchFailed, 1),
        (500, FetchFailed, 3),
        (503, FetchFailed, 3),
    ],
)
async def test_refusals_are_typed(peer: Peer, parcel: Parcel, status: int, error: type[Exception], tries: int) -> None:
    peer.handler = plain(status)
    with pytest.raises(error):
        await fetch(peer, parcel.manifest, parcel.fresh())
    assert len(peer.ranges) == tries


async def test_redirects_are_not_followed(peer: Peer, parcel: Parcel) -> None:
    peer.handler = plain(302, Location=peer.url)
    with pytest.raises(FetchFailed, match="302"):
        await fetch(peer, parcel.manifest, parcel.fresh())
    assert len(peer.ranges) == 1


async def test_chunked_answers_of_exact_length(peer: Peer, parcel: Parcel) -> None:
    extra = [b""]

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(parcel.data)
        await response.write(extra[0])
        return response

    peer.handler = handler
    sink = parcel.fresh()
    await fetch(peer, parcel.manifest, sink)
    assert parcel.is_filled(sink)
    extra[0] = b"more"
    with pytest.raises(InvalidBlob, match="goes on"):
        await fetch(peer, parcel.manifest, parcel.fresh())


@pytest.mark.parametrize(
    "content_range", ["", "bytes 0-9/10", "bytes 5-{last}/{size}", "bytes {start}-{last}/9", "items {start}-{last}/*"]
)
async def test_answers_with_another_range(peer: Peer, parcel: Parcel, content_range: str) -> None:
    size = len(parcel.data)
    first = cutting(parcel.data, MIB, times=1)

    async def handler(request: web.Request) -> web.StreamResponse:
        if "Range" not in request.headers:
            return await first(request)
        start = start_of(request)
        text = content_range.format(start=start, last=size - 1, size=size)
        return web.Response(status=206, body=parcel.data[start:], headers={"Content-Range": text})

    peer.handler = handler
    with pytest.raises(InvalidBlob, match="range"):
        await fetch(peer, parcel.manifest, parcel.fresh())


async def test_encoded_answers_are_refused(peer: Peer, parcel: Parcel) -> None:
    peer.handler = plain(body=parcel.data, Content_Encoding="zstd")
    with pytest.raises(InvalidBlob, match="encoded"):
        await fetch(peer, parcel.manifest, parcel.fresh())
    assert peer.seen_headers[0]["Accept-Encoding"] == "identity"


async def test_headers_are_asked_for_anew_for_each_try(peer: Peer, parcel: Parcel) -> None:
    peer.handler = cutting(parcel.data, MIB, times=2)
    count = iter(range(10))
    await fetch(peer, parcel.manifest, parcel.fresh(), headers=lambda: {"Authorization": f"token {next(count)}"})
    assert [headers["Authorization"] for headers in peer.seen_headers] == ["token 0", "token 1", "token 2"]


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


async def test_silence_is_a_typed_error(peer: Peer, parcel: Parcel) -> None:
    release = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = announcing(len(parcel.data))
        await response.prepare(request)
        await response.write(parcel.data[:10])
        await release.wait()
        return response

    peer.handler = handler
    with pytest.raises(FetchFailed, match=r"no byte came for 0.05 s"):
        await fetch(peer, parcel.manifest, parcel.fresh(), policy=replace(QUICK, idle_timeout_s=0.05, max_tries=2))
    release.set()


async def test_nobody_listens(parcel: Parcel, unused_tcp_port: int) -> None:
    peer = Peer(f"http://127.0.0.1:{unused_tcp_port}/blob", plain())
    with pytest.raises(FetchFailed, match="ConnectionRefused"):
        await fetch(peer, parcel.manifest, parcel.fresh())


async def test_back_off_grows_to_its_cap(parcel: Parcel, unused_tcp_port: int) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    with pytest.raises(FetchFailed):
        await fetch_http(
            f"http://127.0.0.1:{unused_tcp_port}/",
            parcel.manifest,
            parcel.fresh(),
            headers=dict,
            sleep=sleep,
            policy=FetchPolicy(max_tries=5, backoff_first_s=1.0, backoff_max_s=3.0),
        )
    assert pauses == [1.0, 2.0, 3.0, 3.0]


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


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    what = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    command = [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, *what]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return key, certificate


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
