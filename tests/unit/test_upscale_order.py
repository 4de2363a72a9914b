"""Order and board: the depths that the fact sheet states, speed in counts, and each thing a board is asked."""

from __future__ import annotations

import pytest
from flotilla.upscale import order as order_module
from flotilla.upscale.geometry import Box, Size
from flotilla.upscale.order import Board, Order, order_of
from flotilla.upscale.tasks import NOWHERE, Layout, SeamFix, plan_tasks


def order_for(mode: str, seam_fix: str = "None", tile_batch: int = 1) -> Order:
    layout = Layout(Size(4096, 4096), Size(512, 512), 32, 8, True, mode, SeamFix(seam_fix), tile_batch)
    return order_of(plan_tasks(layout))


def board_of(*blend_after: set[int], needs: dict[int, set[int]] | None = None) -> Board:
    """A board of tasks that need what they are blended after, or what ``needs`` says."""
    before = tuple(frozenset(numbers) for numbers in blend_after)
    needed = tuple(frozenset((needs or {}).get(number, one)) for number, one in enumerate(before))
    return Board(Order(needed, before, 0))


@pytest.mark.parametrize(
    ("mode", "depth"), [("linear", 22), ("chess", 10), ("mosaic", 4), ("independent", 1), ("none", 0)]
)
def test_depth_of_eight_by_eight_tiles(mode: str, depth: int) -> None:
    assert order_for(mode).critical_path == depth


def test_depth_of_seam_fixes() -> None:
    assert order_for("none", "Band Pass").critical_path == 2
    assert order_for("independent", "Band Pass").critical_path == 3
    assert order_for("mosaic", "Half Tile + Intersections").critical_path < 30


def test_linear_waits_for_its_neighbours_alone() -> None:
    order = order_for("linear")
    assert order.needs[0] == set()
    assert order.needs[1] == {0}
    assert order.needs[9] == {0, 1, 2, 8}
    assert order.blend_after[9] == {0, 1, 2, 8}


@pytest.mark.parametrize("mode", ["linear", "chess", "mosaic", "independent"])
def test_tiles_without_padding_and_blur_only_border_on_each_other(mode: str) -> None:
    order = order_of(plan_tasks(Layout(Size(384, 384), Size(128, 128), 0, 0, True, mode)))
    assert order.critical_path == 1
    assert not any(order.blend_after)


def test_independent_reads_nobody_but_is_blended_in_order() -> None:
    order = order_for("independent")
    assert not any(order.needs)
    assert order.blend_after[9] == {0, 1, 2, 8}


def test_a_task_never_waits_for_itself_or_a_later_one() -> None:
    for mode in ("linear", "chess", "mosaic"):
        order = order_for(mode, "Half Tile", tile_batch=3)
        for number, (needs, before) in enumerate(zip(order.needs, order.blend_after, strict=True)):
            assert needs <= before <= set(range(number))


def test_no_tasks_are_an_order_too() -> None:
    order = order_of(())
    assert order == Order((), (), 0)
    board = Board(order)
    assert board.start() == []
    assert board.is_over


def test_a_result_may_be_blended_when_what_comes_before_it_is_given_out() -> None:
    board = board_of(set(), {0}, {0, 1}, needs={1: set(), 2: set()})
    assert board.start() == [0, 1, 2]
    assert board.arrived(2) == []
    assert board.arrived(1) == []
    assert board.arrived(0) == [0, 1, 2]


def test_a_task_is_ready_when_its_needs_are_blended_not_when_they_arrive() -> None:
    board = board_of(set(), set(), {0, 1})
    assert board.start() == [0, 1]
    assert board.arrived(1) == [1]
    assert board.blended(1) == []
    assert board.arrived(0) == [0]
    assert board.blended(0) == [2]
    assert not board.is_over
    assert board.arrived(2) == [2]
    assert board.blended(2) == []
    assert board.is_over


def test_a_second_result_changes_nothing() -> None:
    board = board_of(set(), {0}, needs={1: set()})
    assert board.arrived(1) == board.arrived(1) == []
    assert board.arrived(0) == [0, 1]
    assert board.arrived(0) == board.arrived(1) == []
    board.blended(0)
    assert board.arrived(0) == []


def test_what_arrived_before_it_was_ready_is_not_named_ready() -> None:
    board = board_of(set(), {0}, {1})
    assert board.arrived(1) == []  # a result of an earlier life
    assert board.arrived(0) == [0, 1]
    assert board.blended(0) == []
    assert board.blended(1) == [2]


def test_a_skipped_task_stands_in_nobodys_way() -> None:
    board = board_of(set(), {0}, {0, 1}, {1}, needs={2: set()})
    assert board.arrived(0) == [0]
    assert board.arrived(2) == []
    assert board.blended(0) == [1]
    assert board.skipped(1) == ([2], [3])
    assert board.has_arrived(1)
    assert board.skipped(1) == ([], [])
    assert board.arrived(1) == [], "too late"
    assert board.blended(2) == []
    assert board.skipped(3) == ([], [])
    assert board.is_over


def test_a_task_that_is_not_ready_yet_can_be_skipped_and_what_came_cannot() -> None:
    board = board_of(set(), {0}, {1})
    assert board.skipped(1) == ([], [2])
    assert not board.has_arrived(0)
    assert board.arrived(0) == [0]
    assert board.has_arrived(0)
    assert board.skipped(0) == ([], [])
    assert board.blended(0) == []
    assert board.arrived(2) == [2]
    board.blended(2)
    assert board.is_over


def test_only_what_was_given_out_can_have_been_blended() -> None:
    board = board_of(set(), {0})
    with pytest.raises(ValueError, match="task 0 is waits"):
        board.blended(0)
    board.arrived(0)
    board.blended(0)
    with pytest.raises(ValueError, match="task 0 is blended"):
        board.blended(0)


def test_closer_looks_grow_with_the_tiles_and_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    meet = order_module._meet

    def counting(one: Box, other: Box) -> bool:
        nonlocal looks
        looks += 1
        return meet(one, other)

    monkeypatch.setattr(order_module, "_meet", counting)
    for side in (4096, 16384):
        tasks = plan_tasks(Layout(Size(side, side), Size(512, 512), 32, 8, True, "mosaic"))
        looks = 0
        order_of(tasks)
        assert 0 < looks < 32 * len(tasks)


def test_the_quick_look_agrees_with_the_boxes() -> None:
    box = Box(2, 3, 10, 7)
    borders = [Box(10, 3, 12, 7), Box(0, 3, 2, 7), Box(2, 7, 10, 9), Box(2, 0, 10, 3), NOWHERE]
    for other in [*borders, Box(9, 6, 12, 9), Box(0, 0, 3, 4), box]:
        assert order_module._meet(box, other) == order_module._meet(other, box) == box.meets(other)
