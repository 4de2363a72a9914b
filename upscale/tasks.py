"""The tasks of an upscale: which tiles there are, in which order they are redrawn, and which are redrawn together.

Source: ssitu/ComfyUI_UltimateSDUpscale 1.7.1 and its script. The parity modes ``linear``, ``chess`` and ``none`` give the
same tiles in the same order. Differences: ``mosaic`` and ``independent`` are ours; in them, sides are multiples of 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from ..utils.errors import InvalidInput
from . import masks
from .geometry import SIDE_STEP_PX, Box, Size, Window, fitted_window, grid, r8, uniform_window
from .masks import TileMask

MOSAIC = "mosaic"
LINEAR = "linear"
CHESS = "chess"
INDEPENDENT = "independent"
NONE = "none"
MODES = (MOSAIC, LINEAR, CHESS, INDEPENDENT, NONE)
PARITY_MODES = frozenset({LINEAR, CHESS, NONE})

SEAM_NONE = "None"
SEAM_BAND = "Band Pass"
SEAM_HALF = "Half Tile"
SEAM_HALF_CROSS = "Half Tile + Intersections"
SEAM_FIX_MODES = (SEAM_NONE, SEAM_BAND, SEAM_HALF, SEAM_HALF_CROSS)

REDRAW = "redraw"
BAND = "band"
HALF_TILE = "half tile"
CROSSING = "intersection"
STAGES = (REDRAW, BAND, HALF_TILE, CROSSING)

CANVAS_SIDE_PX = (SIDE_STEP_PX, 1 << 17)
TILE_SIDE_PX = (8, 8192)
SEAM_WIDTH_PX = (2, 8192)  # a band of one pixel would have no crop
PADDING_PX = (0, 4096)
BLUR_PX = (0, 1024)
TILE_BATCH = (1, 4096)

NOWHERE = Box(0, 0, 0, 0)

MOSAIC_COLOURS = ((0, 0), (1, 1), (1, 0), (0, 1))
"""Parities of (xi, yi), in the order of the colours: neighbours are never of one colour."""


@dataclass(frozen=True)
class SeamFix:
    """The passes over the seams after the redraw. ``mode`` is one of `SEAM_FIX_MODES`; the rest is in pixels."""

    mode: str = SEAM_NONE
    width: int = 64
    mask_blur: int = 8
    padding: int = 16

    def __post_init__(self) -> None:
        """Check the ranges."""
        _one_of("seam_fix_mode", self.mode, SEAM_FIX_MODES)
        _within("seam_fix_width", self.width, SEAM_WIDTH_PX)
        _within("seam_fix_mask_blur", self.mask_blur, BLUR_PX)
        _within("seam_fix_padding", self.padding, PADDING_PX)


@dataclass(frozen=True)
class Layout:
    """All that decides which tasks there are. Lengths in pixels of the canvas.

    ``uniform``: every tile of a pass is sampled at one size. ``tile_batch``: so many tiles are redrawn as one batch; it has
    an effect on the uniform redraw only. In our own modes, the sides of ``tile`` are rounded to multiples of 8.
    Raises `InvalidInput` if a value is out of its range.
    """

    canvas: Size
    tile: Size
    padding: int
    mask_blur: int
    uniform: bool
    mode: str
    seam_fix: SeamFix = field(default_factory=SeamFix)
    tile_batch: int = 1

    def __post_init__(self) -> None:
        """Check the ranges and round the tile."""
        _one_of("mode", self.mode, MODES)
        for name, side in zip(("width", "height"), self.canvas, strict=True):
            _within(f"{name} of the upscaled image", side, CANVAS_SIDE_PX)
        for name, side in zip(("tile_width", "tile_height"), self.tile, strict=True):
            _within(name, side, TILE_SIDE_PX)
        _within("padding", self.padding, PADDING_PX)
        _within("mask_blur", self.mask_blur, BLUR_PX)
        _within("tile_batch", self.tile_batch, TILE_BATCH)
        object.__setattr__(self, "tile", self.sampled(*self.tile))

    @property
    def is_parity(self) -> bool:
        """Whether the pixels must be those of the reference."""
        return self.mode in PARITY_MODES

    def sampled(self, width: int, height: int) -> Size:
        """The size at which that many pixels are sampled: as it is in parity modes, else in multiples of 8."""
        if self.is_parity:
            return Size(width, height)
        return Size(max(r8(width), SIDE_STEP_PX), max(r8(height), SIDE_STEP_PX))


@dataclass(frozen=True)
class Tile:
    """One tile of a pass: its place in the pass's grid, what it changes, and the window it is processed in.

    ``touch`` holds all pixels that its blend can change: the mask's reach inside the crop; `NOWHERE` if it can change none.
    """

    xi: int
    yi: int
    mask: TileMask
    window: Window
    touch: Box


@dataclass(frozen=True)
class Task:
    """Tiles that are sampled as one batch. ``number`` is its place in the mode's order, from 0.

    ``from_source``: its pixels are cut from the image as it was before anything was redrawn. All of a task's tiles have
    the same processing size, and all are cut before any of them is blended.
    """

    number: int
    stage: str
    tiles: tuple[Tile, ...]
    from_source: bool
    is_seam: bool


def plan_tasks(layout: Layout) -> tuple[Task, ...]:
    """All tasks of the redraw and of the seam fix, in the order in which one machine alone would do them."""
    groups: list[tuple[str, tuple[Tile, ...]]] = [(REDRAW, tiles) for tiles in _redraw(layout)]
    groups += [(stage, (tile,)) for stage, tile in _seam_fix(layout)]
    return tuple(
        Task(
            number=number,
            stage=stage,
            tiles=tiles,
            from_source=layout.mode == INDEPENDENT and stage == REDRAW,
            is_seam=stage != REDRAW,
        )
        for number, (stage, tiles) in enumerate(groups)
    )


def _redraw(layout: Layout) -> Iterator[tuple[Tile, ...]]:
    tile, padding = layout.tile, layout.padding
    size = Size(r8(tile.width + padding), r8(tile.height + padding))
    together = layout.tile_batch if layout.uniform else 1
    for colour in _colours(layout):
        tiles = (
            _tile(
                layout,
                (xi, yi),
                masks.rectangle(layout.canvas, xi * tile.width, yi * tile.height, tile, layout.mask_blur),
                padding,
                size,
            )
            for xi, yi in colour
        )
        while group := tuple(islice(tiles, together)):
            yield group


def _colours(layout: Layout) -> Iterator[Iterable[tuple[int, int]]]:
    """Places of the grid in the mode's order, colour by colour; a mode without colours has one."""
    cols, rows = grid(layout.canvas, layout.tile)
    places = [(xi, yi) for yi in range(rows) for xi in range(cols)]
    if layout.mode in (LINEAR, INDEPENDENT):
        yield places
    elif layout.mode == CHESS:
        for parity in (0, 1):
            yield (place for place in places if sum(place) % 2 == parity)
    elif layout.mode == MOSAIC:
        for colour in MOSAIC_COLOURS:
            yield (place for place in places if (place[0] % 2, place[1] % 2) == colour)


def _seam_fix(layout: Layout) -> Iterator[tuple[str, Tile]]:
    mode = layout.seam_fix.mode
    if mode == SEAM_BAND:
        yield from ((BAND, tile) for tile in _bands(layout))
    elif mode in (SEAM_HALF, SEAM_HALF_CROSS):
        yield from ((HALF_TILE, tile) for tile in _half_tiles(layout))
        if mode == SEAM_HALF_CROSS:
            yield from ((CROSSING, tile) for tile in _crossings(layout))


def _bands(layout: Layout) -> Iterator[Tile]:
    canvas, tile, seam = layout.canvas, layout.tile, layout.seam_fix
    cols, rows = grid(canvas, tile)
    sampled_px = seam.width + 2 * seam.padding
    upright = layout.sampled(sampled_px, canvas.height)
    for xi in range(1, cols):
        origin = (xi * tile.width - seam.width // 2, 0)
        mask = TileMask(canvas, masks.COLUMN_BAND, origin, Size(seam.width, canvas.height), 0)
        yield _tile(layout, (xi, 0), mask, seam.padding, upright)
    level = layout.sampled(canvas.width, sampled_px)
    for yi in range(1, rows):
        origin = (0, yi * tile.height - seam.width // 2)
        mask = TileMask(canvas, masks.ROW_BAND, origin, Size(canvas.width, seam.width), 0)
        yield _tile(layout, (0, yi), mask, seam.padding, level)


def _half_tiles(layout: Layout) -> Iterator[Tile]:
    cols, rows = grid(layout.canvas, layout.tile)
    half_px = layout.tile.height // 2
    for yi in range(rows - 1):
        for xi in range(cols):
            yield _seam_tile(layout, masks.ROW_SEAM, (xi, yi), (0, half_px), layout.seam_fix.padding)
    half_px = layout.tile.width // 2
    for yi in range(rows):
        for xi in range(cols - 1):
            yield _seam_tile(layout, masks.COLUMN_SEAM, (xi, yi), (half_px, 0), layout.seam_fix.padding)


def _crossings(layout: Layout) -> Iterator[Tile]:
    cols, rows = grid(layout.canvas, layout.tile)
    offset = (layout.tile.width // 2, layout.tile.height // 2)
    for yi in range(rows - 1):
        for xi in range(cols - 1):
            yield _seam_tile(layout, masks.INTERSECTION, (xi, yi), offset, padding=0)


def _seam_tile(layout: Layout, kind: str, place: tuple[int, int], offset: tuple[int, int], padding: int) -> Tile:
    """A tile-sized mask, ``offset`` from the corner of the tile at ``place`` of the grid."""
    tile = layout.tile
    origin = (place[0] * tile.width + offset[0], place[1] * tile.height + offset[1])
    mask = TileMask(layout.canvas, kind, origin, tile, layout.seam_fix.mask_blur)
    return _tile(layout, place, mask, padding, tile)


def _tile(layout: Layout, place: tuple[int, int], mask: TileMask, padding: int, size: Size) -> Tile:
    if layout.uniform:
        window = uniform_window(mask.bounds, padding, size, layout.canvas)
    else:
        window = fitted_window(mask.bounds, padding, layout.canvas)
    return Tile(*place, mask=mask, window=window, touch=mask.reach().intersect(window.crop) or NOWHERE)


def _within(name: str, value: int, limits: tuple[int, int]) -> None:
    low, high = limits
    if not low <= value <= high:
        raise InvalidInput(
            f"The upscale's {name} is {value}, and must be {low} to {high}.",
            cure=f"Set {name} to a value from {low} to {high}.",
        )


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidInput(
            f"The upscale's {name} {value!r} is not known.", cure=f"Choose one of: {', '.join(choices)}."
        )
