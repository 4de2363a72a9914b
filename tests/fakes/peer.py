"""A blob to fetch, and a loopback server whose answers a test writes by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from aiohttp import web
from aiohttp.test_utils import TestServer
from blake3 import blake3
from flotilla.transport.codec import plan_blob
from flotilla.transport.fetch import Sink, fetch_http
from flotilla.transport.limits import MIB, FetchPolicy
from flotilla.transport.manifest import BlobManifest
from flotilla.transport.values import IMAGE, JSON, Value

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


def make_parcel() -> Parcel:
    """A blob of some MiB with an empty tensor, a small one, and a value that is no tensor."""
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


@asynccontextmanager
async def run_peer() -> AsyncIterator[Peer]:
    """A peer that answers nothing until a test gives it its handler."""

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
    try:
        yield peer
    finally:
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
