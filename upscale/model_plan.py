"""How a picture is cut into tiles for an upscale model, and with which weights the results are put together again.

Source: `tiled_scale` of ComfyUI, as its *Upscale Image (using Model)* node calls it: tiles of 512 px that overlap by 32 px,
feathered there. Differences: none in positions or weights; pixels are cut frame by frame instead of from a whole batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch

from ..utils.errors import InvalidInput
from .geometry import Box, Size
from .pixels import Pixels, floats, quantise, rgb, unit

TILE_PX = 512
OVERLAP_PX = 32


@dataclass(frozen=True)
class ModelTile:
    """One item of work: ``box`` of the source picture ``frame``. ``number`` counts over all frames, row by row."""

    number: int
    frame: int
    box: Box


@dataclass(frozen=True)
class Segment:
    """Pixels ``start`` to ``end - 1`` along one side that the same tiles cover; ``tiles`` are columns or rows of them."""

    start: int
    end: int
    tiles: tuple[int, ...]


@dataclass(frozen=True)
class ModelPlan:
    """The tiles of ``batch`` pictures of the size ``source``. Raises InvalidInput if nothing could be cut that way."""

    source: Size
    batch: int
    tile: int = TILE_PX
    overlap: int = OVERLAP_PX

    def __post_init__(self) -> None:
        if min(self.source) < 1 or self.batch < 1:
            raise InvalidInput(
                f"{self.batch} pictures of {self.source.width} x {self.source.height} px cannot be upscaled.",
                cure="Give at least one picture of at least one pixel.",
            )
        if not 0 <= self.overlap < self.tile:
            raise InvalidInput(f"Tiles of {self.tile} px cannot overlap by {self.overlap} px.")

    @cached_property
    def columns(self) -> tuple[tuple[int, int], ...]:
        """Start and end of each column of tiles, in source pixels."""
        return _spans(self.source.width, self.tile, self.overlap)

    @cached_property
    def rows(self) -> tuple[tuple[int, int], ...]:
        """Start and end of each row of tiles, in source pixels."""
        return _spans(self.source.height, self.tile, self.overlap)

    @cached_property
    def tiles(self) -> tuple[ModelTile, ...]:
        """All tiles in the order in which the host adds them up: frame by frame, row by row."""
        boxes = [Box(x1, y1, x2, y2) for y1, y2 in self.rows for x1, x2 in self.columns]
        return tuple(
            ModelTile(frame * len(boxes) + place, frame, box)
            for frame in range(self.batch)
            for place, box in enumerate(boxes)
        )

    def cut(self, image: torch.Tensor | Pixels, number: int, depth: str = "8bit", *, clamp: bool = False) -> Pixels:
        """The pixels of a tile, float32 ``[1, h, w, 3]``; ``image`` is ``[batch, height, width, channels]``.

        With depth ``8bit`` the model sees 8-bit values, as it does in the reference, which makes its pictures such before
        anything else; with ``float`` it sees what the host's own node would show it. ``clamp`` as in `quantise`.
        """
        tile = self.tiles[number]
        box = tile.box
        region = image[tile.frame : tile.frame + 1, box.y1 : box.y2, box.x1 : box.x2]
        values = unit(quantise(region, clamp=clamp)) if depth == "8bit" else floats(region)
        return np.ascontiguousarray(rgb(values))


def _spans(side: int, tile: int, overlap: int) -> tuple[tuple[int, int], ...]:
    if side <= tile:
        return ((0, side),)
    return tuple((start, min(start + tile, side)) for start in range(0, side - overlap, tile - overlap))


def segments(spans: tuple[tuple[int, int], ...], scale: int) -> tuple[Segment, ...]:
    """The pieces of a side that the same tiles cover, in pixels of the result; they lie end to end."""
    edges = sorted({edge for span in spans for edge in span})
    return tuple(
        Segment(
            start * scale,
            end * scale,
            tuple(place for place, span in enumerate(spans) if span[0] <= start and end <= span[1]),
        )
        for start, end in pairwise(edges)
    )


class Feather:
    """The weights of one size of tile: 1 inside, rising over ``feather_px`` from every side, also at the picture's edge."""

    def __init__(self, size: Size, feather_px: int) -> None:
        """``size`` of the tile in pixels of the result."""
        first, second = _ramps(size.height, feather_px)
        self._rows = (first * second)[:, None, None]
        self._columns, self._columns_again = (ramp[None, :, None] for ramp in _ramps(size.width, feather_px))

    def weights(self, box: Box) -> torch.Tensor:
        """The weights in ``box``, counted from the tile's corner: float32 ``[h, w, 1]``."""
        columns = slice(box.x1, box.x2)
        # In float32 the order of factors decides the last bit: the host's is rows, then columns, from the outside in.
        return self._rows[box.y1 : box.y2] * self._columns[:, columns] * self._columns_again[:, columns]


def _ramps(length: int, feather_px: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The two factors of each pixel, the one of the nearer end first. A tile no longer than its feather has none."""
    first, second = torch.ones(length), torch.ones(length)
    if feather_px >= length:
        return first, second
    rise = torch.tensor([(step + 1) / feather_px for step in range(feather_px)], dtype=torch.float32)
    near = torch.minimum(torch.arange(length), torch.arange(length - 1, -1, -1))
    far = length - 1 - near
    first[near < feather_px] = rise[near[near < feather_px]]
    second[far < feather_px] = rise[far[far < feather_px]]
    return first, second


def model_runs(source: Size, canvas: Size) -> int:
    """How often the reference runs the model over the picture before it resizes it to ``canvas``.

    It takes the whole factor by which the longer side grows, rounded up, as a product of 4s, 3s and 2s, with one run for
    each, whatever the model's own factor is: none at factor 1, one up to 4, two for 5 to 16 (with few exceptions).
    """
    factor = math.ceil(max(canvas) / max(source))
    if factor > 1 and not _step(factor):
        factor += 1
    done, runs = 1, 0
    while done < factor:
        runs += 1
        step = _step(factor // done)
        if not step:
            break
        done *= step
    return runs


def _step(factor: int) -> int:
    """The largest of 4, 3 and 2 that divides ``factor``, 4 before 3; 2 for 1; else 0."""
    if factor == 1:
        return 2
    return next((step for step in (4, 3, 2) if factor % step == 0), 0)
