"""An upscale as its node and the coordinator see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fakes.tile_stage import NODE, WAIT_S, Told, small_spool
from fakes.tile_work import FakeWork, alone, result
from flotilla.graph.model_side import Blob, Constant
from flotilla.transport.loose import read_values
from flotilla.transport.spool import Spool
from flotilla.transport.values import IMAGE, JSON, Value
from flotilla.upscale.work import ABOUT, PIXELS
from flotilla.utils.errors import InvalidInput, JobCancelled, JobFailed, NotFound, SpoolFull

CHAIN = [set(), {0}, {1}]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = small_spool(tmp_path)
    yield made
    made.close()


@pytest.fixture
def told(spool: Spool) -> Iterator[Told]:
    made = Told(spool=spool)
    yield made
    made.stage.finish(None)


def put(told: Told, place: int, number: float, hint: str = "") -> None:
    told.stage.assembly.put_local(place, result(number, hint=hint))
    told.settle()
    told.stage.show(place, 1.0, done=True)


def test_before_the_node_is_reached_there_is_nothing_and_nothing_is_over(told: Told) -> None:
    stage = told.stage
    assert (stage.count, stage.is_over, stage.wanted, stage.progress()) == (0, False, False, 0.0)
    with pytest.raises(NotFound):
        stage.cut(0)
    stage.check()


def test_a_picture_is_told_with_all_its_places_and_those_that_can_be_computed_at_once(told: Told) -> None:
    told.begin([set(), {0}, set()])
    ((tiles, ready),) = told.added
    assert [tile["tiles"][0]["column"] for tile in tiles] == [0, 1, 2]
    assert ready == [0, 2]
    assert told.stage.count == 3


def test_results_open_places_until_the_picture_is_over(told: Told) -> None:
    work = told.begin(CHAIN)
    for place, number in enumerate(alone(CHAIN)):
        assert not told.stage.is_over
        cut = told.stage.cut(place).result(WAIT_S)[PIXELS].data
        assert torch.equal(cut * 2, torch.full_like(cut, number))
        put(told, place, number)
    assert told.ready == [[1], [2]]
    assert told.stage.is_over
    assert not told.stage.finished, "whether the job is over is for others to say"
    assert work.result() == alone(CHAIN)


def test_who_waits_is_woken_by_every_result_and_by_the_end(told: Told) -> None:
    told.begin(CHAIN)
    for place, number in enumerate(alone(CHAIN)):
        waiting = told.stage.next_change()
        assert not waiting.done()
        put(told, place, number)
        assert waiting.done()
    assert told.stage.next_change().done(), "it is over: there is nothing more to wait for"


def test_a_picture_is_done_when_the_job_knows_it(told: Told) -> None:
    """Whoever waits is woken then, and not left to try again and again before."""
    run = told.stage.begin(FakeWork([set(), set()]))
    told.stage.assembly.put_local(0, result(2))
    told.stage.lost(1, "no memory")
    told.settle()
    assert told.stage.is_over
    assert not told.stage.is_done(run)
    waiting = told.stage.next_change()
    assert not waiting.done()
    told.stage.show(0, 1.0, done=True)
    assert waiting.done()
    assert told.stage.is_done(run)


def test_the_second_result_of_a_place_changes_nothing(told: Told) -> None:
    work = told.begin([set(), set()])
    put(told, 0, 2)
    put(told, 0, 77)
    assert work.numbers == {0: 2}


def test_pictures_follow_each_other_and_places_go_on(told: Told) -> None:
    first = told.begin([set(), set()])
    put(told, 0, 2)
    put(told, 1, 2)
    second = told.begin(CHAIN)
    assert not told.stage.is_over
    assert told.added[1][1] == [2]
    assert told.stage.count == 5
    assert told.stage.work_of(1) == (first, 1)
    assert told.stage.work_of(4) == (second, 2)
    put(told, 2, 2)
    assert told.ready == [[3]]
    assert second.numbers == {0: 2}
    assert first.numbers == {0: 2, 1: 2}


def test_a_tile_that_the_master_computes_is_told_with_its_item(told: Told) -> None:
    told.begin(CHAIN)
    told.stage.request(0, 3)
    assert told.stage.take_request() == (0, 3)
    told.stage.deliver_requested(0, 3, result(2))
    told.settle()
    ((index, attempt, values),) = told.delivered
    assert (index, attempt) == (0, 3)
    assert values[PIXELS].data.mean() == 2
    assert told.ready == [[1]]


def test_a_tile_that_the_master_cannot_compute_is_told_and_the_stage_goes_on(told: Told) -> None:
    told.begin(CHAIN)
    told.stage.fail_here(0, 2, ValueError("boom"))
    assert told.failed == [(0, 2, "boom")]
    assert not told.stage.wanted


def test_a_tile_that_will_not_come_leaves_what_is_there_and_is_named(told: Told) -> None:
    work = told.begin(CHAIN)
    waiting = told.stage.next_change()
    told.stage.lost(0, "Two: no memory")
    told.settle()
    assert waiting.done()
    assert told.ready == [[1]]
    put(told, 1, 2)
    put(told, 2, 6)
    assert told.stage.is_over
    assert work.result() == [None, 2, 6]
    assert told.stage.missing_note() == ("1 of 3 tiles is missing: tile 1 of 3 (redraw, x 0, y 0) (Two: no memory)")


def test_a_result_that_does_not_fit_ends_the_picture(told: Told) -> None:
    told.begin(CHAIN)
    told.stage.assembly.put_local(0, {PIXELS: Value(IMAGE, torch.zeros(1, 1, 1, 3))})
    told.settle()
    assert told.stage.is_over
    with pytest.raises(InvalidInput, match="do not fit"):
        told.stage.check()
    with pytest.raises(InvalidInput):
        told.stage.begin(told.stage.work_of(0)[0])


def test_what_ended_the_job_is_raised_before_anything_else(told: Told) -> None:
    work = told.begin(CHAIN)
    waiting = told.stage.next_change()
    told.stage.finish(JobFailed("no more"))
    assert waiting.done()
    assert told.stage.wanted
    for ask in (told.stage.check, lambda: told.stage.begin(work)):
        with pytest.raises(JobFailed, match="no more"):
            ask()
    with pytest.raises(JobCancelled):
        told.stage.cut(0)
    told.stage.ask()
    assert told.asked == 0
    assert told.stage.facts().result(0) is None, "nobody waits for ever"


def test_a_picture_that_is_begun_at_the_very_end_waits_for_nothing(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job ends between the look whether it has and the beginning."""
    monkeypatch.setattr(told.stage, "check", lambda: told.stage.finish(JobFailed("no more")))
    with pytest.raises(JobCancelled):
        told.begin(CHAIN)
    assert told.added == []


def test_hints_of_whoever_computed_are_kept_for_people(told: Told) -> None:
    told.begin(CHAIN)
    put(told, 0, 2, hint="5 frames would do")
    put(told, 1, 6)
    assert told.stage.hint == "5 frames would do"


def test_a_result_without_pixels_is_refused_and_another_one_counts(told: Told) -> None:
    work = told.begin(CHAIN)
    with pytest.raises(InvalidInput, match="no pixels"):
        told.stage.assembly.put_local(0, {ABOUT: Value(JSON, {})})
    put(told, 0, 2)
    assert work.numbers == {0: 2}


def test_data_go_into_prompts_as_constants_or_into_the_spool(told: Told, spool: Spool) -> None:
    image = torch.rand(1, 2, 2, 3)
    assert list(told.stage.side.data.values()) == [("1", 0), ("3", 0)]
    told.stage.set_data({"d0": Value(IMAGE, image), "d1": Value(JSON, "a boat")})
    (blob,) = told.stage.data_blobs
    assert told.stage.data == {"d0": Blob(blob.manifest.hash), "d1": Constant("a boat")}
    assert torch.equal(read_values(spool.open(blob.manifest.hash), blob.manifest)["value"].data, image)


def test_no_room_for_data_is_an_error_of_the_node(tmp_path: Path) -> None:
    full = small_spool(tmp_path, cap_bytes=100)
    with pytest.raises(SpoolFull):
        Told(spool=full).stage.set_data({"d0": Value(IMAGE, torch.rand(1, 64, 64, 3))})
    full.close()


def test_the_first_facts_count(told: Told) -> None:
    assert not told.stage.facts().done()
    told.stage.note_facts({"video": True})
    told.stage.note_facts(None)
    assert told.stage.facts().result(0) == {"video": True}


def test_facts_that_nobody_waits_for_any_more(told: Told) -> None:
    assert told.stage.facts().cancel()
    told.stage.note_facts({"video": True})


def test_names_for_people(told: Told) -> None:
    told.begin(CHAIN)
    assert told.stage.name_of(1) == "tile 2 of 3 (redraw, x 2, y 0)"


def test_added_nodes_have_new_ids_of_the_stage_s_own(told: Told) -> None:
    ids = [told.stage.free_id("pack"), told.stage.free_id("pack"), told.stage.free_id("upscale")]
    assert len(set(ids)) == 3
    assert all(one.startswith(f"{NODE}.") for one in ids)


def test_whether_the_master_computes_tiles_is_in_the_plan(spool: Spool) -> None:
    assert Told(spool=spool).stage.takes_part
    assert not Told(spool=spool, master=False).stage.takes_part


def test_the_fingerprint_does_not_speak_of_tiles_but_of_the_salt(spool: Spool) -> None:
    told = Told(spool=spool)
    before = told.stage.fingerprint
    told.begin(CHAIN)
    assert told.stage.fingerprint == before == Told(spool=spool, master=False).stage.fingerprint
    assert Told(spool=spool, salt="life 2").stage.fingerprint != before
    told.stage.finish(None)
