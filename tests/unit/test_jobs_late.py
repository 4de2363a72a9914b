"""Items that come while their job runs, and items that are held until others are done."""

from __future__ import annotations

import pytest
from fakes.desk import BROKEN, Desk, J, end, failed, fetches, finished, lease, leases
from flotilla.jobs import events as ev
from flotilla.jobs.forecast import STALL_SILENT_LATE_S
from flotilla.jobs.instructions import FetchResult, FinishJob, Instruction, ReleaseResult
from flotilla.jobs.model import JobState
from flotilla.utils.errors import InvalidInput

LATE = frozenset({0})
ASK = ev.ItemAsked(J, 0, "m")


def desk_with_job(*online: str, slots: int = 2, accept: bool = True, **plan: object) -> Desk:
    """A job without items yet, of the master ``m``, who asks, and these workers."""
    desk = Desk(*online, slots=slots)
    desk.tell(ev.ParticipantOnline("m", slots=100, takes_unpinned=False))
    plan = {"fallback": "m", "late_groups": LATE, "participants": ("m", *online), **plan}
    desk.plan(**plan)  # type: ignore[arg-type]
    if accept:
        desk.tell(ev.JobAccepted(J))
    return desk


def items(count: int, *, held: tuple[int, ...] = (), **spec: object) -> ev.ItemsAdded:
    spec = {"pulled": True, **spec}
    specs = (ev.ItemSpec(index, "m", held=index in held, **spec) for index in range(count))  # type: ignore[arg-type]
    return ev.ItemsAdded(J, tuple(specs))


def state(desk: Desk, index: int) -> str:
    view = desk.machine.item(J, index)
    assert view is not None
    return view.state


# Late items


def test_added_items_are_leased_at_once() -> None:
    desk = desk_with_job("a")
    assert desk.state() == "running", "a job that may get items waits for them"
    assert desk.tell(items(3)) == [lease("a", 0), lease("a", 1)]
    assert desk.tell(ASK) == [lease("m", 2)]


def test_an_ask_waits_for_items_that_are_still_to_come() -> None:
    desk = desk_with_job()
    assert desk.tell(ASK) == []
    assert desk.tell(items(1)) == [lease("m", 0)]


def test_items_added_before_the_job_is_accepted_wait_for_that() -> None:
    desk = desk_with_job("a", accept=False)
    assert desk.tell(items(2, held=(1,), pulled=False)) == []
    assert desk.machine.load("m") == 2, "they weigh on whom they are planned for, as those of the plan do"
    assert desk.tell(ev.JobAccepted(J)) == [lease("a", 0)]
    assert desk.machine.load("m") == 0


def test_items_that_are_ready_before_the_job_is_accepted_are_leased_with_the_others() -> None:
    desk = desk_with_job("a", accept=False)
    assert desk.tell(items(2, held=(0, 1)), ev.ItemsReady(J, (1,))) == []
    assert desk.tell(ev.JobAccepted(J)) == [lease("a", 1)]


def test_known_items_are_not_added_again_and_those_of_unknown_or_ended_jobs_are_ignored() -> None:
    desk = desk_with_job("a", slots=9)
    desk.tell(items(2))
    assert desk.tell(items(3)) == [lease("a", 2)]
    assert desk.tell(ev.ItemsAdded("?", items(1).items), ev.ItemsReady("?", (0,))) == []
    desk.tell(ev.JobCancelled(J, "enough"))
    assert desk.tell(items(9), ev.ItemsReady(J, (7,))) == []
    view = desk.machine.job(J)
    assert view is not None
    assert len(view.items) == 3


def test_of_items_with_the_same_index_the_first_counts() -> None:
    desk = desk_with_job("a")
    twice = (ev.ItemSpec(0, "a", held=True), ev.ItemSpec(0, "a"))
    assert desk.tell(ev.ItemsAdded(J, twice)) == []
    assert state(desk, 0) == "held"


def test_items_that_make_no_sense_are_refused_and_nothing_is_added() -> None:
    desk = desk_with_job("a")
    for wrong in (ev.ItemSpec(1, "a", group=3), ev.ItemSpec(1, "a", attempts_before=-1)):
        with pytest.raises(InvalidInput):
            desk.machine.handle(ev.ItemsAdded(J, (ev.ItemSpec(0, "a"), wrong)), desk.now_s)
    desk.machine.validate()
    assert desk.machine.item(J, 0) is None
    mixed = Desk("a")
    mixed.start("a")
    with pytest.raises(InvalidInput, match="which is not late"):
        mixed.machine.handle(ev.ItemsAdded(J, (ev.ItemSpec(1, "a"),)), 0.0)


def test_an_added_item_aimed_at_somebody_waits_for_them() -> None:
    desk = desk_with_job("a", "b", slots=1)
    aimed = tuple(ev.ItemSpec(index, "b") for index in range(2))
    assert desk.tell(ev.ItemsAdded(J, aimed)) == [lease("b", 0)]
    assert leases(desk.finish(0, 1, "b")) == [lease("b", 1)]


# The end


def run_all(desk: Desk, told: list[Instruction]) -> list[Instruction]:
    """Whatever is leased is done at once."""
    out = []
    while todo := leases(told):
        told = []
        for one in todo:
            told += desk.finish(one.index, one.attempt, one.participant_id)
        out += told
    return out


def test_a_job_with_late_items_is_over_when_its_prompt_has_ended() -> None:
    desk = desk_with_job("a")
    told = run_all(desk, desk.tell(items(3)))
    assert not [one for one in told if isinstance(one, FinishJob)]
    assert desk.state() == "running"
    more = tuple(ev.ItemSpec(index, "a", pulled=True) for index in (7, 5))
    assert leases(desk.tell(ev.ItemsAdded(J, more))) == [lease("a", 5), lease("a", 7)]
    desk.finish(5, 1, "a")
    desk.finish(7, 1, "a")
    assert end(desk.tell(ev.PromptEnded(J))).state is JobState.DONE
    assert len([one for one in desk.tell(ev.JobGathered(J)) if isinstance(one, ReleaseResult)]) == 5


def test_a_prompt_that_ends_early_needed_no_result() -> None:
    desk = desk_with_job("a")
    desk.tell(items(2, held=(1,)))
    desk.finish(0, 1, "a")
    told = desk.tell(ev.PromptEnded(J))
    assert end(told).state is JobState.CANCELLED, "a held item is open"
    assert state(desk, 1) == "cancelled"


def test_a_late_stage_may_end_without_items() -> None:
    desk = desk_with_job("a")
    assert end(desk.tell(ev.PromptEnded(J))).state is JobState.DONE, "nothing was to be done"
    two = desk_with_job("a", late_groups=frozenset({0, 1}))
    run_all(two, two.tell(items(1)))
    assert end(two.tell(ev.PromptEnded(J))).state is JobState.DONE, "the host's cache answered for one of its nodes"


def test_a_prompt_that_failed_fails_the_job_whatever_is_done() -> None:
    desk = desk_with_job("a")
    run_all(desk, desk.tell(items(1)))
    assert end(desk.tell(ev.PromptEnded(J, BROKEN))).state is JobState.FAILED


def test_stages_of_both_kinds_end_together() -> None:
    desk = Desk("a", slots=1)
    desk.start("a", late_groups=frozenset({1}))
    desk.finish(0, 1, "a")
    assert desk.state() == "running"
    desk.tell(ev.ItemsAdded(J, (ev.ItemSpec(1, "a", group=1),)))
    desk.finish(1, 1, "a")
    assert end(desk.tell(ev.PromptEnded(J))).state is JobState.DONE


def test_a_late_item_that_fails_everywhere_fails_the_job_at_once() -> None:
    desk = desk_with_job("a", max_attempts=1)
    desk.tell(items(3, held=(2,)))
    told = end(desk.tell(failed(0, 1, "a")))
    assert told.state is JobState.FAILED
    assert [state(desk, index) for index in range(3)] == ["failed", "cancelled", "cancelled"]


def test_a_partial_late_stage_does_without_what_failed() -> None:
    desk = desk_with_job("a", max_attempts=1, partial_groups=LATE)
    desk.tell(items(3, held=(2,)))
    assert end_of(desk.tell(failed(0, 1, "a"))) is None
    desk.finish(1, 1, "a")
    assert leases(desk.tell(ev.ItemsReady(J, (2,)))) == [lease("a", 2)]
    desk.finish(2, 1, "a")
    told = end(desk.tell(ev.PromptEnded(J)))
    assert told.state is JobState.PARTIAL
    assert told.failure is not None
    assert told.failure.message == "1 of 3 items are missing: item 0 (it broke)."


def test_a_partial_late_stage_of_which_nothing_comes_fails() -> None:
    desk = desk_with_job("a", max_attempts=1, partial_groups=LATE)
    desk.tell(items(2))
    assert end_of(desk.tell(failed(0, 1, "a"))) is None
    assert end(desk.tell(failed(1, 1, "a"))).state is JobState.FAILED


def end_of(told: list[Instruction]) -> FinishJob | None:
    return next((one for one in told if isinstance(one, FinishJob)), None)


# Who asks


@pytest.mark.parametrize("partial", [frozenset(), LATE])
def test_who_asks_for_late_items_gets_what_others_failed(partial: frozenset[int]) -> None:
    desk = desk_with_job("a", "b", slots=1, partial_groups=partial)
    desk.tell(items(2))
    desk.tell(ASK)
    told = desk.tell(failed(0, 1, "a"))
    assert leases(told) == [lease("m", 0, 2)], "b is busy, and the master's node catches what fails in it"


def test_who_asks_is_not_given_what_it_failed_while_others_are_left() -> None:
    desk = desk_with_job("a", slots=1)
    desk.tell(ASK, items(2))
    assert leases(desk.tell(failed(0, 1, "m"), ASK)) == []
    assert leases(desk.finish(1, 1, "a")) == [lease("a", 0, 2)]
    assert leases(desk.tell(ev.ParticipantOffline("a", "gone"))) == [lease("m", 0, 3)], "now nobody else is left"


def test_with_nobody_else_left_a_late_item_that_failed_waits_for_the_master() -> None:
    desk = desk_with_job("a", partial_groups=LATE)
    desk.tell(items(1))
    desk.tell(failed(0, 1, "a"), ev.ParticipantOffline("a", "gone"))
    assert desk.at(200.0) == []
    assert desk.tell(ASK) == [lease("m", 0, 3)]


# Held items


def test_a_held_item_is_shown_as_such_and_leased_by_nobody() -> None:
    desk = desk_with_job("a")
    assert desk.tell(ASK, items(2, held=(0, 1))) == []
    assert desk.at(300.0) == []
    view = desk.machine.item(J, 0)
    assert view is not None
    assert (view.state, view.participant_id, view.attempt, view.copies) == ("held", None, None, 0)
    assert desk.tell(ev.ItemsReady(J, (1, 1, 9))) == [lease("m", 1)], "the open ask is answered"
    assert desk.tell(ev.ItemsReady(J, (1,))) == [], "it is held no longer"
    assert state(desk, 0) == "held"


def test_items_of_a_plan_may_be_held_too() -> None:
    desk = Desk("a")
    assert desk.start("a", "a", spec={"held": True}) == []
    assert desk.tell(ev.ItemsReady(J, (0, 1))) == [lease("a", 0), lease("a", 1)]
    desk.finish(0, 1, "a")
    assert end(desk.finish(1, 1, "a")).state is JobState.DONE


def test_a_job_of_which_all_is_held_waits_for_its_participants_to_return() -> None:
    desk = desk_with_job("a")
    desk.tell(items(1, held=(0,)), ev.ParticipantOffline("a", "gone"))
    assert desk.at(300.0) == []
    assert desk.tell(ev.ParticipantOnline("a")) == []
    assert desk.tell(ev.ItemsReady(J, (0,))) == [lease("a", 0)]


def test_ready_items_of_a_pinned_participant_that_is_gone_fail() -> None:
    desk = Desk("a", "b")
    desk.start("a", "b", participants=("a", "b"), spec={"held": True}, pinned=(0,))
    desk.tell(ev.ParticipantOffline("a", "gone"))
    assert end(desk.tell(ev.ItemsReady(J, (0, 1)))).state is JobState.FAILED


# Results of earlier lives


def test_a_result_for_a_held_item_is_fetched_when_it_is_ready() -> None:
    desk = desk_with_job("a")
    desk.tell(items(2, held=(0, 1), attempts_before=2))
    assert desk.tell(finished(0, 2, "a")) == []
    assert state(desk, 0) == "held"
    assert desk.tell(ev.ItemsReady(J, (0, 1))) == [FetchResult("a", J, 0, 2, "blob 0.2"), lease("a", 1, 3)]
    desk.tell(ev.ResultFetched(J, 0, 2, "a"))
    assert state(desk, 0) == "done"


def test_a_result_that_is_offered_before_its_item_is_added_waits_for_it() -> None:
    desk = desk_with_job("a", "b")
    assert desk.tell(finished(0, 2, "a"), finished(1, 1, "b"), finished(1, 9, "b"), finished(8, 1, "b")) == []
    told = desk.tell(items(2, held=(1,), attempts_before=2))
    assert fetches(told) == [FetchResult("a", J, 0, 2, "blob 0.2")]
    assert ReleaseResult("b", J, 1, 9, "blob 1.9") in told, "no attempt of an earlier life"
    assert fetches(desk.tell(ev.ItemsReady(J, (1,)))) == [FetchResult("b", J, 1, 1, "blob 1.1")]
    told = desk.tell(ev.JobCancelled(J, "enough"))
    assert ReleaseResult("b", J, 8, 1, "blob 8.1") in told, "its item never came"


def test_a_result_for_an_item_of_a_job_that_gets_no_more_is_released_at_once() -> None:
    desk = Desk("a")
    desk.start("a")
    assert desk.tell(finished(5, 1, "a")) == [ReleaseResult("a", J, 5, 1, "blob 5.1")]


def test_an_early_result_of_one_that_is_gone_is_not_waited_for() -> None:
    desk = desk_with_job("a", "b")
    desk.tell(finished(0, 1, "b"), ev.ParticipantOffline("b", "gone"))
    assert desk.tell(items(1, attempts_before=1)) == [lease("a", 0, 2)]
    desk.tell(ev.ParticipantOnline("b"))
    assert fetches(desk.tell(finished(0, 1, "b"))) == [FetchResult("b", J, 0, 1, "blob 0.1")]


# Participants that join


def test_one_that_joins_takes_what_waits() -> None:
    desk = desk_with_job("a", slots=1)
    desk.tell(items(3), ev.ParticipantOnline("b", 1))
    assert desk.tell(ev.ParticipantJoined(J, "b")) == [lease("b", 1)]
    assert desk.tell(ev.ParticipantJoined(J, "b"), ev.ParticipantJoined("?", "b")) == []
    view = desk.machine.job(J)
    assert view is not None
    assert view.participants == ("m", "a", "b")
    assert desk.tell(ev.ParticipantJoined(J, "c"), ev.ParticipantOnline("c", 1)) == [lease("c", 2)]


def test_one_that_was_left_out_is_so_no_longer_when_it_joins() -> None:
    desk = Desk("a", "b", slots=1)
    desk.pull(2, "a", left_out={"b": "a model was missing"})
    assert desk.tell(ev.ParticipantJoined(J, "b")) == [lease("b", 1)]
    view = desk.machine.job(J)
    assert view is not None
    assert view.left_out == {}


def test_one_that_refused_the_job_does_not_join_it_again() -> None:
    desk = desk_with_job("a", "b", slots=1)
    desk.tell(items(3), ev.LeaseRefused(J, 0, 1, "a", "no model here"))
    assert desk.tell(ev.ParticipantJoined(J, "a")) == []


def test_who_joins_does_not_take_what_is_aimed_or_pinned_elsewhere() -> None:
    desk = Desk("a", "b", slots=1)
    desk.start("a", "a", "a", participants=("a",), pinned=(2,))
    assert desk.tell(ev.ParticipantJoined(J, "b")) == []


def test_a_job_that_waits_for_somebody_to_return_goes_on_with_whoever_joins() -> None:
    desk = Desk("a", "b", slots=1)
    desk.pull(1, "a")
    desk.tell(ev.ParticipantOffline("a", "gone"))
    assert desk.tell(ev.ParticipantJoined(J, "b")) == [lease("b", 0, 2)]


def test_a_mere_fallback_that_asked_is_served_when_it_joins() -> None:
    desk = desk_with_job("a", slots=1, participants=("a",))
    assert desk.tell(items(2), ASK) == [lease("a", 0)]
    assert desk.tell(ev.ParticipantJoined(J, "m")) == [lease("m", 1)]


def test_one_joins_a_planned_job_and_no_ended_one() -> None:
    desk = Desk("a", "b", slots=1)
    desk.plan("a", participants=("a",), spec={"pulled": True})
    desk.tell(ev.ParticipantOffline("a", "gone"), ev.ParticipantJoined(J, "b"))
    assert desk.tell(ev.JobAccepted(J)) == [lease("b", 0)]
    desk.finish(0, 1, "b")
    assert desk.tell(ev.ParticipantJoined(J, "c")) == []
    assert desk.machine.participant("c") is None


def test_one_that_is_not_heard_of_does_not_hold_up_those_that_wait_for_it() -> None:
    desk = desk_with_job("a", "b", slots=1)
    desk.tell(items(2, held=(1,)))
    desk.begin(0, 1, "a")
    assert desk.at(100.0 + STALL_SILENT_LATE_S) == []
    assert desk.at(102.0 + STALL_SILENT_LATE_S) == [lease("b", 0, 2)]
