"""Upscales on the master: tiles become items, pixels go to workers, results are put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from fakes.master import Master, heard, until
from fakes.tile_stage import NODE, upscale_prompt
from fakes.tile_work import alone
from fakes.upscaling import CLIENT, DATA, Upscaling
from flotilla.host.records import Outcome
from flotilla.runtime.wishes import Wishes
from flotilla.upscale.work import PIXELS
from flotilla.utils.errors import FetchFailed, JobCancelled, JobFailed, SpoolFull
from flotilla.workers import messages as m

CHAIN = [set(), {0}, {1}]
FORK = [set(), set(), {0, 1}, {2}]
WIDE: list[set[int]] = [set()] * 6


@pytest.fixture
async def master(tmp_path: Path) -> AsyncIterator[Master]:
    made = Master(tmp_path)
    await made.linked()
    yield made
    await made.close()


# From the prompt's start to the end


async def test_workers_prepare_when_the_prompt_starts_and_none_of_them_makes_the_image(master: Master) -> None:
    up = Upscaling.post(master)
    for worker in ("w1", "w2"):
        prepare = await heard(master.end(worker), m.Prepare)
        assert prepare.job_id == up.job_id
        classes = {node["class_type"] for node in prepare.prompt.values()}
        assert classes == {"KitModel", "FlotillaPrepare"}
        assert prepare.prompt[NODE]["inputs"] == {"model": ["2", 0], "vae": ["2", 1]}
        assert prepare.extra_data["flotilla"] == {"job": up.job_id, "prepares": True}
    assert up.state() == "running"


async def test_tiles_are_leased_as_they_become_ready_and_their_results_are_put_together(master: Master) -> None:
    up = Upscaling.post(master, Wishes(worker_ids=("w1",)))
    work = await up.begin(FORK)
    first = [await up.lease("w1"), await up.lease("w1")]
    assert {lease.index for lease in first} == {0, 1}
    for lease in reversed(first):
        await master.end("w1").send(up.redrawn("w1", lease))
    assert [(await up.serve("w1")).index for _ in range(2)] == [2, 3]
    await up.over()
    assert work.result() == alone(FORK)
    assert not up.stage.finished
    assert up.state() == "running"
    await up.end()
    assert up.state() == "done"
    assert (await heard(master.end("w1"), m.JobOver)).job_id == up.job_id
    assert master.pusher.forgotten == [up.job_id]


async def test_what_a_worker_runs_for_a_tile(master: Master) -> None:
    master.registry.patch("w1", {"precision": "half"})
    up = Upscaling.post(master, Wishes(worker_ids=("w1",)))
    await up.begin(CHAIN)
    lease = await up.lease("w1")
    prompt, inputs = lease.prompt, up.inputs_of(lease)
    assert prompt[NODE]["class_type"] == "FlotillaTile"
    assert (inputs["place"], inputs["sampling"]) == ('{"number": 0}', "quick")
    assert (inputs["model"], inputs["vae"]) == (["2", 0], ["2", 1])
    assert sorted(node["class_type"] for node in prompt.values()) == [
        "FlotillaConstant",
        "FlotillaInput",
        "FlotillaTile",
        "KitEncode",
        "KitModel",
    ]
    assert lease.precision == "exact", "every bit decides about the tiles that follow"
    assert torch.equal(up.pixels("w1", lease)[PIXELS].data, torch.ones(1, 2, 2, 3))


async def test_data_are_sent_to_stay_and_pixels_for_once_and_neither_lies_here_afterwards(master: Master) -> None:
    up = Upscaling.post(master, Wishes(worker_ids=("w1",)))
    await up.begin(WIDE)
    for _ in range(2):
        await up.serve("w1")
    data, *_ = up.stage.data_blobs
    pushed = master.pusher.pushed
    assert [one.keep for one in pushed[:2]] == [True, False], "what the prompt names is there before it"
    assert torch.equal(pushed[0].values["value"].data, DATA["d0"].data)
    pixels = {one.blob_hash for one in pushed if not one.keep}
    assert {one.blob_hash for one in pushed if one.keep} == {data.manifest.hash}
    await until(lambda: not pixels & {stored.manifest.hash for stored in master.spool.held()})
    assert master.spool.holds(data)
    master.coordinator.cancel(up.job_id, "enough")
    await until(lambda: not master.spool.holds(data))


async def test_equal_pixels_of_two_places_tell_apart_what_they_are_made_into(master: Master) -> None:
    up = Upscaling.post(master)
    await up.begin(WIDE)
    one, other = await up.lease("w1"), await up.lease("w2")
    assert up.inputs_of(one)["pixels"] == up.inputs_of(other)["pixels"]
    assert up.inputs_of(one)["made_of"] != up.inputs_of(other)["made_of"]


async def test_several_pictures_one_after_the_other(master: Master) -> None:
    up = Upscaling.post(master, Wishes(worker_ids=("w1",)))
    first = await up.begin([set(), set()])
    indices = [(await up.serve("w1")).index for _ in range(2)]
    await up.over()
    second = await up.begin(CHAIN)
    assert not up.stage.is_over
    indices += [(await up.serve("w1")).index for _ in range(3)]
    await up.over()
    assert sorted(indices[:2]) + indices[2:] == [0, 1, 2, 3, 4]
    assert (first.result(), second.result()) == ([2, 2], alone(CHAIN))


@pytest.mark.parametrize(("status", "state"), [("success", "done"), ("interrupted", "cancelled"), ("error", "failed")])
async def test_a_prompt_that_ends_before_its_node_is_reached_ends_the_job(
    master: Master, status: str, state: str
) -> None:
    up = Upscaling.post(master)
    await up.end(Outcome(status))
    assert up.state() == state
    for worker in ("w1", "w2"):
        await heard(master.end(worker), m.JobOver)


async def test_the_master_takes_tiles_like_everybody(master: Master) -> None:
    up = Upscaling.post(master, Wishes(worker_ids=("w1",)))
    work = await up.begin(WIDE)
    held = [await up.lease("w1"), await up.lease("w1")]
    for _ in range(4):
        await up.compute(*await up.take())
    for lease in held:
        await master.end("w1").send(up.redrawn("w1", lease))
    await up.over()
    assert work.result() == alone(WIDE)
    shares = [item.participant_id for item in master.coordinator.view(up.job_id).items]
    assert (shares.count("master"), shares.count("w1")) == (4, 2)


# Failures


async def test_a_tile_that_the_master_cannot_compute_is_computed_elsewhere(master: Master) -> None:
    up = Upscaling.post(master, Wishes(worker_ids=("w1",)))
    work = await up.begin([set()] * 3)
    held = [await up.lease("w1"), await up.lease("w1")]
    place, attempt = await up.take()
    assert place not in {lease.index for lease in held}
    await asyncio.to_thread(up.stage.fail_here, place, attempt, ValueError("no memory here"))
    for lease in held:
        await master.end("w1").send(up.redrawn("w1", lease))
    assert (await up.serve("w1")).index == place
    await up.over()
    assert work.result() == [2, 2, 2]


async def test_a_tile_that_fails_everywhere_fails_the_node_with_place_worker_and_traceback(master: Master) -> None:
    master.registry.patch_settings({"max_attempts": 2})
    up = Upscaling.post(master)
    await up.begin([set()])
    await up.refuse("w1")
    await up.refuse("w2")
    await until(lambda: up.stage.finished)
    with pytest.raises(JobFailed) as caught:
        up.stage.check()
    for part in ("tile 1 of 1 (redraw, x 0, y 0)", "Worker 2", "attempt 2", "ValueError: boom", "in line 1"):
        assert part in caught.value.message


async def test_a_failure_of_the_prompt_is_not_told_as_that_of_a_tile(master: Master) -> None:
    master.registry.patch_settings({"max_attempts": 1})
    up = Upscaling.post(master, on_failure="partial")
    await up.begin([set(), set()])
    await up.refuse("w1")
    await until(lambda: bool(master.coordinator.run(up.job_id).missing))
    master.queue.end(up.job_id, Outcome("error", message="the preview broke", node_id="7", node_type="KitBreak"))
    await until(lambda: up.stage.finished)
    with pytest.raises(JobFailed, match="the preview broke") as caught:
        up.stage.check()
    assert "tile" not in caught.value.message


async def test_partial_keeps_what_is_there_and_says_so(master: Master) -> None:
    master.registry.patch_settings({"max_attempts": 1})
    up = Upscaling.post(master, Wishes(worker_ids=("w1",)), on_failure="partial")
    work = await up.begin(CHAIN)
    await up.serve("w1")
    await up.refuse("w1", "no memory")
    await up.serve("w1")
    await up.over()
    assert work.result() == [2, None, 2]
    note = up.stage.missing_note()
    assert note.startswith("1 of 3 tiles is missing: tile 2 of 3 (redraw, x 2, y 0) (Worker 1: ValueError: no memory")
    await up.end()
    assert up.state() == "partial"


@pytest.mark.parametrize("error", [SpoolFull("no room there"), FetchFailed("the line is bad")])
async def test_a_worker_that_cannot_be_sent_the_pixels_is_passed_over(master: Master, error: Exception) -> None:
    up = Upscaling.post(master)
    master.pusher.fails_for["w1"] = error
    work = await up.begin(CHAIN)
    for _ in CHAIN:
        await up.serve("w2")
    await up.over()
    assert work.result() == alone(CHAIN)
    attempts = master.coordinator.view(up.job_id).items[0].attempts
    assert [(one.participant_id, one.error and one.error.kind) for one in attempts] == [
        ("w1", "transfer"),
        ("w2", None),
    ]


async def refuse_all(up: Upscaling, worker_id: str) -> None:
    """The worker cannot run this job."""
    lease = await up.lease(worker_id)
    address = {"job_id": lease.job_id, "index": lease.index, "attempt": lease.attempt}
    await up.master.end(worker_id).send(m.LeaseRefused(**address, reason="no such model", node_errors={}))


async def test_a_master_that_only_coordinates_computes_what_nobody_else_is_left_for(master: Master) -> None:
    up = Upscaling.post(master, Wishes(worker_ids=("w1",), delegate_master=True))
    assert not up.stage.takes_part
    work = await up.begin(CHAIN)
    await asyncio.to_thread(up.stage.ask)
    await refuse_all(up, "w1")
    for place in range(3):
        request = await up.take()
        assert request[0] == place
        await up.compute(*request)
    await up.over()
    assert work.result() == alone(CHAIN)


async def test_if_it_lacks_something_itself_the_job_says_what(master: Master) -> None:
    posted = upscale_prompt()
    posted["4"]["class_type"] = "KitRare"
    up = Upscaling.post(master, Wishes(worker_ids=("w1",), delegate_master=True), posted)
    await up.begin(CHAIN)
    await asyncio.to_thread(up.stage.ask)
    await refuse_all(up, "w1")
    await until(lambda: up.stage.finished)
    with pytest.raises(JobFailed) as caught:
        up.stage.check()
    for part in ("no such model", 'node class "KitRare"'):
        assert part in caught.value.message


async def test_a_result_without_pixels_is_had_again_from_somebody_else(master: Master) -> None:
    up = Upscaling.post(master)
    work = await up.begin([set()])
    lease = await up.lease("w1")
    await master.end("w1").send(master.finish_with(lease, {"other": DATA["d0"]}))
    await up.serve("w2")
    await up.over()
    assert work.result() == [2]


async def test_a_lost_worker_s_tile_is_computed_from_the_same_pixels(master: Master) -> None:
    up = Upscaling.post(master)
    work = await up.begin([set(), {0}])
    await up.serve("w1")
    first = await up.lease("w1")
    before = up.pixels("w1", first)[PIXELS].data
    await master.end("w1").close("gone")
    again = await up.lease("w2")
    assert up.inputs_of(again) == up.inputs_of(first)
    assert torch.equal(up.pixels("w2", again)[PIXELS].data, before)
    await master.end("w2").send(up.redrawn("w2", again))
    await up.over()
    assert work.result() == alone(CHAIN[:2])


async def test_every_tile_told_twice_changes_nothing(master: Master) -> None:
    up = Upscaling.post(master, Wishes(worker_ids=("w1",)))
    work = await up.begin(FORK)
    for _ in FORK:
        lease = await up.lease("w1")
        report = up.redrawn("w1", lease)
        await master.end("w1").send(report)
        await master.end("w1").send(report)
    await up.over()
    await up.end()
    assert work.result() == alone(FORK)
    assert up.state() == "done"


async def test_a_cancel_while_pixels_are_on_their_way_sends_no_lease(master: Master) -> None:
    up = Upscaling.post(master)
    master.pusher.hold.clear()
    await up.begin(WIDE)
    await until(lambda: len(master.pusher.pushed) >= 2)
    master.coordinator.cancel_by_user(up.job_id)
    await until(lambda: up.stage.finished)
    with pytest.raises(JobCancelled):
        up.stage.check()
    master.pusher.hold.set()
    for worker in ("w1", "w2"):
        await heard(master.end(worker), m.JobOver)
        assert not any(isinstance(message, m.Lease) for message in master.end(worker).other.sent)
    assert master.spool.held() == []


# Preparation


async def test_the_first_worker_that_has_the_models_tells_of_them(master: Master) -> None:
    up = Upscaling.post(master)
    await master.end("w1").send(m.Prepared(job_id=up.job_id, ok=False, message="no such file"))
    await master.end("w2").send(m.Prepared(job_id=up.job_id, ok=True, facts={"video": True}))
    facts = up.stage.facts()
    await until(facts.done)
    assert facts.result() == {"video": True}


async def test_when_nobody_can_tell_nobody_waits(master: Master) -> None:
    up = Upscaling.post(master)
    facts = up.stage.facts()
    await master.end("w1").send(m.Prepared(job_id=up.job_id, ok=False, message="no such file"))
    await heard(master.end("w1"), m.Prepare)
    assert not facts.done()
    await master.end("w2").close("gone")
    await until(facts.done)
    assert facts.result() is None


async def test_inputs_of_jobs_that_are_over_are_not_kept_by_workers_that_missed_the_end(master: Master) -> None:
    up = Upscaling.post(master)
    await master.end("w1").send(m.JobsHeld(job_ids=["long gone", up.job_id]))
    assert (await heard(master.end("w1"), m.JobOver)).job_id == "long gone"
    await up.end()
    assert (await heard(master.end("w1"), m.JobOver)).job_id == up.job_id


# What people see


async def test_the_picture_shows_on_the_node_and_tiles_say_where_they_are(master: Master) -> None:
    master.screen.clients.add(CLIENT)
    up = Upscaling.post(master, Wishes(worker_ids=("w1",)))
    await up.begin(CHAIN)
    await up.serve("w1")
    await until(lambda: bool(master.screen.previews))
    ((jpeg, node_id, job_id, client_id), *_) = master.screen.previews
    assert (node_id, job_id, client_id) == (NODE, up.job_id, CLIENT)
    assert jpeg.startswith(b"\xff\xd8")
    await until(lambda: bool(master.screen.of("flotilla.item")))
    (item, *_), *_ = (data["items"] for data in master.screen.of("flotilla.item"))
    assert item["tile"] == {"pass": "redraw", "tiles": [{"column": 0, "row": 0, "box": [0, 0, 0, 0]}]}
    assert master.screen.of("flotilla.job")[-1]["items_total"] == 3


async def test_the_journal_knows_the_tiles(master: Master) -> None:
    up = Upscaling.post(master, Wishes(worker_ids=("w1",)))
    await up.begin(CHAIN)
    for _ in CHAIN:
        await up.serve("w1")
    await up.over()
    await up.end()
    await master.journal.flush()
    record = await master.journal.job(up.job_id)
    assert record is not None
    assert (record.state, record.items_total, record.items_done) == ("done", 3, 3)
    items = (await master.journal.items(up.job_id, 10, 0)).records
    assert [(item.index, item.k, item.node_id, item.state) for item in items] == [
        (place, place, NODE, "done") for place in range(3)
    ]
