"""What waits to be written: one record for each thing, the newest, and no more than there is room for."""

from __future__ import annotations

import pytest
from fakes.records import attempt, item, job
from flotilla.storage import pending as module
from flotilla.storage.pending import Inbox, Pending
from flotilla.storage.records import JobPatch, Record

EVERYTHING = 10_000


def holding(*records: Record) -> Pending:
    pending = Pending()
    pending.add(records)
    return pending


def test_the_newest_of_each_is_kept() -> None:
    pending = holding(
        job("j", state="planned"), item("j", 0), item("j", 1), attempt("j", 0, 1), item("j", 0, state="done"),
        attempt("j", 0, 1, state="done"), attempt("j", 0, 2), job("j", state="running"),
    )  # fmt: skip
    assert pending.records() == (
        job("j", state="running"), item("j", 0, state="done"), item("j", 1), attempt("j", 0, 1, state="done"),
        attempt("j", 0, 2),
    )  # fmt: skip


def test_a_patch_changes_the_job_that_waits() -> None:
    pending = holding(job("j"), JobPatch("j", {"state": "done"}), JobPatch("j", {"items_done": 3}))
    assert pending.records() == (job("j", state="done", items_done=3),)


def test_patches_of_a_job_that_is_written_already_add_up() -> None:
    pending = holding(JobPatch("j", {"state": "done", "items_done": 1}), JobPatch("j", {"items_done": 3}))
    assert pending.records() == (JobPatch("j", {"state": "done", "items_done": 3}),)


def test_a_whole_job_replaces_patches() -> None:
    assert holding(JobPatch("j", {"state": "done"}), job("j")).records() == (job("j"),)


def test_a_mapping_given_in_a_patch_is_never_changed() -> None:
    fields = {"state": "done"}
    holding(JobPatch("j", fields), JobPatch("j", {"state": "failed"}))
    assert fields == {"state": "done"}


def test_jobs_are_taken_before_what_hangs_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOBS_AT_ONCE", 2)
    pending = holding(*(item("c", index) for index in range(5)), attempt("c", 0, 1), *(job(name) for name in "abc"))
    assert tuple(pending.take(3).records()) == (job("a"), job("b"))
    assert tuple(pending.take(3).records()) == (job("c"), item("c", 0), item("c", 1))
    pending.add([job("d")])
    assert tuple(pending.take(3).records()) == (job("d"), item("c", 2), item("c", 3))
    assert tuple(pending.take(3).records()) == (item("c", 4), attempt("c", 0, 1))
    assert len(pending) == 0
    assert len(pending.take(3)) == 0


def test_what_is_put_back_gives_way_to_what_came_meanwhile() -> None:
    pending = holding(job("j"), JobPatch("k", {"state": "done", "lives": 2}), item("j", 0), item("j", 1))
    batch = pending.take(EVERYTHING)
    pending.add([item("j", 0, state="done"), JobPatch("j", {"state": "failed"}), JobPatch("k", {"state": "failed"})])
    pending.put_back(batch)
    assert pending.records() == (
        job("j", state="failed"), JobPatch("k", {"state": "failed", "lives": 2}), item("j", 0, state="done"), item("j", 1),
    )  # fmt: skip


def test_forgetting_a_job_leaves_the_others() -> None:
    pending = holding(
        job("j"), job("k"), item("j", 0), item("k", 0), attempt("j", 0, 1), attempt("k", 0, 1), JobPatch("l", {})
    )
    pending.forget("j")
    pending.forget("l")
    pending.forget("nobody")
    assert pending.records() == (job("k"), item("k", 0), attempt("k", 0, 1))


def test_the_oldest_give_way_when_there_is_no_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 3)
    monkeypatch.setattr(module, "MAX_JOBS", 2)
    pending = holding(
        *(job(name) for name in "abc"),
        *(item("a", index) for index in range(5)),
        *(attempt("a", 0, n) for n in range(4)),
    )
    assert pending.records() == (
        job("b"), job("c"), *(item("a", index) for index in (2, 3, 4)), *(attempt("a", 0, number) for number in (1, 2, 3)),
    )  # fmt: skip
    assert pending.dropped == 4


def test_jobs_with_ids_that_no_table_holds_are_dropped() -> None:
    pending = holding(job("x" * 200), job("x" * 201), JobPatch("x" * 201, {"state": "done"}))
    assert [record.id for record in pending.take(9).jobs.values()] == ["x" * 200]
    assert pending.dropped == 2


def test_an_inbox_hands_over_everything_in_order() -> None:
    inbox, pending = Inbox(), Pending()
    inbox.leave((job("j"), item("j", 0)))
    inbox.leave((item("j", 0, state="done"),))
    assert inbox.rows == 3
    inbox.empty_into(pending)
    assert pending.records() == (job("j"), item("j", 0, state="done"))


def test_an_inbox_that_nobody_empties_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INBOX_ROWS", 10)
    monkeypatch.setattr(module, "MAX_ROWS", 20)
    inbox, most = Inbox(), 0
    for number in range(1_000):
        inbox.leave((job("j", lives=number), item("j", number % 50, k=number)))
        most = max(most, inbox.rows)
    assert most <= 2 * 22 + 2
    pending = Pending()
    inbox.empty_into(pending)
    assert pending.records()[0] == job("j", lives=999)
    assert pending.records()[-1] == item("j", 49, k=999)
    assert pending.dropped > 0
