"""What waits on the master for items: the part that is the same whatever becomes of the results."""

from __future__ import annotations

import pytest
from fakes.tile_stage import upscale_plan, upscale_prompt
from flotilla.graph.tiles import with_tiles
from flotilla.runtime.bridge import SHOWN_MISSING, SHOWN_REASON_CHARS, NodeBridge, NodeCalls
from flotilla.utils.errors import JobFailed


def bridge(count: int) -> NodeBridge:
    """A node with so many items."""
    plan = with_tiles(upscale_plan(upscale_prompt()), 0, [{"number": number} for number in range(count)])
    calls = NodeCalls(delivered=lambda *_: None, abandoned=lambda: None, asks=lambda: None)
    return NodeBridge(plan, plan.stages[0], calls)


def test_progress_counts_parts_of_items_and_never_falls() -> None:
    node = bridge(4)
    node.show(0, 0.5, done=False)
    node.show(1, 0.25, done=False)
    assert node.progress() == 0.75
    node.show(0, 0.0, done=False)  # lost, and begun again
    assert node.progress() == 0.75
    node.show(1, 0.25, done=True)
    assert node.progress() == 1.0
    node.show(0, 0.5, done=False)
    assert node.progress() == 1.5


def test_the_end_without_an_error_is_all_of_it_and_with_one_what_there_was() -> None:
    done, failed, partial = bridge(3), bridge(3), bridge(3)
    for node in (done, failed, partial):
        node.show(0, 1.0, done=True)
    done.finish(None)
    failed.finish(JobFailed("no more"))
    partial.finish(None, {2: "lost"})
    assert [node.progress() for node in (done, failed, partial)] == [3.0, 1.0, 1.0]


def test_items_that_come_later_count() -> None:
    node = bridge(2)
    node.show(0, 1.0, done=True)
    node.show(1, 1.0, done=True)
    node.grow(with_tiles(node.job, 0, [{}, {}, {}]))
    assert (node.count, node.progress()) == (5, 2.0)
    node.show(4, 0.5, done=False)
    assert node.progress() == 2.5


def test_whoever_gave_up_waiting_is_passed_over() -> None:
    node = bridge(2)
    gone, waits = node.next_change(), node.next_change()
    assert gone.cancel()
    node.show(0, 0.5, done=False)
    assert waits.done()


def test_an_end_that_is_told_twice_is_the_first_one() -> None:
    node = bridge(2)
    node.finish(None, {1: "lost"})
    node.finish(JobFailed("late"), {0: "late"})
    assert node.missing_note() == "1 of 2 items is missing: item 1 (lost)"


@pytest.mark.parametrize("count", [SHOWN_MISSING, SHOWN_MISSING + 1])
def test_long_reasons_and_long_lists_are_cut(count: int) -> None:
    node = bridge(count)
    node.finish(None, dict.fromkeys(range(count), "no\n  memory" + "." * 1_000))
    note = node.missing_note()
    assert note.count("no memory") == SHOWN_MISSING
    assert note.endswith("; and 1 more") is (count > SHOWN_MISSING)
    assert len(note) < SHOWN_MISSING * (SHOWN_REASON_CHARS + 20) + 60
