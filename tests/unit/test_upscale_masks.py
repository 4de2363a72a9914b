"""Masks of tiles: every region holds the bits of the whole blurred canvas mask, and nothing lies beyond the reach."""

from __future__ import annotations

import numpy as np
import pytest
from flotilla.upscale import masks
from flotilla.upscale.geometry import Box, Size
from flotilla.upscale.masks import TileMask, rectangle
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageFilter, ImageOps

KINDS = (
    masks.RECTANGLE,
    masks.COLUMN_BAND,
    masks.ROW_BAND,
    masks.ROW_SEAM,
    masks.COLUMN_SEAM,
    masks.INTERSECTION,
)


def naive_picture(kind: str, size: Size) -> Image.Image:
    """The gradients once more, drawn by numpy and Pillow from the fact sheet's words."""
    bicubic = Image.Resampling.BICUBIC
    ramp = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8)[:, None], 256, axis=1))
    turned = {
        angle: Image.fromarray(np.ascontiguousarray(np.rot90(np.asarray(ramp), angle // 90)))
        for angle in (90, 180, 270)
    }
    if kind in (masks.ROW_BAND, masks.COLUMN_BAND):
        halves = [np.asarray(half.resize((256, 128), bicubic)) for half in (ramp, turned[180])]
        band = np.concatenate(halves)
        band = band if kind == masks.ROW_BAND else np.rot90(band)
        return Image.fromarray(np.ascontiguousarray(band)).resize(size, bicubic)
    if kind == masks.INTERSECTION:
        return ImageOps.invert(Image.radial_gradient("L").resize(size, bicubic))
    out = np.zeros((size.height, size.width), np.uint8)
    if kind == masks.ROW_SEAM:
        half = size.height // 2
        out[:half] = np.asarray(ramp.resize((size.width, half), bicubic))
        out[half : 2 * half] = np.asarray(turned[180].resize((size.width, half), bicubic))
    else:
        half = size.width // 2
        out[:, :half] = np.asarray(turned[90].resize((half, size.height), bicubic))
        out[:, half : 2 * half] = np.asarray(turned[270].resize((half, size.height), bicubic))
    return Image.fromarray(out)


def whole(mask: TileMask) -> tuple[np.ndarray, Box | None]:
    """The mask of the whole canvas, blurred; and the box around what is not black before the blur."""
    picture = Image.new("L", mask.canvas, 0)
    if mask.kind == masks.RECTANGLE:
        x, y = mask.origin
        picture.paste(
            255,
            (
                max(x, 0),
                max(y, 0),
                min(x + mask.size.width, mask.canvas.width),
                min(y + mask.size.height, mask.canvas.height),
            ),
        )
    else:
        picture.paste(naive_picture(mask.kind, mask.size), mask.origin)
    bounds = picture.getbbox()
    if mask.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(mask.blur))
    return np.asarray(picture), Box(*bounds) if bounds else None


def part(picture: np.ndarray, region: Box) -> np.ndarray:
    return picture[region.y1 : region.y2, region.x1 : region.x2]


@st.composite
def cases(draw: st.DrawFn) -> tuple[TileMask, Box]:
    """Any mask that has its origin on the canvas or a little outside, and any region of the canvas."""
    canvas = Size(draw(st.integers(1, 40)) * 8, draw(st.integers(1, 40)) * 8)
    kind = draw(st.sampled_from(KINDS))
    size = Size(draw(st.integers(2, 150)), draw(st.integers(2, 150)))
    if kind == masks.COLUMN_BAND:
        size = size._replace(height=canvas.height)
    if kind == masks.ROW_BAND:
        size = size._replace(width=canvas.width)
    low = 0 if kind == masks.RECTANGLE else -(min(size) // 2)
    origin = (draw(st.integers(low, canvas.width - 1)), draw(st.integers(low, canvas.height - 1)))
    blur = draw(st.sampled_from([0, 1, 2, 4, 8, 16, 64, 256]) | st.integers(0, 256) | st.floats(0, 40))
    x1, y1 = draw(st.integers(0, canvas.width - 1)), draw(st.integers(0, canvas.height - 1))
    region = Box(x1, y1, draw(st.integers(x1 + 1, canvas.width)), draw(st.integers(y1 + 1, canvas.height)))
    return TileMask(canvas, kind, origin, size, blur), region


@given(cases())
@example((rectangle(Size(320, 320), 312, 312, Size(64, 64), 256), Box(0, 0, 8, 8)))
@example((rectangle(Size(2048, 64), 1024, 0, Size(64, 64), 16), Box(976, 3, 1022, 9)))
@example((rectangle(Size(2048, 64), 1024, 0, Size(64, 64), 256), Box(300, 3, 400, 9)))
def test_a_region_holds_the_bits_of_the_whole_mask(case: tuple[TileMask, Box]) -> None:
    mask, region = case
    expected, bounds = whole(mask)
    alpha = mask.alpha(region)
    assert alpha.mode == "L"
    assert np.array_equal(np.asarray(alpha), part(expected, region))
    if bounds is not None:
        assert mask.bounds == bounds


@given(cases())
def test_the_blurred_mask_is_black_outside_its_reach(case: tuple[TileMask, Box]) -> None:
    mask = case[0]
    expected = whole(mask)[0].copy()
    reach = mask.reach()
    assert Box(0, 0, *mask.canvas).union(reach) == (0, 0, *mask.canvas)
    expected[reach.y1 : reach.y2, reach.x1 : reach.x2] = 0
    assert not expected.any()


@pytest.mark.parametrize("blur", [0, 1, 8, 33, 64])
@pytest.mark.parametrize("place", [(0, 0), (512, 256), (900, 0)])
def test_the_reach_of_a_tile_is_tight(blur: int, place: tuple[int, int]) -> None:
    mask = rectangle(Size(1024, 768), *place, Size(256, 256), blur)
    exact = Image.fromarray(whole(mask)[0]).getbbox()
    assert exact is not None
    assert all(abs(mine - theirs) <= 2 for mine, theirs in zip(mask.reach(), exact, strict=True))


def test_the_mask_of_a_tile_is_one_pixel_larger_than_it() -> None:
    mask = rectangle(Size(64, 64), 16, 16, Size(16, 16), 0)
    assert mask.bounds == (16, 16, 33, 33)
    picture = np.asarray(mask.alpha(Box(0, 0, 64, 64)))
    assert picture[16:33, 16:33].min() == 255
    assert picture.sum() == 255 * 17 * 17
    assert rectangle(Size(64, 64), 48, 48, Size(16, 16), 0).bounds == (48, 48, 64, 64)


def test_seams_rise_to_the_middle_and_fall_again() -> None:
    canvas = Size(128, 128)
    everything = Box(0, 0, 128, 128)
    for kind, axis in ((masks.ROW_SEAM, 0), (masks.COLUMN_SEAM, 1)):
        mask = TileMask(canvas, kind, (0, 0), canvas, 0)
        picture = np.asarray(mask.alpha(everything)).astype(int)
        line = np.take(picture, 64, axis=1 - axis)
        assert (np.diff(line[:63]) >= 0).all()
        assert (np.diff(line[65:]) <= 0).all()
        assert line[0] < 8 and line[-1] < 8 and line[63] > 245, kind
        assert (np.diff(picture, axis=1 - axis) == 0).all()


def test_intersections_are_white_in_the_middle_and_black_in_the_corners() -> None:
    picture = np.asarray(
        TileMask(Size(128, 128), masks.INTERSECTION, (0, 0), Size(128, 128), 0).alpha(Box(0, 0, 128, 128))
    )
    assert picture[64, 64] > 250
    assert max(picture[0, 0], picture[0, -1], picture[-1, 0], picture[-1, -1]) < 8


def test_an_odd_tile_keeps_a_black_line() -> None:
    size = Size(33, 35)
    row = np.asarray(TileMask(Size(64, 64), masks.ROW_SEAM, (0, 0), size, 0).alpha(Box(0, 0, 64, 64)))
    column = np.asarray(TileMask(Size(64, 64), masks.COLUMN_SEAM, (0, 0), size, 0).alpha(Box(0, 0, 64, 64)))
    assert row[33, :33].any() and not row[34].any()
    assert column[:35, 31].any() and not column[:, 32].any()


def test_the_bounds_of_a_gradient_lack_its_black_lines() -> None:
    canvas, tile = Size(2048, 2048), Size(512, 512)
    assert TileMask(canvas, masks.ROW_SEAM, (512, 256), tile, 8).bounds == (512, 257, 1024, 767)
    assert TileMask(canvas, masks.INTERSECTION, (256, 256), tile, 8).bounds == (256, 256, 768, 768)


def test_a_huge_canvas_costs_no_more_than_its_region(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    new = Image.new

    def counting(mode: str, size: tuple[int, int], *rest: object) -> Image.Image:
        made.append(size[0] * size[1])
        return new(mode, size, *rest)

    monkeypatch.setattr(Image, "new", counting)
    mask = rectangle(Size(131072, 131072), 65536, 65536, Size(512, 512), 8)
    assert mask.alpha(Box(65500, 65500, 66080, 66080)).size == (580, 580)
    mask.reach()
    assert max(made) < 700 * 700
