"""The life of a job in the state machine, rule by rule: from plan to done, failures, ends and what nobody knows."""

from __future__ import annotations

import json

import pytest
from fakes.desk import BROKEN, Desk, J, end, failed, finished, lease
from flotilla.jobs import events as ev
from flotilla.jobs.instructions import FetchResult, FinishJob, ItemChanged, KeepResult, ReleaseResult, StopLease
from flotilla.jobs.model import Failure, JobState
from flotilla.utils.errors import InvalidInput

# From plan to done


def test_a_job_goes_from_plan_to_done() -> None:
    desk = Desk("a", "b")
    desk.plan("a", "b")
    assert desk.state() == "planned"
    assert desk.tell(ev.JobAccepted(J)) == [lease("a", 0), lease("b", 1)]
    assert desk.tell(ev.ItemStarted(J, 1, 1, "b")) == []
    assert desk.tell(finished(1, 1, "b")) == [FetchResult("b", J, 1, 1, "blob 1.1")]
    assert desk.tell(ev.ResultFetched(J, 1, 1, "b")) == [KeepResult("b", J, 1, 1)]
    told = desk.finish(0, 1, "a")
    assert told[-1] == FinishJob(J, JobState.DONE, None)
    released = [ReleaseResult("a", J, 0, 1, "blob 0.1"), ReleaseResult("b", J, 1, 1, "blob 1.1")]
    assert desk.tell(ev.JobGathered(J)) == released
    assert desk.tell(ev.JobForgotten(J)) == []
    assert desk.machine.job(J) is None


def test_a_job_without_items_is_done_at_once() -> None:
    assert Desk().start() == [FinishJob(J, JobState.DONE, None)]


def test_what_cannot_be_planned_is_refused_and_leaves_nothing() -> None:
    desk = Desk("a")
    twice = (ev.ItemSpec(0, "a"), ev.ItemSpec(0, "a"))
    with pytest.raises(InvalidInput, match="twice"):
        desk.machine.handle(ev.JobPlanned(J, twice, ("a",)), 0.0)
    with pytest.raises(InvalidInput, match="attempt"):
        desk.machine.handle(ev.JobPlanned(J, (), ("a",), max_attempts=0), 0.0)
    assert desk.machine.job(J) is None


def test_only_an_ended_job_can_be_forgotten() -> None:
    desk = Desk("a")
    desk.start("a")
    assert desk.tell(ev.JobForgotten(J), ev.JobForgotten("never heard of")) == []
    assert desk.state() == "running"
    desk.finish(0, 1, "a")
    assert desk.tell(ev.JobForgotten(J)) == [ReleaseResult("a", J, 0, 1, "blob 0.1")], (
        "not gathered, and kept no longer"
    )
    assert list(desk.machine.job_ids()) == []


def test_changed_items_are_told_once_and_only_when_something_shows() -> None:
    desk = Desk("a")
    desk.start("a")
    progress = ev.ItemProgressed(J, 0, 1, "a", 0.5, "KSampler")
    assert desk.machine.handle(progress, 1.0) == [ItemChanged(J, 0)]
    assert desk.machine.handle(progress, 1.0) == []
    assert desk.machine.handle(ev.ItemProgressed(J, 0, 1, "a", 0.4, "late"), 1.0) == []
    assert desk.machine.handle(ev.ItemProgressed(J, 0, 1, "a", float("nan")), 1.0) == []
    view = desk.machine.item(J, 0)
    assert view is not None
    assert (view.state, view.fraction, view.label, view.participant_id) == ("running", 0.5, "KSampler", "a")
    desk.tell(ev.ItemProgressed(J, 0, 1, "a", 7.0))
    view = desk.machine.item(J, 0)
    assert view is not None
    assert view.fraction == 1.0


# Failure


def test_a_failed_item_is_retried_elsewhere_then_fails_the_job_with_the_cause() -> None:
    desk = Desk("a", "b", "c")
    desk.start("a", "c", participants=("a", "b", "c"))
    assert desk.tell(failed(0, 1, "a")) == [lease("b", 0, 2)]
    assert desk.tell(failed(0, 2, "b")) == [lease("c", 0, 3)]
    told = desk.tell(failed(0, 3, "c"))
    assert StopLease("c", J, 1, 1) in told
    assert end(told).failure == Failure("error", "it broke", "Traceback ...", "7", "Breaker", "c", 3)
    assert [desk.machine.item(J, index).state for index in (0, 1)] == ["failed", "cancelled"]  # type: ignore[union-attr]


def test_a_failure_that_cannot_be_helped_is_not_retried() -> None:
    desk = Desk("a", "b")
    desk.start("a", participants=("a", "b"))
    assert end(desk.tell(failed(0, 1, "a", retry=False))).state is JobState.FAILED


def test_one_that_failed_it_may_try_again_when_no_other_is_left() -> None:
    desk = Desk("a")
    desk.start("a", max_attempts=2)
    assert desk.tell(failed(0, 1, "a")) == [lease("a", 0, 2)]
    assert end(desk.tell(failed(0, 2, "a"))).state is JobState.FAILED


def test_one_that_failed_it_gets_it_again_when_the_last_other_goes() -> None:
    desk = Desk("a", "b", slots=1)
    desk.start("b", job_id="other")
    desk.start("a", participants=("a", "b"))
    assert desk.tell(failed(0, 1, "a")) == [], "b is merely busy"
    assert desk.tell(ev.ParticipantOffline("b", "gone")) == [lease("a", 0, 2)]


def test_a_result_that_cannot_be_brought_over_is_a_counted_failure() -> None:
    desk = Desk("a", "b")
    desk.start("a", participants=("a", "b"), max_attempts=2)
    desk.tell(finished(0, 1, "a"))
    assert desk.tell(ev.FetchFailed(J, 0, 1, "a", BROKEN)) == [lease("b", 0, 2)]
    assert desk.tell(finished(0, 1, "a")) == [], "offered again, it does not displace the work that goes on"
    desk.tell(finished(0, 2, "b"))
    told = desk.tell(ev.FetchFailed(J, 0, 2, "b", BROKEN))
    assert {one for one in told if isinstance(one, ReleaseResult)} == {
        ReleaseResult("a", J, 0, 1, "blob 0.1"),
        ReleaseResult("b", J, 0, 2, "blob 0.2"),
    }
    failure = end(told).failure
    assert failure is not None
    assert (failure.kind, failure.participant_id) == ("transfer", "b")


# Ends


def test_cancel_stops_every_live_lease_and_releases_every_result() -> None:
    desk = Desk("a", "b")
    desk.start("a", "a", "b", "a")
    desk.tell(ev.ItemStarted(J, 0, 1, "a"), ev.ItemStarted(J, 1, 1, "a"), finished(2, 1, "b"))
    told = desk.tell(ev.JobCancelled(J, "stopped by hand"))
    assert told == [
        StopLease("a", J, 0, 1),
        StopLease("a", J, 1, 1),
        ReleaseResult("b", J, 2, 1, "blob 2.1"),
        FinishJob(J, JobState.CANCELLED, Failure("cancelled", "stopped by hand")),
    ]
    assert desk.tell(finished(0, 1, "a")) == [ReleaseResult("a", J, 0, 1, "blob 0.1")]
    assert desk.tell(ev.ResultFetched(J, 2, 1, "b"), ev.JobCancelled(J, "again"), ev.JobAccepted(J)) == []
    assert desk.tell(ev.ItemProgressed(J, 1, 1, "a", 0.5)) == [StopLease("a", J, 1, 1)]


@pytest.mark.parametrize(
    ("event", "state"),
    [
        (ev.JobDropped(J, "no such node"), "dropped"),
        (ev.JobCancelled(J, "stopped"), "cancelled"),
        (ev.PromptEnded(J), "cancelled"),
    ],
)
def test_a_planned_job_can_end_before_it_starts(event: ev.Event, state: str) -> None:
    desk = Desk("a")
    desk.plan("a")
    assert end(desk.tell(event)).state.value == state
    assert desk.tell(ev.JobAccepted(J), event) == []
    assert desk.machine.load("a") == 0


def test_the_end_of_the_prompt_ends_an_open_job_and_leaves_a_done_one() -> None:
    desk = Desk("a")
    desk.start("a")
    told = end(desk.tell(ev.PromptEnded(J)))
    assert told.state is JobState.CANCELLED
    assert told.failure is not None
    assert told.failure.message == "The prompt ended without needing it."
    other = Desk("a")
    other.start("a")
    other.finish(0, 1, "a")
    assert other.tell(ev.PromptEnded(J)) == []
    assert other.state() == "done"


# What nobody knows


def test_what_nobody_knows_does_no_harm() -> None:
    desk = Desk("a", "b")
    desk.start("a")
    for job_id, index, attempt, who in (
        ("?", 0, 1, "a"),
        (J, 9, 1, "a"),
        (J, 0, 0, "a"),
        (J, 0, 2, "a"),
        (J, 0, 1, "b"),
    ):
        where = (job_id, index, attempt, who)
        before = desk.machine.job(J)
        assert desk.tell(ev.ItemStarted(*where)) == [StopLease(who, job_id, index, attempt)]
        assert desk.tell(ev.ItemFinished(*where, result=1)) == [ReleaseResult(who, job_id, index, attempt, 1)]
        assert desk.tell(failed(index, attempt, who) if job_id == J else ev.JobAccepted(job_id)) == []
        assert desk.tell(ev.ResultFetched(*where), ev.FetchFailed(*where, failure=BROKEN)) == []
        assert desk.tell(ev.LeaseRefused(*where, reason="no")) == []
        assert desk.machine.job(J) == before
    assert desk.tell(ev.JobGathered("?"), ev.JobCancelled("?", ""), ev.JobDropped("?", ""), ev.PromptEnded("?")) == []
    assert desk.machine.item("?", 0) is None


def test_the_same_said_twice_changes_nothing() -> None:
    desk = Desk("a", "b")
    desk.start("a", "b")
    said = (ev.ItemStarted(J, 0, 1, "a"), finished(0, 1, "a"), ev.ResultFetched(J, 0, 1, "a"))
    for event in said:
        desk.tell(event)
        before = desk.machine.job(J)
        again = desk.tell(event)
        assert desk.machine.job(J) == before
        assert again == []
    assert desk.tell(said[0]) == []
    assert desk.tell(said[1]) == [KeepResult("a", J, 0, 1)], "offered again: it has not heard"
    desk.plan("a", "a", "a")
    assert len(desk.machine.job(J).items) == 2  # type: ignore[union-attr]


def test_a_view_is_plain_json_and_tells_the_whole_story() -> None:
    desk = Desk("a", "b")
    desk.start("a", participants=("a", "b"), left_out={"c": "no such model"})
    desk.tell(ev.ItemStarted(J, 0, 1, "a"), failed(0, 1, "a"))
    view = desk.machine.job(J)
    assert view is not None
    told = json.loads(json.dumps(view.to_json()))
    assert told["state"] == "running"
    assert told["left_out"] == {"c": "no such model"}
    item = told["items"][0]
    assert (item["state"], item["participant_id"], item["attempt"]) == ("leased", "b", 2)
    assert [attempt["state"] for attempt in item["attempts"]] == ["failed", "leased"]
    assert item["attempts"][0]["error"] == {**BROKEN.to_json(), "participant_id": "a", "attempt": 1}
    assert item["attempts"][0]["started_s"] == 100.0
    desk.finish(0, 2, "b")
    assert desk.machine.item(J, 0).participant_id == "b"  # type: ignore[union-attr]
