"""Heartbeats under a clock that the test owns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from fakes.link import FakeLink, ManualSleep, link_pair, settle
from flotilla.utils.clock import ManualClock
from flotilla.utils.errors import LinkLost
from flotilla.workers.heart import PING_AFTER_S, SILENCE_S, UNREAD_SILENCE_S, LiveLink
from flotilla.workers.messages import AskCapabilities, Bye, Message, Ping, Pong, Status


@dataclass
class Bench:
    """A live link on the master's side, a bare one on the worker's, and a reader that notes what comes out."""

    clock: ManualClock
    sleep: ManualSleep
    live: LiveLink
    bare: FakeLink
    worker: FakeLink
    heard: list[Message] = field(default_factory=list)
    end: LinkLost | None = None
    reader: asyncio.Task[None] | None = None

    def read(self) -> None:
        async def reading() -> None:
            try:
                while True:
                    self.heard.append(await self.live.receive())
            except LinkLost as error:
                self.end = error

        self.reader = asyncio.ensure_future(reading())

    def pings(self) -> list[Ping]:
        return [message for message in self.bare.sent if isinstance(message, Ping)]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    clock = ManualClock()
    sleep = ManualSleep(clock)
    master, worker = link_pair(clock)
    bench = Bench(clock, sleep, LiveLink(master, clock, sleep), master, worker)
    yield bench
    await bench.live.close()
    if bench.reader is not None:
        await bench.reader
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}, "a task survived"


async def test_an_idle_link_gets_pings(bench: Bench) -> None:
    bench.read()
    await bench.sleep.advance(PING_AFTER_S - 0.1)
    assert bench.pings() == []
    await bench.sleep.advance(0.2)
    assert len(bench.pings()) == 1
    await bench.sleep.advance(2 * PING_AFTER_S)
    assert len(bench.pings()) == 3


async def test_a_busy_link_gets_none(bench: Bench) -> None:
    bench.read()
    for _ in range(10):
        await bench.sleep.advance(PING_AFTER_S / 2)
        await bench.live.send(AskCapabilities())
        await bench.worker.send(Status(running=0, pending=0, ours=0))
    assert bench.pings() == []


async def test_a_ping_is_answered_and_the_answer_measured(bench: Bench) -> None:
    bench.read()
    await bench.worker.send(Ping(sent_s=42.0))
    await settle()
    assert bench.bare.sent == [Pong(sent_s=42.0)]
    assert bench.live.rtt_s is None
    await bench.sleep.advance(PING_AFTER_S)
    ping = bench.pings()[0]
    bench.clock.advance(0.25)
    await bench.worker.send(Pong(sent_s=ping.sent_s))
    await settle()
    assert bench.live.rtt_s == pytest.approx(0.25)
    assert bench.heard == []


async def test_silence_loses_the_link(bench: Bench) -> None:
    bench.read()
    await bench.sleep.advance(1.0)
    bench.bare.freeze()
    await bench.sleep.advance(SILENCE_S - 1.5)
    assert bench.end is None
    await bench.sleep.advance(1.0)
    assert bench.end is not None
    assert bench.end.details["reason"] == "silent"


async def test_any_message_ends_the_silence(bench: Bench) -> None:
    bench.read()
    for _ in range(5):
        await bench.sleep.advance(SILENCE_S - 1)
        await bench.worker.send(Status(running=0, pending=0, ours=0))
        await settle()
    assert bench.end is None
    assert len(bench.heard) == 5


async def test_a_process_that_was_held_up_reads_before_it_judges(bench: Bench) -> None:
    bench.read()
    await settle()
    bench.clock.advance(3 * SILENCE_S)  # the whole process stood still; nothing could be read
    await bench.sleep.advance(0.5)
    await bench.worker.send(Status(running=0, pending=0, ours=0))
    await bench.sleep.advance(2.0)
    assert bench.end is None


async def test_while_nobody_reads_patience_is_longer_but_ends(bench: Bench) -> None:
    await bench.sleep.advance(2 * SILENCE_S)
    await bench.live.send(AskCapabilities())
    bench.bare.freeze()
    await bench.sleep.advance(UNREAD_SILENCE_S)
    with pytest.raises(LinkLost) as caught:
        await bench.live.send(AskCapabilities())
    assert caught.value.details["reason"] == "silent"


async def test_a_goodbye_ends_the_link_with_its_reason(bench: Bench) -> None:
    bench.read()
    await bench.worker.send(Bye(reason="restarting"))
    await settle()
    assert bench.end is not None
    assert bench.end.details["reason"] == "bye"
    assert "restarting" in bench.end.message


async def test_a_full_network_does_not_pile_up_heartbeats(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.read()
    stuck = 0

    async def never(message: Message) -> None:
        nonlocal stuck
        stuck += 1
        try:
            await asyncio.Event().wait()
        finally:
            stuck -= 1

    monkeypatch.setattr(bench.bare, "send", never)
    for _ in range(20):
        await bench.worker.send(Ping(sent_s=1.0))
    await bench.sleep.advance(SILENCE_S - 1)
    assert 0 < stuck <= 4
    monkeypatch.undo()
    await bench.live.close()
    await settle()
    assert stuck == 0


async def test_closing_twice_is_fine(bench: Bench) -> None:
    await bench.live.close("over")
    await bench.live.close("over")
    assert bench.bare.sent == [Bye(reason="over")]
