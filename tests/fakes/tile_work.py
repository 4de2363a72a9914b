"""A picture that is easy to follow: every place is one number, made of the numbers that it needs.

``test_runtime_tile_desk`` runs the real redraw through the same parts.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from flotilla.graph.classes import TILE
from flotilla.transport.values import IMAGE, Value
from flotilla.upscale.work import PIXELS, Models, Values, result_of
from flotilla.utils.errors import InvalidInput
from PIL import Image

EDGE = 2


class FakeWork:
    """A `work.TileWork` of ``len(needs)`` places. A place's pixels are 1 plus the sum of what it needs; its result is twice
    that. ``threads`` are those that touched the picture."""

    root_class = TILE
    roots = ("model", "positive", "vae")

    def __init__(self, needs: Sequence[set[int]]) -> None:
        self.needs = [set(one) for one in needs]
        self.count = len(needs)
        self.numbers: dict[int, float] = {}
        self.skipped: set[int] = set()
        self.threads: set[int] = set()
        self.cuts: list[int] = []
        self.pictures = 0
        self.breaks: Exception | None = None

    def start(self) -> list[int]:
        self._touch()
        return [place for place in range(self.count) if not self.needs[place]]

    def describe(self, place: int) -> dict[str, Any]:
        return {"pass": "redraw", "tiles": [{"column": place, "row": 0, "box": [place * EDGE, 0, 0, 0]}]}

    def root_inputs(self, place: int) -> dict[str, Any]:
        return {"place": {"number": place}, "sampling": "quick"}

    def size_bytes(self, place: int) -> int:
        return 4 * 3 * EDGE * EDGE

    def cut(self, place: int) -> Values:
        self._touch()
        self.cuts.append(place)
        if not self.needs[place] <= self.numbers.keys() | self.skipped:
            raise RuntimeError(f"place {place} is cut before it is ready")
        # As on a canvas: once its own result is there, it is cut with that.
        return pixels(1 + sum(self.numbers.get(one, 0) for one in (*self.needs[place], place)))

    def compute(self, place: int, models: Models, values: Values) -> torch.Tensor:
        made = values[PIXELS].data * 2
        assert isinstance(made, torch.Tensor)
        return made

    def arrived(self, place: int, values: Values) -> list[int]:
        self._touch()
        if self.breaks is not None:
            raise self.breaks
        if place in self.numbers or place in self.skipped:
            return []
        if values[PIXELS].data.shape != (1, EDGE, EDGE, 3):
            raise InvalidInput("The redrawn pixels of a tile do not fit.")
        self.numbers[place] = float(values[PIXELS].data.mean())
        return self._opened(place)

    def skip(self, place: int) -> list[int]:
        self._touch()
        if place in self.numbers or place in self.skipped:
            return []
        self.skipped.add(place)
        return self._opened(place)

    @property
    def is_over(self) -> bool:
        return len(self.numbers) + len(self.skipped) == self.count

    def picture(self, longest_px: int) -> Image.Image | None:
        self._touch()
        self.pictures += 1
        return Image.new("RGB", (longest_px, longest_px // 2))

    def result(self) -> list[float | None]:
        """The numbers in order; None for what was skipped."""
        return [self.numbers.get(place) for place in range(self.count)]

    def _opened(self, closed: int) -> list[int]:
        ended = self.numbers.keys() | self.skipped
        return [place for place in range(self.count) if closed in self.needs[place] and self.needs[place] <= ended]

    def _touch(self) -> None:
        self.threads.add(threading.get_ident())


def pixels(number: float) -> Values:
    """As they are cut."""
    return {PIXELS: Value(IMAGE, torch.full((1, EDGE, EDGE, 3), float(number)))}


def result(number: float, made_of: str = "", hint: str = "") -> Values:
    """As whoever computed them returns them."""
    return result_of(torch.full((1, EDGE, EDGE, 3), float(number)), made_of, hint)


def alone(needs: Sequence[set[int]]) -> list[float]:
    """What the numbers are in the end, whoever computes them."""
    numbers: list[float] = []
    for place in needs:
        numbers.append(2 * (1 + sum(numbers[one] for one in place)))
    return numbers
