"""Pictures of remote items on their way to a screen: to whom, how often, with what on them."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from fakes.relay_world import CLIENT, JOB, WAIT_S, RelayWorld
from flotilla.relay.news import PreviewNews
from flotilla.relay.pictures import MAX_EDGE_PX, STRIP_PX
from flotilla.relay.preview_desk import EVERY_S_PER_JOB, EVERY_S_PER_PARTICIPANT, MAX_DATA_URL_CHARS
from PIL import Image

LONG_S = 100.0
STEP_S = 0.01


@pytest.fixture
async def world() -> AsyncIterator[RelayWorld]:
    made = RelayWorld()
    yield made
    await made.relay.close()


async def test_a_picture_is_shown_on_the_stage_s_node_of_the_job_s_client_with_a_strip(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    world.relay.preview(world.picture("w1"))
    await world.shown(1)
    ((jpeg, node_id, prompt_id, client_id),) = world.screen.previews
    assert (node_id, prompt_id, client_id) == ("9", "job", CLIENT)
    image = Image.open(io.BytesIO(jpeg)).convert("L")
    assert image.size == (MAX_EDGE_PX, MAX_EDGE_PX // 2 + STRIP_PX)
    strip = image.crop((0, image.height - STRIP_PX, image.width, image.height))
    darkest, brightest = strip.getextrema()
    assert darkest < 40
    assert brightest > 200, "the name is written there"
    ((_name, data, to),) = [event for event in world.screen.events if event[0] == "flotilla.preview"]
    assert to == CLIENT
    assert data["image"].startswith("data:image/jpeg;base64,")
    assert len(data["image"]) <= MAX_DATA_URL_CHARS
    assert {key: data[key] for key in data if key != "image"} == {
        "job_id": "job", "index": 0, "node_id": "9", "participant": "w1", "name": "GPU box",
    }  # fmt: skip


@pytest.mark.parametrize("client_id", ["", "tab-that-is-closed"])
async def test_a_picture_that_nobody_looks_at_is_dropped(world: RelayWorld, client_id: str) -> None:
    world.relay.job_changed(replace(JOB, client_id=client_id))
    world.relay.preview(world.picture("w1"))
    world.relay.preview(world.picture("w1", job_id="unknown"))
    assert world.timers.pending == 0
    world.relay.job_changed(replace(JOB, job_id="watched"))
    world.relay.preview(world.picture("w1", job_id="watched"))
    await world.shown(1)
    assert [shown[2] for shown in world.screen.previews] == ["watched"]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads' work is done on the spot, so that a few turns of the loop are enough to have everything shown."""

    async def inline(work: Callable[..., Any], *args: Any) -> Any:
        return work(*args)

    monkeypatch.setattr(asyncio, "to_thread", inline)


async def pass_time(world: RelayWorld, seconds: float) -> None:
    """Moves the clock on in small steps, and has everything shown that may be."""
    for _step in range(round(seconds / STEP_S)):
        world.timers.advance(STEP_S)
        for _turn in range(5):
            await asyncio.sleep(0)


@pytest.mark.usefixtures("at_once")
async def test_pictures_of_one_participant_come_at_a_bounded_rate_and_the_newest_wins(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    for shade in (10, 50, 100, 200):
        world.relay.preview(world.picture("w1", shade))
        await pass_time(world, STEP_S)
    await pass_time(world, EVERY_S_PER_PARTICIPANT - 5 * STEP_S)
    assert len(world.screen.previews) == 1
    await pass_time(world, 2 * STEP_S)
    assert len(world.screen.previews) == 2
    image = Image.open(io.BytesIO(world.screen.previews[-1][0])).convert("L")
    assert abs(image.getpixel((5, 5)) - 200) < 5  # type: ignore[operator]
    assert world.timers.pending == 0


@pytest.mark.usefixtures("at_once")
async def test_pictures_of_one_job_come_at_a_bounded_rate_and_all_participants_get_their_turn(
    world: RelayWorld,
) -> None:
    world.relay.job_changed(JOB)
    names = [f"w{number}" for number in range(6)]
    for _turn in range(30):
        for name in names:
            world.relay.preview(world.picture(name))
        await pass_time(world, 0.1)
    told = [data["participant"] for data in world.screen.of("flotilla.preview")]
    assert len(told) == 3.0 / EVERY_S_PER_JOB
    assert told == names * 2, "each once before anybody twice"


async def test_a_picture_that_is_none_harms_nothing(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    bad = base64.b64encode(b"no JPEG").decode()
    world.relay.preview(PreviewNews("job", 0, "9", "w1", bad))
    world.relay.preview(PreviewNews("job", 0, "9", "w2", "not even base64 ÿ"))
    world.timers.advance(LONG_S)
    world.relay.preview(world.picture("w3"))

    async def go_on() -> None:
        while not world.screen.previews:
            await asyncio.sleep(0)
            world.timers.advance(EVERY_S_PER_JOB)

    await asyncio.wait_for(go_on(), WAIT_S)
    assert [data["participant"] for data in world.screen.of("flotilla.preview")] == ["w3"]


async def test_no_picture_is_shown_after_the_job_s_end(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    world.relay.preview(world.picture("w1"))  # at work in its thread now
    world.relay.preview(world.picture("w2"))  # waits
    world.relay.job_changed(replace(JOB, state="done"))
    world.relay.job_changed(replace(JOB, job_id="next"))
    world.relay.preview(world.picture("w1", job_id="next"))
    await world.shown(1)
    assert [shown[2] for shown in world.screen.previews] == ["next"]


async def test_a_picture_of_the_master_s_own_is_shown_as_it_is_on_the_node_of_an_open_job(world: RelayWorld) -> None:
    world.relay.picture("job", "9", b"before")
    world.relay.job_changed(JOB)
    world.relay.picture("job", "9", b"jpeg")
    world.relay.picture("unknown", "9", b"of nobody")
    world.relay.job_changed(replace(JOB, state="done"))
    world.relay.picture("job", "9", b"after")
    assert world.screen.previews == [(b"jpeg", "9", "job", CLIENT)]
    assert world.screen.of("flotilla.preview") == []


async def test_a_picture_that_is_not_for_the_node_is_told_and_leaves_the_node_alone(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    world.relay.preview(replace(world.picture("w1"), on_node=False))
    await world.shown(1)
    assert world.screen.previews == []
    assert world.screen.of("flotilla.preview")[0]["participant"] == "w1"
