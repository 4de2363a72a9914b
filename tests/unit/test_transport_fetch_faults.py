"""Fetching over HTTP from a real server that misbehaves: what is taken up again, and what ends with which error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import web
from fakes.peer import QUICK, Parcel, Peer, announcing, cutting, fetch, make_parcel, plain, run_peer, start_of
from flotilla.transport.fetch import fetch_http
from flotilla.transport.limits import KIB, MIB, FetchPolicy
from flotilla.utils.errors import FetchFailed, InvalidBlob, NotAllowed, NotFound


@pytest.fixture(scope="module")
def parcel() -> Parcel:
    return make_parcel()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with run_peer() as running:
        yield running


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
