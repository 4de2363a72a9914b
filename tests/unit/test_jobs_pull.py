"""Pulled items, asks, and who had better leave an item to others."""

from __future__ import annotations

from fakes.desk import BROKEN, Desk, J, end, failed, finished, lease, leases
from flotilla.jobs import events as ev
from flotilla.jobs.instructions import FinishJob
from flotilla.jobs.model import JobState

# Pulled items


def test_pulled_items_go_to_whoever_is_expected_first_whatever_the_plan_says() -> None:
    desk = Desk("a", "b", slots=2)
    assert desk.pull(5, "a", "b") == [lease("a", 0), lease("b", 1), lease("a", 2), lease("b", 3)]
    assert desk.machine.load("a") == 2, "what waits for anybody weighs on nobody"
    assert desk.finish(1, 1, "b")[1] == lease("b", 4), "the next one is leased before the result is here"


def test_pulled_items_of_a_planned_job_weigh_on_nobody() -> None:
    desk = Desk("a")
    desk.plan("a", "a", spec={"pulled": True})
    assert desk.machine.load("a") == 0


def test_a_pulled_item_for_a_pinned_participant_stays_pinned() -> None:
    desk = Desk("a", "b")
    assert desk.pull(1, "a", "b", pinned=(0,)) == [lease("a", 0)]
    assert end(desk.tell(ev.ParticipantOffline("a", "gone"))).state is JobState.FAILED


def test_one_that_comes_later_takes_part() -> None:
    desk = Desk("a", slots=1)
    desk.pull(3, "a", "late")
    assert desk.tell(ev.ParticipantOnline("late", 1)) == [lease("late", 1)]


def paced(slow_s: float = 4.0, fast_s: float = 1.0, items: int = 6, slots: int = 1) -> Desk:
    """Item 0 was done by ``slow`` in 4 s, items 1 to 4 by ``fast`` in 1 s each; the rest waits or is at work."""
    desk = Desk("slow", "fast", slots=slots)
    desk.pull(items, "slow", "fast")
    desk.begin(0, 1, "slow")
    for number in range(1, int(slow_s / fast_s)):
        desk.work(number, 1, "fast", fast_s)
    return desk


def test_a_slow_one_leaves_the_last_item_to_a_fast_one_that_will_be_done_earlier() -> None:
    desk = paced(items=6)  # fast works on item 4, item 5 waits
    desk.begin(4, 1, "fast")
    desk.at(103.9)
    told = desk.finish(0, 1, "slow")
    assert leases(told) == [], "fast will have done item 5 long before"
    assert leases(desk.finish(4, 1, "fast")) == [lease("fast", 5)]


def test_a_slow_one_takes_an_item_when_many_wait() -> None:
    desk = paced(items=20)
    desk.begin(4, 1, "fast")
    desk.at(103.9)
    assert leases(desk.finish(0, 1, "slow")) == [lease("slow", 5)]


def test_a_slow_one_takes_the_item_after_all_when_the_fast_one_is_stuck() -> None:
    desk = paced(items=6)
    desk.begin(4, 1, "fast")
    desk.at(103.9)
    assert leases(desk.finish(0, 1, "slow")) == []
    told = desk.at(109.0)
    assert lease("slow", 5) in told, "what was left to others is not left for ever"


def test_nobody_leaves_an_item_for_longer_than_it_would_have_taken() -> None:
    desk = paced(items=6)
    desk.begin(4, 1, "fast")
    desk.at(103.9)
    desk.finish(0, 1, "slow")
    given = []
    for number in range(20):
        given += desk.at(desk.now_s + 0.5)
        given += desk.tell(ev.ItemProgressed(J, 4, 1, "fast", 0.9 + number / 1000))  # nearly done, again and again
        if lease("slow", 5) in given:
            break
    assert 107.9 <= desk.now_s <= 109.0


def test_one_whose_pace_is_not_known_takes_what_it_gets() -> None:
    desk = paced(items=6)
    desk.begin(4, 1, "fast")
    assert desk.tell(ev.ParticipantOnline("new", 1)) == []
    other = Desk("fast", slots=1)
    other.pull(3, "fast", "new")
    other.work(0, 1, "fast", 1.0)
    assert other.tell(ev.ParticipantOnline("new", 1)) == [lease("new", 2)]


def test_items_are_not_left_to_one_that_has_failed_them() -> None:
    desk = paced(items=6)
    desk.begin(4, 1, "fast")
    desk.at(103.9)
    desk.finish(0, 1, "slow")
    told = desk.tell(failed(4, 1, "fast"))
    assert lease("slow", 4, 2) in told
    assert lease("fast", 5) in told


# Asks


def master_desk(*online: str, slots: int = 1) -> Desk:
    desk = Desk(*online, slots=slots)
    desk.tell(ev.ParticipantOnline("m", slots=100, takes_unpinned=False))
    return desk


ASK = ev.ItemAsked(J, 0, "m")


def test_one_that_asks_gets_one_item_for_each_ask() -> None:
    desk = master_desk("a")
    assert desk.pull(3, "m", "a", fallback="m") == [lease("a", 0)], "the master did not ask"
    assert desk.tell(ASK) == [lease("m", 1)]
    assert lease("a", 2) in desk.tell(finished(0, 1, "a"))
    assert desk.tell(ASK, ASK) == [], "nothing is left"
    assert desk.tell(ev.ParticipantOffline("a", "gone")) == [lease("m", 0, 2)], "an open ask is not asked twice"
    assert desk.tell(ASK) == [lease("m", 2, 2)]


def test_an_ask_waits_for_an_item() -> None:
    desk = master_desk()
    desk.plan("m", spec={"pulled": True}, participants=("m",))
    assert desk.tell(ASK) == []
    assert desk.tell(ev.JobAccepted(J)) == [lease("m", 0)]


def test_asks_are_for_their_group_only() -> None:
    desk = master_desk()
    desk.start("m", "m", spec={"pulled": True}, groups=(0, 1), participants=("m",), fallback="m")
    assert desk.tell(ev.ItemAsked(J, 1, "m")) == [lease("m", 1)]
    assert desk.tell(ev.ItemAsked(J, 7, "m"), ev.ItemAsked("?", 0, "m"), ev.ItemAsked(J, 0, "?")) == []
    assert desk.tell(ASK) == [lease("m", 0)]


def test_a_mere_fallback_gets_nothing_while_another_is_left() -> None:
    desk = master_desk("a")
    assert desk.pull(3, "a", fallback="m") == [lease("a", 0)]
    assert desk.tell(ASK) == []
    assert desk.at(300.0) == [], "not even as a helper"
    assert desk.tell(ev.ParticipantOffline("a", "gone")) == []
    assert desk.at(desk.now_s + 2.0) == [lease("m", 0, 2)]
    assert desk.tell(ASK) == [lease("m", 1)]


def test_the_master_that_takes_part_waits_for_no_one_to_return() -> None:
    desk = master_desk("a")
    desk.pull(2, "m", "a", fallback="m")
    desk.tell(ASK)
    desk.finish(1, 1, "m")
    desk.tell(ASK)
    assert desk.tell(ev.ParticipantOffline("a", "gone")) == [lease("m", 0, 2)]


def test_without_anybody_who_asks_the_job_of_lost_participants_fails() -> None:
    desk = master_desk("a")
    desk.pull(1, "m", "a")
    desk.tell(ev.ParticipantOffline("a", "gone"))
    told = desk.at(110.0)
    assert isinstance(told[-1], FinishJob)
    assert told[-1].state is JobState.FAILED


def test_asks_of_one_that_goes_or_is_left_out_are_void() -> None:
    desk = master_desk("a")
    desk.pull(2, "m", "a")
    desk.tell(ASK)
    told = desk.tell(ev.LeaseRefused(J, 1, 1, "m", "no model here"))
    assert told == []
    assert desk.tell(ASK) == [], "it was left out"
    other = master_desk()
    other.plan("m", spec={"pulled": True}, participants=("m",), fallback="m")
    other.tell(ASK, ev.ParticipantOffline("m", "gone"), ev.ParticipantOnline("m", 9, takes_unpinned=False))
    assert other.tell(ev.JobAccepted(J)) == []
    assert other.tell(ASK) == [lease("m", 0)]


def test_an_item_that_failed_goes_to_the_asking_master_last_and_never_if_it_may_be_missing() -> None:
    desk = master_desk("a")
    desk.pull(1, "m", "a", fallback="m")
    desk.tell(ASK)
    assert desk.tell(failed(0, 1, "a")) == [lease("a", 0, 2)], "rather one that has failed it than the master"
    assert desk.tell(ev.ParticipantOffline("a", "gone")) == [lease("m", 0, 3)]
    partial = master_desk("a")
    partial.pull(2, "m", "a", fallback="m", partial_groups=frozenset({0}))
    partial.tell(ASK)
    partial.finish(1, 1, "m")
    partial.tell(ASK)
    assert partial.tell(failed(0, 1, "a")) == [lease("a", 0, 2)], "a poisonous item must not end the master's prompt"
    assert partial.tell(failed(0, 2, "a")) == [lease("a", 0, 3)]
    assert end(partial.tell(failed(0, 3, "a"))).state is JobState.PARTIAL


def test_a_poisonous_item_that_nobody_else_is_left_for_fails_alone_with_its_own_error() -> None:
    desk = master_desk("a")
    desk.pull(2, "m", "a", fallback="m", partial_groups=frozenset({0}))
    desk.tell(ASK)
    desk.finish(1, 1, "m")
    desk.tell(ASK, failed(0, 1, "a"), ev.ParticipantOffline("a", "gone"))
    told = end(desk.at(110.0))
    assert told.state is JobState.PARTIAL
    item = desk.machine.item(J, 0)
    assert item is not None
    assert item.error is not None
    assert item.error.message.startswith(BROKEN.message)
    assert "a is offline (gone)" in item.error.message


def test_a_result_that_was_never_sent_for_does_not_count() -> None:
    desk = Desk("a")
    desk.plan("a", spec={"attempts_before": 1})
    desk.tell(finished(0, 1, "a"))
    assert desk.tell(ev.ResultFetched(J, 0, 1, "a")) == [], "it arrived for an earlier life of the job"
