"""What every link must do, shown on the fake pair and on real WebSockets over loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from fakes.link import link_pair
from flotilla.utils.errors import InvalidInput, LinkLost
from flotilla.workers.address import LINK_PATH, parse_address
from flotilla.workers.doors import accept, dial
from flotilla.workers.framing import PIECE_CHARS
from flotilla.workers.handshake import Acceptor, Dialler, Identity
from flotilla.workers.key import FleetKey
from flotilla.workers.link import Link, lost
from flotilla.workers.messages import (
    AskCapabilities,
    Bye,
    Capabilities,
    Lease,
    Ping,
    Status,
    Stop,
)

KEY = FleetKey(b"k" * 43)
TIMEOUT_S = 10.0

Pair = tuple[Link, Link]
MakePair = Callable[[], AbstractAsyncContextManager[Pair]]


@asynccontextmanager
async def fake() -> AsyncIterator[Pair]:
    yield link_pair()


@asynccontextmanager
async def real() -> AsyncIterator[Pair]:
    accepted: asyncio.Queue[Link] = asyncio.Queue()
    done = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        link, response = await accept(
            request, Acceptor(KEY, Identity("worker-1", "W", "0.0.1", "home of worker-1"), True)
        )
        accepted.put_nowait(link)
        await done.wait()
        return response

    app = web.Application()
    app.router.add_get(LINK_PATH, handler)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        address = parse_address(f"127.0.0.1:{server.port}")
        master = await dial(session, address, Dialler(KEY, Identity("master-1", "M", "0.0.1", "home of master-1")))
        worker = await accepted.get()
        try:
            yield master, worker
        finally:
            # Together: each side answers the other's closing.
            await asyncio.gather(master.close(), worker.close())
            done.set()


@pytest.fixture(params=[fake, real], ids=["fake", "real"])
def make_pair(request: pytest.FixtureRequest) -> MakePair:
    return request.param


def run(make_pair: MakePair, body: Callable[[Link, Link], object]) -> None:
    """Runs ``body`` with a fresh pair, and checks that no task outlives it."""

    async def main() -> None:
        async with make_pair() as (master, worker):
            await asyncio.wait_for(body(master, worker), TIMEOUT_S)
        await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not left

    asyncio.run(main())


def a_lease(**prompt: object) -> Lease:
    return Lease(
        job_id="j",
        index=3,
        attempt=1,
        prompt_id="p",
        prompt=dict(prompt),
        extra_data={},
        precision="exact",
        node_id="9",
        title="Collect",
    )


def test_messages_arrive_unchanged_and_in_order(make_pair: MakePair) -> None:
    lease = a_lease(seed=2**64 - 1, text='Grüße \u2028 "', odd=1e-320, nothing=None, deep={"a": [1, [2, [3]]]})

    async def body(master: Link, worker: Link) -> None:
        for message in (AskCapabilities(), lease, Stop(job_id="j", index=3, attempt=1)):
            await master.send(message)
        await worker.send(Status(running=1, pending=2, ours=3))
        assert [await worker.receive() for _ in range(3)] == [
            AskCapabilities(),
            lease,
            Stop(job_id="j", index=3, attempt=1),
        ]
        assert await master.receive() == Status(running=1, pending=2, ours=3)

    run(make_pair, body)


def test_a_long_message_arrives_whole(make_pair: MakePair) -> None:
    long = Capabilities(data={"models": "m" * (5 * PIECE_CHARS + 17)})

    async def body(master: Link, worker: Link) -> None:
        sending = asyncio.ensure_future(worker.send(long))
        assert await master.receive() == long
        await sending

    run(make_pair, body)


def test_two_long_messages_at_once_do_not_mix(make_pair: MakePair) -> None:
    async def body(master: Link, worker: Link) -> None:
        # Long enough to fill the network's buffers, so that the senders really take turns.
        longs = [Capabilities(data={"x": letter * (40 * PIECE_CHARS)}) for letter in "ab"]
        sending = asyncio.gather(*(worker.send(long) for long in longs), worker.send(Ping(sent_s=1.0)))
        got = [await master.receive() for _ in range(3)]
        await sending
        assert all(long in got for long in longs)
        assert Ping(sent_s=1.0) in got

    run(make_pair, body)


def test_many_senders_lose_nothing(make_pair: MakePair) -> None:
    async def body(master: Link, worker: Link) -> None:
        sending = asyncio.gather(*(master.send(Stop(job_id="j", index=index, attempt=1)) for index in range(200)))
        got = [await worker.receive() for _ in range(200)]
        await sending
        assert sorted(message.index for message in got if isinstance(message, Stop)) == list(range(200))

    run(make_pair, body)


def test_a_message_that_json_cannot_hold_is_refused_and_the_link_lives(make_pair: MakePair) -> None:
    async def body(master: Link, worker: Link) -> None:
        with pytest.raises(InvalidInput):
            await master.send(a_lease(bad=object()))
        await master.send(AskCapabilities())
        assert await worker.receive() == AskCapabilities()

    run(make_pair, body)


def test_both_know_each_other_and_share_a_session(make_pair: MakePair) -> None:
    async def body(master: Link, worker: Link) -> None:
        assert master.peer.instance_id == "worker-1"
        assert worker.peer.instance_id == "master-1"
        assert master.peer.home_id == "home of worker-1"
        assert worker.peer.home_id == "home of master-1"
        assert master.peer.proved
        assert master.session == worker.session
        assert len(master.session.key) == 32

    run(make_pair, body)


def test_close_says_goodbye_then_the_link_is_lost_for_both(make_pair: MakePair) -> None:
    async def body(master: Link, worker: Link) -> None:
        await master.close("enough")
        await master.close("twice is fine")
        assert await worker.receive() == Bye(reason="enough")
        with pytest.raises(LinkLost) as caught:
            await worker.receive()
        assert caught.value.details["reason"] == "closed"
        with pytest.raises(LinkLost):
            await worker.send(AskCapabilities())
        for call in (master.receive(), master.send(AskCapabilities())):
            with pytest.raises(LinkLost) as caught:
                await call
            assert caught.value.details["reason"] == "local"

    run(make_pair, body)


def test_abort_wakes_a_waiting_reader_with_the_cause(make_pair: MakePair) -> None:
    async def body(master: Link, worker: Link) -> None:
        reading = asyncio.ensure_future(master.receive())
        await asyncio.sleep(0)
        master.abort(lost("silent", "told so"))
        with pytest.raises(LinkLost) as caught:
            await reading
        assert caught.value.details["reason"] == "silent"
        with pytest.raises(LinkLost):
            await worker.receive()

    run(make_pair, body)


def test_a_close_during_a_read_wakes_the_reader(make_pair: MakePair) -> None:
    async def body(master: Link, worker: Link) -> None:
        reading = asyncio.ensure_future(worker.receive())
        await asyncio.sleep(0)
        await worker.close("over")
        with pytest.raises(LinkLost):
            await reading

    run(make_pair, body)


def test_a_cancelled_read_loses_nothing(make_pair: MakePair) -> None:
    async def body(master: Link, worker: Link) -> None:
        reading = asyncio.ensure_future(worker.receive())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await master.send(AskCapabilities())
        assert await worker.receive() == AskCapabilities()

    run(make_pair, body)


def test_the_times_of_the_last_traffic_are_kept(make_pair: MakePair) -> None:
    async def body(master: Link, worker: Link) -> None:
        before = (master.last_sent_s, worker.last_heard_s)
        await master.send(AskCapabilities())
        await worker.receive()
        assert master.last_sent_s >= before[0] >= master.began_s
        assert worker.last_heard_s >= before[1] >= worker.began_s

    run(make_pair, body)
