"""The order of tasks against a quadratic brute force, and boards under any order of arrivals."""

from __future__ import annotations

import random
import zlib
from typing import Any

import numpy as np
from flotilla.upscale.geometry import Box, Size
from flotilla.upscale.order import Board, Order, order_of
from flotilla.upscale.tasks import MODES, SEAM_FIX_MODES, Layout, SeamFix, Task, plan_tasks
from hypothesis import given
from hypothesis import strategies as st

PIXELS = np.random.default_rng(4).integers(0, 1 << 31, (400, 400), dtype=np.int64)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Up to some 36 tiles with any padding and blur."""
    tile = Size(draw(st.integers(2, 10)) * 8, draw(st.integers(2, 10)) * 8)
    canvas = Size(*(draw(st.integers(1, min(side * 6 // 8, 48))) * 8 for side in tile))
    seam_fix = SeamFix(
        draw(st.sampled_from(SEAM_FIX_MODES)),
        width=draw(st.integers(2, 64)),
        mask_blur=draw(st.sampled_from([0, 3, 16, 256])),
        padding=draw(st.sampled_from([0, 8, 31, 256])),
    )
    return Layout(
        canvas,
        tile,
        padding=draw(st.sampled_from([0, 5, 16, 64, 256])),
        mask_blur=draw(st.sampled_from([0, 1, 4, 16, 256])),
        uniform=draw(st.booleans()),
        mode=draw(st.sampled_from(MODES)),
        seam_fix=seam_fix,
        tile_batch=draw(st.integers(1, 4)),
    )


def overlap(some: list[Box], others: list[Box]) -> bool:
    return any(max(a.x1, b.x1) < min(a.x2, b.x2) and max(a.y1, b.y1) < min(a.y2, b.y2) for a in some for b in others)


def crops(task: Task) -> list[Box]:
    return [tile.window.crop for tile in task.tiles]


def touches(task: Task) -> list[Box]:
    return [tile.touch for tile in task.tiles]


@given(layouts())
def test_the_order_is_that_of_the_brute_force(layout: Layout) -> None:
    tasks = plan_tasks(layout)
    order = order_of(tasks)
    for later in tasks:
        earlier = tasks[: later.number]
        needs = {one.number for one in earlier if not later.from_source and overlap(touches(one), crops(later))}
        assert order.needs[later.number] == needs
        # What the earlier one reads, from the canvas, must not be changed before it is done with; what both change is
        # changed by the later one last.
        in_the_way = {
            one.number
            for one in earlier
            if overlap(touches(one), touches(later)) or (not one.from_source and overlap(crops(one), touches(later)))
        }
        assert order.blend_after[later.number] == needs | in_the_way
    assert order.critical_path == longest_chain(order)


def longest_chain(order: Order) -> int:
    depths: dict[int, int] = {}
    for number, needs in enumerate(order.needs):
        depths[number] = 1 + max((depths[one] for one in needs), default=0)
    return max(depths.values(), default=0)


class Painter:
    """A canvas of whole numbers. A task's result depends on every pixel of its crops, and its blend on what was there."""

    def __init__(self, layout: Layout) -> None:
        self._source = PIXELS[: layout.canvas.height, : layout.canvas.width]
        self.canvas = self._source.copy()

    def result(self, task: Task) -> list[int]:
        picture = self._source if task.from_source else self.canvas
        return [zlib.crc32(picture[box.y1 : box.y2, box.x1 : box.x2].tobytes()) for box in crops(task)]

    def blend(self, task: Task, result: list[int]) -> None:
        for tile, value in zip(task.tiles, result, strict=True):
            box = tile.touch
            region = self.canvas[box.y1 : box.y2, box.x1 : box.x2]
            region[...] = (region * 31 + value) % (1 << 31)


class Run:
    """One run over a board with chance in every step; what a board may never do is asserted on the way."""

    def __init__(self, layout: Layout, chance: random.Random, skip_share: float = 0.0) -> None:
        self.tasks = plan_tasks(layout)
        self.order = order_of(self.tasks)
        self.painter = Painter(layout)
        self.board = Board(self.order)
        self._chance = chance
        self._skip_share = skip_share
        self.ready: list[int] = []
        self.named_ready: set[int] = set()
        self.under_way: dict[int, list[int]] = {}
        self.to_blend: list[int] = []
        self.results: dict[int, list[int]] = {}
        self.settled: set[int] = set()
        self.skipped: set[int] = set()

    def run(self) -> None:
        self._name_ready(self.board.start())
        while not self.board.is_over:
            steps: list[Any] = [self._start] * bool(self.ready)
            steps += [self._finish] * bool(self.under_way) + [self._blend] * bool(self.to_blend)
            assert steps, "nobody can go on"
            self._chance.choice(steps)()
            self._look_again()
        assert self.settled == set(range(len(self.tasks)))
        assert not self.ready and not self.to_blend

    def _start(self) -> None:
        number = self.ready.pop(self._chance.randrange(len(self.ready)))
        if self._chance.random() < self._skip_share:
            self.skipped.add(number)
            self.settled.add(number)
            to_blend, ready = self.board.skipped(number)
            self.to_blend += to_blend
            self._name_ready(ready)
        else:
            self.under_way[number] = self.painter.result(self.tasks[number])

    def _finish(self) -> None:
        number = self._chance.choice(sorted(self.under_way))
        self.results[number] = self.under_way.pop(number)
        self.to_blend += self.board.arrived(number)
        assert self.board.has_arrived(number)
        assert self.board.arrived(number) == []

    def _blend(self) -> None:
        number = self.to_blend.pop(0)
        assert number not in self.settled, "blended twice"
        assert self.order.blend_after[number] <= self.settled
        self.painter.blend(self.tasks[number], self.results[number])
        self.settled.add(number)
        self._name_ready(self.board.blended(number))

    def _name_ready(self, numbers: list[int]) -> None:
        for number in numbers:
            assert number not in self.named_ready, "named ready twice"
            assert self.order.needs[number] <= self.settled
        self.named_ready.update(numbers)
        self.ready += numbers

    def _look_again(self) -> None:
        """A task under way is cut once more, for a copy or a retry: the same bits."""
        if self.under_way:
            number = self._chance.choice(sorted(self.under_way))
            assert self.painter.result(self.tasks[number]) == self.under_way[number]


@given(layouts(), st.integers(0, 1 << 30))
def test_any_order_of_arrivals_paints_what_the_serial_order_paints(layout: Layout, seed: int) -> None:
    serial = Painter(layout)
    for task in plan_tasks(layout):
        serial.blend(task, serial.result(task))
    run = Run(layout, random.Random(seed))
    run.run()
    assert run.named_ready == run.settled
    assert np.array_equal(run.painter.canvas, serial.canvas)


@given(layouts(), st.integers(0, 1 << 30))
def test_skipped_tasks_leave_the_others_in_their_order(layout: Layout, seed: int) -> None:
    run = Run(layout, random.Random(seed), skip_share=0.3)
    run.run()
    serial = Painter(layout)
    for task in plan_tasks(layout):
        if task.number not in run.skipped:
            serial.blend(task, serial.result(task))
    assert np.array_equal(run.painter.canvas, serial.canvas)
