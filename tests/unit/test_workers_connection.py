"""One connection, over fake links and a clock that the test owns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from fakes.link import settle
from fakes.world import World, entry
from flotilla.utils.errors import LinkLost, LinkRefused
from flotilla.workers.connection import LONGEST_PAUSE_S
from flotilla.workers.entries import WorkerEntry
from flotilla.workers.link import lost
from flotilla.workers.messages import AskCapabilities, Bye, Ping, Pong, Status

NEWS = Status(running=0, pending=0, ours=0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    yield World()
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}, "a task survived"


async def test_it_links_and_carries_messages(world: World) -> None:
    connection = world.connection(entry("a"))
    assert connection.health.state == "connecting"
    with pytest.raises(LinkLost):
        await connection.send(AskCapabilities())
    connection.start()
    connection.start()
    await settle()
    assert world.states == [("a", "online", "")]
    assert connection.health.peer is not None
    worker = world.dialler.workers["a"][0]
    await worker.send(NEWS)
    await connection.send(AskCapabilities())
    await settle()
    assert world.messages == [("a", NEWS)]
    assert await worker.receive() == AskCapabilities()
    await connection.stop()
    assert await worker.receive() == Bye(reason="the master ended the link")
    assert len(world.dialler.dialled) == 1


async def test_it_comes_back_after_a_loss(world: World) -> None:
    connection = world.connection(entry("a"))
    connection.start()
    await settle()
    world.dialler.workers["a"][0].abort(lost("closed", "the worker died"))
    await settle()
    assert connection.health.state == "offline"
    assert connection.health.reason == "closed"
    assert connection.link is None
    await world.sleep.advance(0.5)
    assert connection.health.state == "online"
    assert [state for _, state, _ in world.states] == ["online", "offline", "online"]
    await connection.stop()


async def test_pauses_grow_to_a_limit_and_begin_anew_after_a_link_that_lasted(world: World) -> None:
    world.dialler.then("a", *(lost("unreachable", "nobody there") for _ in range(8)))
    connection = world.connection(entry("a"))
    connection.start()
    await settle()
    for pause_s in (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0):
        tries = len(world.dialler.dialled)
        await world.sleep.advance(pause_s - 0.25)
        assert len(world.dialler.dialled) == tries
        await world.sleep.advance(0.25)
        assert len(world.dialler.dialled) == tries + 1
    await world.sleep.advance(LONGEST_PAUSE_S)
    assert connection.health.state == "online"
    world.dialler.workers["a"][0].abort(lost("closed", "at once again"))
    await settle()
    await world.sleep.advance(LONGEST_PAUSE_S - 0.5)
    assert connection.health.state == "offline"
    await world.sleep.advance(0.5)
    assert connection.health.state == "online"
    for _ in range(12):
        await world.dialler.workers["a"][-1].send(NEWS)
        await world.sleep.advance(1.0)
    world.dialler.workers["a"][-1].abort(lost("closed", "after a good while"))
    await world.sleep.advance(0.51)
    assert connection.health.state == "online"
    await connection.stop()


async def test_chance_spreads_the_pauses(world: World) -> None:
    world.dialler.then("a", lost("unreachable", "nobody there"))
    connection = world.connection(entry("a"))
    connection._random_unit = lambda: 0.0
    connection.start()
    await world.sleep.advance(0.26)
    assert connection.health.state == "online"
    await connection.stop()


async def test_a_refusal_is_shown_and_tried_again_later(world: World) -> None:
    world.dialler.then("a", LinkRefused("wrong_key", "different keys", cure="share one"))
    connection = world.connection(entry("a"))
    connection.start()
    await settle()
    health = connection.health
    assert (health.state, health.reason, health.message, health.cure) == (
        "refused", "wrong_key", "different keys", "share one",
    )  # fmt: skip
    await world.sleep.advance(LONGEST_PAUSE_S - 0.1)
    assert connection.health.state == "refused"
    await world.sleep.advance(0.2)
    assert connection.health.state == "online"
    await connection.stop()


async def test_a_kick_tries_at_once(world: World) -> None:
    world.dialler.then("a", LinkRefused("wrong_key", "different keys"), lost("unreachable", "restarting"))
    connection = world.connection(entry("a"))
    connection.start()
    await settle()
    connection.kick()
    await settle()
    assert connection.health.state == "offline"
    connection.kick()
    await settle()
    assert connection.health.state == "online"
    await connection.stop()


async def test_each_change_of_reason_is_told_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world.dialler.then(
        "a", *(lost("unreachable", "nobody") for _ in range(5)), *(lost("timeout", "slow") for _ in range(3))
    )
    connection = world.connection(entry("a"))
    connection.start()
    first_since_s = None
    for _ in range(4):
        await world.sleep.advance(2.0)
        first_since_s = first_since_s or connection.health.since_s
        assert connection.health.since_s == first_since_s
    await world.sleep.advance(53.0)
    assert world.states == [("a", "offline", "unreachable"), ("a", "offline", "timeout"), ("a", "online", "")]
    assert len([record for record in caplog.records if record.name == "flotilla.workers"]) == 3
    await connection.stop()


async def test_a_handler_that_fails_does_not_end_the_link(world: World, caplog: pytest.LogCaptureFixture) -> None:
    connection = world.connection(entry("a"))
    connection.start()
    await settle()
    world.explode = True
    await world.dialler.workers["a"][0].send(NEWS)
    await settle()
    world.explode = False
    await world.dialler.workers["a"][0].send(NEWS)
    await settle()
    assert connection.health.state == "online"
    assert world.messages == [("a", NEWS)]
    assert "could not be handled" in caplog.text
    await connection.stop()


async def test_a_bug_in_dialling_is_survived(world: World, caplog: pytest.LogCaptureFixture) -> None:
    connection = world.connection(entry("a"))

    async def broken(worker: WorkerEntry) -> object:
        raise KeyError("bug")

    connection._dial = broken  # type: ignore[assignment]
    connection.start()
    await settle()
    assert connection.health.reason == "internal"
    connection._dial = world.dialler
    await world.sleep.advance(LONGEST_PAUSE_S)
    assert connection.health.state == "online"
    await connection.stop()


async def test_the_round_trip_shows(world: World) -> None:
    connection = world.connection(entry("a"))
    connection.start()
    await world.sleep.advance(2.5)
    worker = world.dialler.workers["a"][0]
    ping = await worker.receive()
    assert isinstance(ping, Ping)
    world.clock.advance(0.1)
    await worker.send(Pong(sent_s=ping.sent_s))
    await settle()
    assert connection.health.rtt_ms == pytest.approx(600.0)
    await connection.stop()
    assert connection.health.rtt_ms is None


async def test_a_frozen_worker_is_noticed_and_dialled_again(world: World) -> None:
    connection = world.connection(entry("a"))
    connection.start()
    await settle()
    world.dialler.workers["a"][0].freeze()
    await world.sleep.advance(10.1)
    assert ("a", "offline", "silent") in world.states
    await world.sleep.advance(1.0)
    assert connection.health.state == "online"
    await connection.stop()


async def test_stop_is_prompt_in_every_state(world: World) -> None:
    never_started = world.connection(entry("a"))
    await never_started.stop()
    await never_started.stop()

    pausing = world.connection(entry("b"))
    world.dialler.then("b", lost("unreachable", "nobody"))
    pausing.start()
    await settle()
    await pausing.stop()

    dialling = world.connection(entry("c"))
    reached = asyncio.Event()

    async def endless(worker: WorkerEntry) -> object:
        reached.set()
        return await asyncio.Event().wait()

    dialling._dial = endless  # type: ignore[assignment]
    dialling.start()
    await reached.wait()
    await asyncio.gather(dialling.stop(), dialling.stop())

    online = world.connection(entry("d"))
    online.start()
    await settle()
    await online.stop()
    await online.stop()
    tries = len(world.dialler.dialled)
    await world.sleep.advance(60.0)
    assert len(world.dialler.dialled) == tries

    online.start()
    await settle()
    assert online.health.state == "online"
    await online.stop()
