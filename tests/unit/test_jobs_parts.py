"""The parts of the state machine: tables, stories, selection, queues, timers, pace."""

from __future__ import annotations

import pytest
from fakes.desk import Desk, J, failed, finished
from flotilla.jobs import events as ev
from flotilla.jobs import transitions
from flotilla.jobs.ledger import Ledger
from flotilla.jobs.model import Group, Item, Job
from flotilla.jobs.pace import Pace
from flotilla.jobs.planning import make_job
from flotilla.jobs.queues import ItemQueue
from flotilla.jobs.selection import Ranking, choose_route
from flotilla.jobs.states import AttemptState, ItemState, JobState, ParticipantState
from flotilla.jobs.timers import Timers
from flotilla.jobs.transitions import (
    ATTEMPT_TRANSITIONS,
    ITEM_TRANSITIONS,
    JOB_TRANSITIONS,
    PARTICIPANT_TRANSITIONS,
    InvalidTransition,
)
from flotilla.utils.errors import NobodyCanRun

from devtools.state_tables import PAGE, page

# Tables


@pytest.mark.parametrize(
    ("table", "states", "first", "last"),
    [
        (
            JOB_TRANSITIONS,
            JobState,
            JobState.PLANNED,
            {state for state in JobState if not state.is_open},
        ),
        (ITEM_TRANSITIONS, ItemState, ItemState.HELD, {ItemState.DONE, ItemState.FAILED, ItemState.CANCELLED}),
        (ATTEMPT_TRANSITIONS, AttemptState, AttemptState.LEASED, {AttemptState.DONE}),
        (PARTICIPANT_TRANSITIONS, ParticipantState, ParticipantState.OFFLINE, set()),
    ],
)
def test_the_tables_are_complete(table: dict, states: type, first: object, last: set) -> None:  # type: ignore[type-arg]
    assert all(table.values()), "every transition says when it happens"
    assert {state for state in states if not any(was is state for was, _ in table)} == last  # type: ignore[attr-defined]
    reached, todo = {first}, [first]
    while todo:
        here = todo.pop()
        for was, to in table:
            if was is here and to not in reached:
                reached.add(to)
                todo.append(to)
    assert reached == set(states)  # type: ignore[call-overload]


def test_a_change_that_the_tables_lack_is_refused_with_the_story() -> None:
    books = Ledger()
    job = make_job(ev.JobPlanned("j", (ev.ItemSpec(0, "a"),), ("a",)), 0.0)
    item = job.items[0]
    books.add_job(job)
    books.remember(ev.JobCancelled("j", "the story"))
    books.remember(ev.ItemStarted("j", 0, 1, "a"))
    books.remember(ev.ItemStarted("j", 5, 1, "a"))
    with pytest.raises(InvalidTransition, match="Item 0 of job j cannot go from waiting to running") as caught:
        books.move_item(item, ItemState.RUNNING)
    assert len(caught.value.story) == 2, "what concerns other items is left out"
    assert "the story" in str(caught.value)
    assert caught.value.details["story"] == list(caught.value.story)
    with pytest.raises(InvalidTransition, match="Job j cannot go from planned to done"):
        books.move_job(job, JobState.DONE)
    with pytest.raises(InvalidTransition, match="Participant a cannot go from offline to resting"):
        books.move_participant(books.participants["a"], ParticipantState.RESTING, "tired")
    assert (item.state, job.state) == (ItemState.WAITING, JobState.PLANNED)


def test_stories_are_bounded() -> None:
    books = Ledger()
    books.add_job(Job("j", {"a": 0}, {}, 3, 0.0))
    for _ in range(10_000):
        books.remember(ev.ItemStarted("j", 0, 1, "a"))
    assert len(books.jobs["j"].story) < 1_000
    assert len(books.participants["a"].story) < 1_000


def test_a_story_is_told_in_words_without_results_and_tracebacks() -> None:
    desk = Desk("a")
    desk.start("a")
    desk.tell(ev.ItemStarted(J, 0, 1, "a"), failed(0, 1, "a"), finished(0, 2, "a"))
    story = desk.machine.story(J)
    assert story[0] == "100.000 JobAccepted job_id=job"
    assert "ItemFailed job_id=job index=0 attempt=1 participant_id=a failure=error: it broke retry=True" in story[2]
    assert "Traceback" not in "".join(story)
    assert "blob" not in "".join(story)
    view = desk.machine.participant("a")
    assert view is not None
    assert view.story[-1].startswith("100.000 ItemFinished")
    assert desk.machine.story("?") == ()


def test_the_page_about_the_tables_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(transitions), "run: python -m devtools.state_tables"


# Selection


def test_a_route_goes_to_the_least_loaded_and_of_equals_to_the_first() -> None:
    assert choose_route(("a", "b", "c"), {"a": 2.0, "b": 1.0, "c": 1.0}.__getitem__) == "b"
    assert choose_route(iter("ba"), lambda _: 0.0) == "b"
    with pytest.raises(NobodyCanRun):
        choose_route((), lambda _: 0.0)


def test_a_ranking_follows_finishes_that_grow() -> None:
    finish = {"a": 1.0, "b": 1.0, "c": 2.5}
    ranking = Ranking(finish, finish.__getitem__)
    order = []
    for _ in range(6):
        soonest = ranking.soonest()
        assert soonest is not None
        order.append(soonest)
        finish[soonest] += 1.0
    assert order == ["a", "b", "a", "b", "c", "a"]
    while ranking.soonest() is not None:
        ranking.drop_soonest()


# Queues


def test_a_queue_keeps_leasing_order_whoever_leaves() -> None:
    groups = [Group(Job(f"j{seq}", {}, {}, 3, 0.0, seq=seq), 0) for seq in (2, 1)]
    items = [Item(group, index, "a") for group in groups for index in range(100)]
    queue = ItemQueue()
    for item in reversed(items):
        queue.add(item)
        queue.add(item)
    assert len(queue) == 200
    for item in items[1::2]:
        queue.discard(item)
        queue.discard(item)
    assert items[1] not in queue
    assert items[0] in queue
    expected = sorted(items[::2], key=lambda item: item.key)
    assert list(queue) == expected
    for item in expected:
        assert queue.first() is item
        queue.discard(item)
    assert queue.first() is None
    queue.add(items[1])
    assert queue.first() is items[1]


# Timers


def test_timers_tell_the_earliest_and_forget_what_was_replaced() -> None:
    timers = Timers()
    assert timers.next_s() is None
    timers.set("a", 5.0)
    timers.set("b", 3.0)
    timers.set_earlier("a", 7.0)
    assert "a" in timers
    assert (timers.take_due(2.9), timers.take_due(3.0), timers.take_due(4.0)) == (None, "b", None)
    timers.set_earlier("a", 4.5)
    assert timers.next_s() == 4.5
    timers.set("a", 9.0)
    assert (timers.take_due(5.0), timers.next_s()) == (None, 9.0)
    timers.clear("a")
    timers.clear("never set")
    assert (timers.next_s(), "a" in timers, timers.take_due(99.0)) == (None, False, None)


# Pace


def test_pace_knows_each_ones_mean_and_that_of_all() -> None:
    pace = Pace()
    assert (pace.own("a"), pace.expected("a"), pace.mean, pace.rate) == (None, None, None, 0.0)
    pace.note("a", 1.0)
    pace.note("a", 3.0)
    pace.note("b", 4.0)
    assert pace.own("a") == 2.0
    assert pace.expected("new") == pace.mean == pytest.approx(8 / 3)
    assert pace.rate == pytest.approx(1 / 2 + 1 / 4)
    assert dict(pace.means()) == {"a": 2.0, "b": 4.0}


def test_pace_forgets_a_slow_beginning() -> None:
    pace = Pace()
    pace.note("a", 30.0)
    for _ in range(40):
        pace.note("a", 1.0)
    assert pace.own("a") == pytest.approx(1.0, rel=0.2)
    pace.note("zero", 0.0)
    assert 0.0 < pace.rate < float("inf")
