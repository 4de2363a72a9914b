"""The event stream: what is told of jobs, items and participants, how often, and to whom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import chain, pairwise

import pytest
from fakes.relay_world import JOB, RelayWorld, done, running
from flotilla.jobs.model import Failure
from flotilla.jobs.view import AttemptView, ItemView
from flotilla.relay.feed import MAX_ITEMS_PER_MESSAGE
from flotilla.relay.news import ItemNews, ParticipantNews, item_news
from flotilla.relay.relay import JOB_EVERY_S
from loader import REPOSITORY

LONG_S = 100.0


@pytest.fixture
async def world() -> AsyncIterator[RelayWorld]:
    made = RelayWorld()
    yield made
    await made.relay.close()


# Jobs


async def test_the_first_news_of_a_job_is_told_at_once_to_everybody(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    (message,) = world.jobs()
    assert message == {
        "job_id": "job",
        "state": "running",
        "items_total": 24,
        "items_done": 0,
        "missing": 0,
        "participants": [
            {"id": "master", "name": "Desk", "running": 0, "done": 0, "failed": 0},
            {"id": "w1", "name": "GPU box", "running": 0, "done": 0, "failed": 0},
        ],
    }
    assert [client for _name, _data, client in world.screen.events] == [None]


async def test_news_that_comes_fast_is_told_together_and_the_last_state_is_told(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    for step in range(1, 11):
        world.relay.item_changed("job", running(0, fraction=step / 20))
        world.timers.advance(JOB_EVERY_S / 20)
    assert world.items() == []
    world.timers.advance(JOB_EVERY_S)
    (data,) = world.screen.of("flotilla.item")
    assert data["items"][0]["fraction"] == 0.5
    assert len(world.jobs()) == 2
    assert world.timers.pending == 0


async def test_states_of_a_job_that_come_fast_are_told_together(world: RelayWorld) -> None:
    for count in range(5):
        world.relay.job_changed(replace(JOB, missing=dict.fromkeys(range(count), "it failed")))
    assert [message["missing"] for message in world.jobs()] == [0]
    world.timers.advance(JOB_EVERY_S)
    assert [message["missing"] for message in world.jobs()] == [0, 4]


async def test_a_job_that_stands_as_it_stood_is_not_told_again(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    for label in ("", "KSampler 0/20"):
        world.timers.advance(LONG_S)
        world.relay.item_changed("job", running(0, label=label))
    assert world.items() == [[0], [0]]
    assert len(world.jobs()) == 2, "the label is the item's"


async def test_messages_of_a_job_are_never_closer_than_the_stated_time(world: RelayWorld) -> None:
    told_at_s: list[float] = []
    send = world.screen.send_event

    def noting(name: str, data: dict[str, object], client_id: str | None = None) -> bool:
        told_at_s.append(world.timers.clock.now_s())
        return send(name, data, client_id)

    world.screen.send_event = noting  # type: ignore[method-assign]
    world.relay.job_changed(JOB)
    for step in range(200):
        world.relay.item_changed("job", running(step % 24, fraction=step / 200))
        world.timers.advance(0.03)
    rounds = sorted(set(told_at_s))
    assert len(rounds) > 10
    assert min(after - before for before, after in pairwise(rounds)) > JOB_EVERY_S - 1e-6


async def test_the_end_is_told_at_once_with_everything_before_it(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    world.relay.item_changed("job", done(3))
    world.relay.job_changed(replace(JOB, state="done"))
    assert world.items() == [[3]]
    assert world.jobs()[-1]["state"] == "done"
    assert world.jobs()[-1]["items_done"] == 1
    assert world.screen.events[-1][0] == "flotilla.job"
    assert world.timers.pending == 0
    world.timers.advance(LONG_S)
    assert len(world.jobs()) == 2


async def test_news_after_the_end_is_dropped(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    world.relay.job_changed(replace(JOB, state="cancelled"))
    told = len(world.screen.events)
    world.relay.item_changed("job", done(1))
    world.relay.job_changed(replace(JOB, state="cancelled"))
    world.timers.advance(LONG_S)
    assert len(world.screen.events) == told


async def test_a_job_that_is_resumed_under_its_old_id_is_told_anew(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    world.relay.item_changed("job", done(1))
    world.relay.job_changed(replace(JOB, state="failed"))
    world.relay.job_changed(JOB)
    assert [message["items_done"] for message in world.jobs()] == [0, 1, 0]


async def test_a_failed_job_says_why_without_the_traceback(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    failure = Failure("exception", "x" * 2_000, traceback="secret lines", participant_id="w1")
    world.relay.job_changed(replace(JOB, state="failed", failure=failure, missing={4: "it failed", 7: "it failed"}))
    message = world.jobs()[-1]
    assert message["failure"] == {"kind": "exception", "message": "x" * 500, "participant": "w1"}
    assert message["missing"] == 2


async def test_two_jobs_are_told_apart_and_do_not_slow_each_other(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    world.relay.job_changed(replace(JOB, job_id="other", items_total=2))
    assert [message["job_id"] for message in world.jobs()] == ["job", "other"]
    world.timers.advance(LONG_S)
    world.relay.item_changed("job", done(0))
    world.relay.item_changed("other", done(1))
    assert [(message["job_id"], message["items_done"]) for message in world.jobs()[2:]] == [("job", 1), ("other", 1)]


# What a job counts


def counted(world: RelayWorld) -> dict[str, tuple[int, int, int]]:
    """Per participant: running, done, failed, as the next message would say."""
    world.timers.advance(LONG_S)
    participants = world.jobs()[-1]["participants"]
    assert isinstance(participants, list)
    return {one["id"]: (one["running"], one["done"], one["failed"]) for one in participants}


async def test_participants_are_counted_by_what_they_run_did_and_failed(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    world.relay.item_changed("job", running(0, "w1"))
    world.relay.item_changed("job", running(1, "w2"))
    assert counted(world) == {"master": (0, 0, 0), "w1": (1, 0, 0), "w2": (1, 0, 0)}
    world.relay.item_changed("job", ItemNews(0, 0, "9", "waiting", failed_on=("w1",)))
    world.relay.item_changed("job", done(1, "w2"))
    assert counted(world) == {"master": (0, 0, 0), "w1": (0, 0, 1), "w2": (0, 1, 0)}
    both = ItemNews(0, 0, "9", "running", "w2", 2, copies=2, running_on=("w2", "master"), failed_on=("w1",))
    world.relay.item_changed("job", both)
    assert counted(world) == {"master": (1, 0, 0), "w1": (0, 0, 1), "w2": (1, 1, 0)}
    world.relay.item_changed("job", replace(done(0, "master"), failed_on=("w1",)))
    assert counted(world) == {"master": (0, 1, 0), "w1": (0, 0, 1), "w2": (0, 1, 0)}


async def test_an_item_that_has_ended_is_not_counted_twice(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    world.relay.item_changed("job", done(0))
    world.relay.item_changed("job", done(0))
    world.relay.item_changed("job", running(0, "w2"))
    world.timers.advance(LONG_S)
    assert world.jobs()[-1]["items_done"] == 1
    assert list(chain.from_iterable(world.items())) == [0]


async def test_an_item_that_only_waits_is_no_news(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    world.relay.item_changed("job", ItemNews(0, 0, "9", "waiting"))
    world.relay.item_changed("job", ItemNews(99, 99, "9", "running", "w1"))
    assert world.timers.pending == 0


async def test_the_remaining_time_follows_from_the_work_of_this_life_alone(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    for index in range(12):  # taken over from before a resume: nobody worked for them now
        world.relay.item_changed("job", done(index))
    world.relay.item_changed("job", running(12))
    world.timers.advance(10.0)
    world.relay.item_changed("job", running(12, fraction=0.9))
    assert "eta_s" not in world.jobs()[-1]
    world.relay.item_changed("job", done(12))
    world.relay.item_changed("job", running(13, fraction=0.0))
    world.relay.item_changed("job", running(13, fraction=1.0))
    world.timers.advance(JOB_EVERY_S)
    eta_s = world.jobs()[-1]["eta_s"]
    assert isinstance(eta_s, float)
    assert 50.0 <= eta_s <= 52.0  # two items in ten seconds, ten to go
    world.relay.job_changed(replace(JOB, state="cancelled"))
    assert "eta_s" not in world.jobs()[-1]


# Items


async def test_an_item_is_told_with_its_step_and_who_is_at_it(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    world.timers.advance(LONG_S)
    world.relay.item_changed("job", running(5, fraction=0.60004, label="KSampler 12/20"))
    (data,) = world.screen.of("flotilla.item")
    assert data == {
        "job_id": "job",
        "items": [
            {
                "index": 5,
                "k": 5,
                "node_id": "9",
                "state": "running",
                "participant": "w1",
                "attempt": 1,
                "fraction": 0.6,
                "label": "KSampler 12/20 on GPU box",
                "copies": 1,
            }
        ],
    }


async def test_the_step_of_an_item_that_runs_no_more_is_not_told(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    world.relay.item_changed("job", replace(done(5), label="KSampler 19/20"))
    world.timers.advance(LONG_S)
    assert world.screen.of("flotilla.item")[-1]["items"][0]["label"] == ""


async def test_many_items_are_told_in_bounded_messages_and_all_of_them(world: RelayWorld) -> None:
    total = 3 * MAX_ITEMS_PER_MESSAGE
    world.relay.job_changed(replace(JOB, items_total=total))
    for index in range(total):
        world.relay.item_changed("job", done(index))
    world.timers.advance(JOB_EVERY_S)
    assert [len(one) for one in world.items()] == [MAX_ITEMS_PER_MESSAGE]
    world.timers.advance(JOB_EVERY_S * 2)
    assert list(chain.from_iterable(world.items())) == list(range(total))
    assert world.timers.pending == 0


async def test_a_cancelled_job_is_told_once_and_not_once_for_each_item(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    world.relay.item_changed("job", done(0))
    for index in range(1, 24):
        world.relay.item_changed("job", ItemNews(index, index, "9", "cancelled"))
    world.relay.job_changed(replace(JOB, state="cancelled"))
    assert world.items() == [[0]]


def attempt(number: int, participant_id: str, state: str) -> AttemptView:
    return AttemptView(number, participant_id, state, 1.0, 1.0, None, None)


def test_news_of_an_item_is_made_from_what_the_machine_shows() -> None:
    attempts = (attempt(1, "w1", "failed"), attempt(2, "w2", "running"), attempt(3, "w3", "leased"))
    view = ItemView.__new__(ItemView)
    known = {
        "index": 30, "state": "running", "participant_id": "w2", "attempt": 2, "attempts": attempts, "fraction": 0.5,
        "copies": 2, "label": "KSampler 1/2",
    }  # fmt: skip
    for name, value in known.items():
        object.__setattr__(view, name, value)
    assert item_news(view, "9", 6) == ItemNews(
        30, 6, "9", "running", "w2", 2, 0.5, "KSampler 1/2", copies=2, running_on=("w2",), failed_on=("w1",)
    )


# The documentation


def documented(heading: str, column: str = "field") -> set[str]:
    """The fields in the table of a section of docs/events.md."""
    text = (REPOSITORY / "docs" / "events.md").read_text(encoding="utf-8")
    section = text.split(f"## `{heading}`\n")[1].split("\n## ")[0]
    table = section.split(f"| {column} | meaning |\n")[1].split("\n\n")[0]
    return {line.split("`")[1] for line in table.splitlines()[1:]}


async def test_every_field_is_documented_and_nothing_else_is(world: RelayWorld) -> None:
    world.relay.job_changed(replace(JOB, failure=Failure("exception", "no")))
    world.relay.item_changed("job", running(0, label="KSampler 1/2"))
    world.timers.advance(1.0)
    world.relay.item_changed("job", replace(done(0), tile={}))
    world.relay.participant_changed(ParticipantNews("w1", "online"))
    world.relay.preview(world.picture("w1"))
    await world.shown(1)
    for name in ("job", "item", "participant", "preview"):
        assert set(world.screen.of(f"flotilla.{name}")[-1]) == documented(f"flotilla.{name}")
    (item,) = world.screen.of("flotilla.item")[-1]["items"]
    assert set(item) == documented("flotilla.item", "field of an item")


# Participants


async def test_a_participant_is_told_when_it_changes_and_only_then(world: RelayWorld) -> None:
    world.relay.participant_changed(ParticipantNews("w1", "online"))
    world.relay.participant_changed(ParticipantNews("w1", "online"))
    world.timers.advance(LONG_S)
    world.relay.participant_changed(ParticipantNews("w1", "resting", "it failed 3 times in a row"))
    assert world.screen.of("flotilla.participant") == [
        {"id": "w1", "name": "GPU box", "state": "online", "reason": ""},
        {"id": "w1", "name": "GPU box", "state": "resting", "reason": "it failed 3 times in a row"},
    ]


async def test_a_participant_that_flaps_is_told_of_at_a_bounded_rate_and_ends_right(world: RelayWorld) -> None:
    for turn in range(100):
        world.relay.participant_changed(ParticipantNews("w1", "online" if turn % 2 else "offline"))
        world.timers.advance(0.01)
    world.timers.advance(LONG_S)
    told = world.screen.of("flotilla.participant")
    assert len(told) <= 6
    assert told[-1]["state"] == "online"


async def test_a_participant_that_is_gone_is_forgotten(world: RelayWorld) -> None:
    world.relay.participant_changed(ParticipantNews("w1", "online"))
    world.relay.participant_changed(ParticipantNews("w1", "offline"))
    world.relay.participant_gone("w1")
    world.relay.participant_gone("w1")
    world.timers.advance(LONG_S)
    assert len(world.screen.of("flotilla.participant")) == 1


# The end


async def test_closing_ends_every_timer_and_all_work(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    world.relay.item_changed("job", done(0))
    world.relay.participant_changed(ParticipantNews("w1", "online"))
    world.relay.participant_changed(ParticipantNews("w1", "offline"))
    world.relay.preview(world.picture("w1"))
    world.relay.preview(world.picture("w1"))
    assert world.timers.pending >= 2
    await world.relay.close()
    assert world.timers.pending == 0
    told = len(world.screen.events)
    world.relay.preview(world.picture("w1"))
    world.timers.advance(LONG_S)
    assert len(world.screen.events) == told
    assert not world.screen.previews


# Items that come later


async def test_items_that_are_added_count_and_held_ones_are_not_told_of(world: RelayWorld) -> None:
    world.relay.job_changed(replace(JOB, items_total=0))
    world.relay.item_changed("job", done(0))
    world.timers.advance(LONG_S)
    assert world.items() == [], "there is no such item yet"
    world.relay.job_changed(replace(JOB, items_total=3))
    world.relay.item_changed("job", ItemNews(2, 2, "9", "held", None, 0))
    world.relay.item_changed("job", ItemNews(1, 1, "9", "waiting", None, 0))
    world.relay.item_changed("job", done(0))
    world.timers.advance(LONG_S)
    assert world.items() == [[0]]
    assert (world.jobs()[-1]["items_total"], world.jobs()[-1]["items_done"]) == (3, 1)


async def test_an_item_that_is_held_again_after_a_failure_is_told(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    world.relay.item_changed("job", ItemNews(2, 2, "9", "held", None, 0, failed_on=("w1",)))
    world.timers.advance(LONG_S)
    assert world.items() == [[2]]


async def test_a_tile_says_where_it_is_and_other_items_say_nothing_of_it(world: RelayWorld) -> None:
    world.relay.job_changed(JOB)
    where = {"pass": "redraw", "tiles": [{"column": 0, "row": 1, "box": [0, 512, 512, 1024]}]}
    world.relay.item_changed("job", replace(running(0), tile=where))
    world.relay.item_changed("job", running(1))
    world.timers.advance(LONG_S)
    tile, other = chain.from_iterable(data["items"] for data in world.screen.of("flotilla.item"))
    assert tile["tile"] == where
    assert "tile" not in other
