"""A stage as its node and the coordinator see it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from flotilla.graph.plan import Participant, PlanOptions, plan_job
from flotilla.runtime.bridge import SHOWN_MISSING, NodeCalls
from flotilla.runtime.stage import StageRun
from flotilla.transport.values import IMAGE, JSON, Value
from flotilla.utils.errors import InvalidInput, JobFailed

SEED = {"class_type": "DistributedSeed", "inputs": {"seed": 5}}
IMAGES = {"class_type": "KitImage", "inputs": {"seed": ["1", 0]}}


class Desk:
    """A stage and what it tells the coordinator."""

    def __init__(
        self,
        *,
        collector: str = "DistributedCollector",
        master: bool = True,
        precision: Mapping[str, str] | None = None,
        salt: str = "",
        more: Mapping[str, Any] | None = None,
        asks: Callable[[], None] | None = None,
        **inputs: Any,
    ) -> None:
        name = "images" if collector == "DistributedCollector" else "value"
        prompt = {"1": SEED, "2": IMAGES, "3": {"class_type": collector, "inputs": {name: ["2", 0], **inputs}}}
        people = [Participant("master", "Master", True), Participant("w1", "One", False)]
        plan = plan_job({**prompt, **(more or {})}, people, PlanOptions(master), choose=lambda ids: ids[0])
        assert plan is not None
        self.delivered: list[tuple[int, int, Mapping[str, Value]]] = []
        self.abandoned = 0
        self.asked = 0
        self.stage = StageRun(
            plan,
            plan.stages[0],
            NodeCalls(
                delivered=lambda index, attempt, values: self.delivered.append((index, attempt, values)),
                abandoned=self._abandon,
                asks=asks or self._ask,
            ),
            precision_of=lambda who: (precision or {}).get(who, "exact"),
            salt=salt,
        )

    def _abandon(self) -> None:
        self.abandoned += 1

    def _ask(self) -> None:
        self.asked += 1


def picture(number: int) -> dict[str, Value]:
    return {"images": Value(IMAGE, torch.full((1, 2, 2, 3), float(number)))}


def test_a_question_is_asked_once_until_it_is_answered() -> None:
    desk = Desk(items=5)
    desk.stage.ask()
    desk.stage.ask()
    assert desk.asked == 1
    desk.stage.request(1, 1)
    desk.stage.ask()
    assert desk.asked == 1, "there is something to compute already"
    assert desk.stage.take_request() == (1, 1)
    desk.stage.ask()
    assert desk.asked == 2


def test_what_was_withdrawn_can_be_asked_for_again() -> None:
    desk = Desk(items=5)
    desk.stage.ask()
    change = desk.stage.next_change()
    desk.stage.request(1, 2)
    assert change.done()
    change = desk.stage.next_change()
    desk.stage.withdraw(1, 1)
    assert desk.stage.wanted, "that was another attempt"
    desk.stage.withdraw(1, 2)
    assert change.done()
    assert desk.stage.take_request() is None
    assert not desk.stage.finished
    waiting = desk.stage.next_change()
    assert not waiting.done()
    desk.stage.ask()
    assert desk.asked == 2
    desk.stage.request(2, 1)
    assert waiting.done()


def test_a_withdrawal_wakes_who_waits() -> None:
    """Else the node would wait for an answer that has been and gone."""
    desk = Desk(items=5)
    desk.stage.request(1, 1)
    assert desk.stage.take_request() == (1, 1)
    waiting = desk.stage.next_change()
    desk.stage.request(2, 1)
    assert waiting.done()
    desk.stage.withdraw(2, 1)
    assert not desk.stage.wanted


def test_a_request_is_taken_once() -> None:
    stage = Desk(items=5).stage
    stage.request(1, 2)
    assert stage.next_change().done()
    assert stage.take_request() == (1, 2)
    assert stage.take_request() is None


def test_nothing_is_asked_after_the_end() -> None:
    desk = Desk(items=5)
    desk.stage.finish(JobFailed("over"))
    desk.stage.ask()
    assert desk.asked == 0


def test_there_are_no_results_before_the_end() -> None:
    """Fewer results than there are items must never pass for all of them."""
    for desk in (Desk(), Desk(collector="DistributedCollectorAny")):
        with pytest.raises(RuntimeError):
            desk.stage.results()
        with pytest.raises(RuntimeError):
            desk.stage.entries()


def test_the_masters_items_are_gathered_and_told_with_their_values() -> None:
    desk = Desk(items=3)
    assert desk.stage.own_place() == 0
    own, other = picture(0), picture(2)
    desk.stage.deliver_own(own)
    desk.stage.deliver_requested(2, 4, other)
    assert desk.delivered == [(0, 1, own), (2, 4, other)]
    desk.stage.assembly.put_local(1, picture(1))
    for place in range(3):
        desk.stage.show(place, 1.0, done=True)
    assert desk.stage.finished
    assert desk.stage.results()["images"][:, 0, 0, 0].tolist() == [0, 1, 2]


def test_a_late_result_changes_nothing_and_is_told_all_the_same() -> None:
    desk = Desk(items=2)
    desk.stage.assembly.put_local(1, picture(1))
    desk.stage.deliver_requested(1, 2, picture(7))
    assert [entry[:2] for entry in desk.delivered] == [(1, 2)]
    desk.stage.finish(None, {0: "lost"})
    assert desk.stage.results()["images"][0, 0, 0, 0].item() == 1


def test_a_second_own_result_is_a_list() -> None:
    desk = Desk()
    desk.stage.deliver_own(picture(0))
    with pytest.raises(InvalidInput, match="list"):
        desk.stage.deliver_own(picture(0))


def test_a_master_that_coordinates_has_no_own_item() -> None:
    desk = Desk(master=False)
    assert desk.stage.own_place() is None
    with pytest.raises(RuntimeError):
        desk.stage.deliver_own(picture(0))


def test_progress_adds_up_and_never_falls() -> None:
    stage = Desk(items=4).stage
    stage.show(0, 0.5, done=False)
    stage.show(1, 0.25, done=False)
    stage.show(0, 1.0, done=True)
    assert stage.progress() == pytest.approx(1.25)
    stage.show(1, 0.0, done=False)
    assert stage.progress() == pytest.approx(1.25), "a bar that falls tells people nothing"
    stage.show(2, 0.5, done=True)
    assert stage.progress() == pytest.approx(2.0), "done is all of it, whatever was told last"
    assert stage.count == 4
    stage.finish(None)
    assert stage.progress() == 4


def test_every_change_wakes_who_waits() -> None:
    stage = Desk(items=4).stage
    for change in (lambda: stage.show(0, 0.5, done=False), lambda: stage.finish(None, {})):
        waiting = stage.next_change()
        assert not waiting.done()
        change()
        assert waiting.done()
    assert stage.next_change().done()


def test_what_ended_the_job_is_raised() -> None:
    stage = Desk(items=4).stage
    stage.assembly.put_local(0, picture(0))
    stage.finish(JobFailed("no more"), {1: "lost"})
    stage.finish(None)
    with pytest.raises(JobFailed, match="no more"):
        stage.results()
    with pytest.raises(JobFailed):
        stage.entries()


def test_what_there_is_comes_when_items_are_missing_and_a_note_says_which() -> None:
    stage = Desk(items=4, on_failure="partial").stage
    assert stage.missing_note() == ""
    stage.assembly.put_local(0, picture(0))
    stage.assembly.put_local(3, picture(3))
    stage.finish(None, {2: "Two: CUDA\nout of memory", 1: "lost"})
    assert stage.missing_note() == "2 of 4 items are missing: item 1 (lost); item 2 (Two: CUDA out of memory)"
    assert stage.results()["images"][:, 0, 0, 0].tolist() == [0, 3]


def test_the_note_is_bounded() -> None:
    stage = Desk(items=1_000).stage
    stage.finish(None, dict.fromkeys(range(999), "x" * 10_000))
    note = stage.missing_note()
    assert note.startswith("999 of 1000 items are missing: item 0 (xxx")
    assert note.endswith(f"; and {999 - SHOWN_MISSING} more")
    assert len(note) < 3_000
    one = Desk(items=2).stage
    one.finish(None, {1: "lost"})
    assert one.missing_note() == "1 of 2 items is missing: item 1 (lost)"


def test_entries_come_in_item_order_whatever_their_kind_and_size() -> None:
    stage = Desk(collector="DistributedCollectorAny", items=3).stage
    stage.assembly.put_local(2, {"value.0": Value(JSON, {"k": 2}), "value.1": Value(JSON, None)})
    stage.assembly.put_local(0, {"value.0": Value(IMAGE, torch.zeros(1, 2, 2, 3))})
    stage.assembly.put_local(1, {"value.0": Value(IMAGE, torch.ones(2, 5, 4, 3))})
    stage.finish(None)
    first, second, *rest = stage.entries()
    assert (list(first.shape), list(second.shape), rest) == ([1, 2, 2, 3], [2, 5, 4, 3], [{"k": 2}, None])


def test_fingerprints_tell_how_exactly_results_arrive_and_the_salt() -> None:
    base = Desk().stage.fingerprint
    assert Desk().stage.fingerprint == base
    assert Desk(precision={"w1": "half"}).stage.fingerprint != base
    assert Desk(salt="job 1").stage.fingerprint not in (base, Desk(salt="job 2").stage.fingerprint)


def test_fingerprints_of_many_items_stay_short() -> None:
    stage = Desk(items=5_000, precision={"w1": "half"}).stage
    assert len(stage.fingerprint) < 200
    assert stage.fingerprint != Desk(items=5_000).stage.fingerprint


def test_added_nodes_have_ids_of_their_own() -> None:
    assert Desk().stage.expansion_prefix == "3."
    taken = {"3.0.1": IMAGES, "3..": IMAGES}
    assert Desk(more=taken).stage.expansion_prefix == "3..."


def test_node_and_coordinator_may_meet_in_two_threads() -> None:
    """Every request is answered once, and nobody waits for ever."""
    count = 300
    asked = threading.Semaphore(0)
    stage = Desk(items=count, asks=asked.release).stage
    stage.deliver_own(picture(0))
    taken: list[int] = []

    def coordinate() -> None:
        stage.show(0, 1.0, done=True)
        for place in range(1, count):
            assert asked.acquire(timeout=10)
            stage.request(place, 1)
            while len(taken) < place and not stage.finished:
                waiting = stage.next_change()
                if stage.wanted:
                    break
                waiting.result(timeout=10)

    coordinator = threading.Thread(target=coordinate)
    coordinator.start()
    while not stage.finished:
        request = stage.take_request()
        if request is not None:
            taken.append(request[0])
            stage.deliver_requested(*request, picture(request[0]))
            stage.show(request[0], 1.0, done=True)
            continue
        stage.ask()
        stage.next_change().result(timeout=10)
    coordinator.join(10)
    assert taken == list(range(1, count))
    assert stage.results()["images"].shape[0] == count
