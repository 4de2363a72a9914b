"""Geometry of an upscale: golden crops of the reference, and the extremes."""

from __future__ import annotations

import pytest
from flotilla.upscale.geometry import (
    Box,
    Size,
    Window,
    canvas_size,
    fitted_window,
    grid,
    r8,
    uniform_window,
)

SQUARE = Size(2048, 2048)
ODD = Size(1800, 1400)
P_544 = Size(544, 544)


def tile_bounds(xi: int, yi: int, canvas: Size, tile: int = 512) -> Box:
    """The mask's box: one pixel more than the tile on the right and at the bottom."""
    x, y = xi * tile, yi * tile
    return Box(x, y, min(x + tile + 1, canvas.width), min(y + tile + 1, canvas.height))


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(0, 0), (3, 0), (4, 0), (4.1, 8), (12, 16), (20, 16), (28, 32), (544, 544), (539.9, 536), (1001.5, 1000)],
)
def test_r8_rounds_halves_to_the_even_multiple(value: float, rounded: int) -> None:
    assert r8(value) == rounded


def test_the_canvas_is_rounded_per_side() -> None:
    assert canvas_size(1000, 1004) == (1000, 1008)  # 1004 / 8 = 125.5
    assert canvas_size(1000, 1012, 1.5) == (1504, 1520)
    assert canvas_size(513, 769, 2.0) == (1024, 1536)  # 128.25 and 192.25 times 8


def test_the_grid_covers_the_canvas() -> None:
    assert grid(SQUARE, Size(512, 512)) == (4, 4)
    assert grid(ODD, Size(512, 512)) == (4, 3)
    assert grid(Size(1032, 8), Size(1024, 512)) == (2, 1)


@pytest.mark.parametrize(
    ("canvas", "place", "crop"),
    [
        (SQUARE, (0, 0), (0, 0, 544, 544)),
        (SQUARE, (1, 0), (480, 0, 1056, 576)),
        (SQUARE, (1, 1), (480, 480, 1056, 1056)),
        (ODD, (3, 2), (1392, 992, 1800, 1400)),
    ],
)
def test_golden_uniform_crops(canvas: Size, place: tuple[int, int], crop: tuple[int, ...]) -> None:
    assert uniform_window(tile_bounds(*place, canvas), 32, P_544, canvas) == Window(Box(*crop), P_544)


def test_golden_fitted_crop() -> None:
    window = fitted_window(tile_bounds(1, 0, SQUARE), 32, SQUARE)
    assert window == Window(Box(480, 0, 1056, 544), Size(576, 544))


def test_golden_seam_crops() -> None:
    tile = Size(512, 512)
    assert uniform_window(Box(512, 257, 1024, 767), 16, tile, SQUARE).crop == (496, 240, 1039, 783)
    assert uniform_window(Box(256, 256, 768, 768), 0, tile, SQUARE).crop == (256, 256, 767, 767)


def test_a_fitted_crop_is_processed_at_its_own_size() -> None:
    for bounds in (tile_bounds(3, 2, ODD), tile_bounds(0, 1, ODD), Box(3, 5, 4, 6)):
        window = fitted_window(bounds, 17, ODD)
        assert window.crop.size == window.size
        assert window.size.width % 8 == window.size.height % 8 == 0


def test_the_crop_keeps_inside_the_canvas_and_takes_the_aspect_where_it_can() -> None:
    wide = Size(4096, 512)
    # Taller than the canvas: the whole height, and the resize makes up for the rest.
    assert uniform_window(Box(512, 0, 1025, 512), 32, Size(288, 544), wide).crop == (480, 0, 1056, 512)
    # One column left at the right end: padding to the left alone, then grown to the left.
    narrow = uniform_window(Box(4095, 0, 4096, 512), 32, Size(544, 544), wide)
    assert narrow.crop == (4096 - 512, 0, 4096, 512)


def test_padding_zero_leaves_the_mask_without_its_last_column_and_row() -> None:
    assert uniform_window(tile_bounds(1, 1, SQUARE), 0, Size(512, 512), SQUARE).crop == (512, 512, 1024, 1024)


def test_boxes() -> None:
    box = Box(2, 3, 10, 7)
    assert (box.width, box.height, box.size) == (8, 4, Size(8, 4))
    assert box.moved(-2, 1) == (0, 4, 8, 8)
    assert box.union(Box(0, 5, 4, 20)) == (0, 3, 10, 20)
    assert box.intersect(Box(9, 0, 20, 20)) == (9, 3, 10, 7)
    assert box.grown(4, Size(12, 9)) == (0, 0, 12, 9)


def test_boxes_that_only_border_on_each_other_or_are_empty_do_not_meet() -> None:
    box = Box(2, 3, 10, 7)
    for other in (Box(10, 3, 12, 7), Box(2, 7, 10, 9), Box(0, 0, 2, 9), Box(5, 5, 5, 6), Box(5, 5, 6, 5)):
        assert not box.meets(other)
        assert not other.meets(box)
        assert box.intersect(other) is None
    assert box.meets(Box(9, 6, 30, 30))
