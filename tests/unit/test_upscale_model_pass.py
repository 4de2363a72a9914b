"""The pass of an upscale model: where its tiles lie, and how their results become one picture in any order."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from flotilla.upscale.geometry import Box, Size
from flotilla.upscale.model_pass import ModelCanvas, lanczos
from flotilla.upscale.model_plan import ModelPlan, model_runs
from flotilla.upscale.pixels import quantise
from flotilla.utils.errors import InvalidInput
from hypothesis import given, settings
from hypothesis import strategies as st

SMALL = {"tile": 16, "overlap": 4}


def picture(plan: ModelPlan, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(plan.batch, plan.source.height, plan.source.width, 3, generator=generator)


def enlarge(pixels: Any, scale: int) -> torch.Tensor:
    """A fake model: nearest, mixed with what depends on the place in the tile, and beyond 0..1. So seams can be seen."""
    large = torch.as_tensor(pixels).repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)
    down = torch.arange(large.shape[1])[None, :, None, None]
    across = torch.arange(large.shape[2])[None, None, :, None]
    return large * 1.3 - 0.15 + 0.2 * torch.sin(down * 0.7 + across * 0.31)


def results(plan: ModelPlan, image: torch.Tensor, scale: int) -> list[torch.Tensor]:
    return [enlarge(plan.cut(image, tile.number, "float"), scale) for tile in plan.tiles]


def gathered(plan: ModelPlan, tiles: list[torch.Tensor], order: list[int], **options: Any) -> np.ndarray:
    canvas = ModelCanvas(plan, **options)
    for number in order:
        assert canvas.put(number, tiles[number])
    assert canvas.is_complete
    assert canvas.held_bytes == 0
    return canvas.finish()


def added_up(plan: ModelPlan, tiles: list[torch.Tensor], scale: int) -> np.ndarray:
    """The plain way: sums of whole pictures in the order of the tiles, weights line by line. Not clamped."""
    size = (plan.source.height * scale, plan.source.width * scale)
    frames = []
    for frame in range(plan.batch):
        own = [tile for tile in plan.tiles if tile.frame == frame]
        if len(own) == 1:
            frames.append(tiles[own[0].number][0].numpy())
            continue
        total, divisor = torch.zeros(*size, 3), torch.zeros(*size, 1)
        for tile in own:
            result = tiles[tile.number][0]
            weights = torch.ones(*result.shape[:2], 1)
            feather = plan.overlap * scale
            for axis in (0, 1):
                if feather < weights.shape[axis]:
                    for step in range(feather):
                        weights.narrow(axis, step, 1).mul_((step + 1) / feather)
                        weights.narrow(axis, weights.shape[axis] - 1 - step, 1).mul_((step + 1) / feather)
            y, x = tile.box.y1 * scale, tile.box.x1 * scale
            total[y : y + result.shape[0], x : x + result.shape[1]] += result * weights
            divisor[y : y + result.shape[0], x : x + result.shape[1]] += weights
        frames.append((total / divisor).numpy())
    return np.stack(frames)


# Where tiles lie


@pytest.mark.parametrize(
    ("side", "spans"),
    [
        (1, ((0, 1),)),
        (512, ((0, 512),)),
        (513, ((0, 512), (480, 513))),
        (992, ((0, 512), (480, 992))),
        (993, ((0, 512), (480, 992), (960, 993))),
        (1024, ((0, 512), (480, 992), (960, 1024))),
    ],
)
def test_tiles_lie_where_the_host_puts_them(side: int, spans: tuple[tuple[int, int], ...]) -> None:
    plan = ModelPlan(Size(side, 1), 1)
    assert plan.columns == spans
    assert [tile.box for tile in plan.tiles] == [Box(start, 0, end, 1) for start, end in spans]


def test_tiles_are_numbered_frame_by_frame_and_row_by_row() -> None:
    plan = ModelPlan(Size(600, 700), 2)
    assert [tile.number for tile in plan.tiles] == list(range(8))
    assert [(tile.frame, tile.box.x1, tile.box.y1) for tile in plan.tiles] == [
        (frame, x, y) for frame in (0, 1) for y in (0, 480) for x in (0, 480)
    ]


@pytest.mark.parametrize("bad", [{"source": Size(0, 4)}, {"batch": 0}, {"tile": 32}, {"overlap": -1}])
def test_what_cannot_be_cut_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        ModelPlan(**{"source": Size(4, 4), "batch": 1, **bad})


def test_a_cut_shows_the_model_8_bit_pixels_or_all_bits() -> None:
    plan = ModelPlan(Size(20, 30), 2, **SMALL)
    image = picture(plan)
    box = plan.tiles[-2].box
    region = image[1:, box.y1 : box.y2, box.x1 : box.x2].numpy()
    exact, rounded = plan.cut(image, len(plan.tiles) - 2, "float"), plan.cut(image, len(plan.tiles) - 2)
    assert exact.dtype == rounded.dtype == np.float32
    assert np.array_equal(exact, region)
    assert np.array_equal(rounded, np.floor(region * np.float32(255)) / np.float32(255))
    assert not np.array_equal(rounded, region)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_cut_has_three_colours(channels: int) -> None:
    image = torch.rand(1, 4, 5, channels)
    cut = ModelPlan(Size(5, 4), 1).cut(image, 0, "float")
    assert np.array_equal(cut, image.repeat(1, 1, 1, 3)[..., :3].numpy())


# Putting together


@given(
    width=st.integers(1, 50),
    height=st.integers(1, 50),
    batch=st.integers(1, 2),
    scale=st.sampled_from([1, 2, 3]),
    overlap=st.sampled_from([0, 1, 4, 11]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60)
def test_any_order_gives_what_adding_up_whole_pictures_gives(
    width: int, height: int, batch: int, scale: int, overlap: int, seed: int
) -> None:
    plan = ModelPlan(Size(width, height), batch, tile=16, overlap=overlap)
    tiles = results(plan, picture(plan, seed), scale)
    order = list(range(len(tiles)))
    random.Random(seed).shuffle(order)
    plain = np.clip(added_up(plan, tiles, scale), 0.0, 1.0)
    assert np.array_equal(gathered(plan, tiles, order, depth="float"), plain)
    assert np.array_equal(gathered(plan, tiles, order), quantise(plain))


def test_the_order_in_which_four_are_added_decides_bits() -> None:
    """Otherwise the property above would say nothing about it."""
    plan = ModelPlan(Size(40, 40), 1, **SMALL)
    tiles = results(plan, picture(plan), 2)
    right = gathered(plan, tiles, list(range(len(tiles))), depth="float")
    mirrored = [tiles[number].flip(1) for number in _upside_down(plan)]
    wrong = gathered(plan, mirrored, list(range(len(tiles))), depth="float")[:, ::-1]
    assert np.allclose(right, wrong, atol=1e-6)
    assert not np.array_equal(right, wrong)


def _upside_down(plan: ModelPlan) -> list[int]:
    across = len(plan.columns)
    assert [end - start for start, end in plan.rows] == [16, 16, 16]  # so the picture can be turned
    return [row * across + column for row in reversed(range(len(plan.rows))) for column in range(across)]


def test_the_first_result_wins() -> None:
    plan = ModelPlan(Size(30, 20), 1, **SMALL)
    tiles = results(plan, picture(plan), 2)
    canvas = ModelCanvas(plan)
    for number in [4, 2, 0, 5, 1, 3]:
        assert canvas.put(number, tiles[number])
        assert not canvas.put(number, torch.zeros_like(tiles[number]))
        assert not canvas.skip(number, torch.zeros(1, 1, 1, 3))
    assert np.array_equal(canvas.finish(), gathered(plan, tiles, list(range(6))))


def test_what_is_put_may_change_afterwards() -> None:
    """A result lies in memory that is used again."""
    plan = ModelPlan(Size(30, 20), 1, **SMALL)
    tiles = results(plan, picture(plan), 2)
    expected = gathered(plan, tiles, list(range(6)))
    canvas = ModelCanvas(plan)
    for number, tile in enumerate(tiles):
        canvas.put(number, tile)
        tile.zero_()
    assert np.array_equal(canvas.finish(), expected)


@pytest.mark.parametrize(
    "shape", [(1, 32, 30, 3), (1, 32, 32, 4), (2, 32, 32, 3), (1, 24, 24, 3), (32, 32, 3), (1, 8, 8, 3), (1, 0, 0, 3)]
)
def test_a_result_that_does_not_fit_is_refused_and_another_is_taken(shape: tuple[int, ...]) -> None:
    plan = ModelPlan(Size(16, 16), 1, **SMALL)
    canvas = ModelCanvas(plan)
    with pytest.raises(InvalidInput) as caught:
        canvas.put(0, torch.zeros(shape))
    assert "whole factor" in caught.value.cure
    assert not canvas.is_complete
    assert canvas.put(0, torch.ones(1, 32, 32, 3))
    assert canvas.finish().min() == 255


def test_all_tiles_have_the_same_factor() -> None:
    plan = ModelPlan(Size(30, 16), 1, **SMALL)
    canvas = ModelCanvas(plan)
    first, second = (tile.box for tile in plan.tiles[:2])
    canvas.put(0, torch.zeros(1, first.height * 2, first.width * 2, 3))
    with pytest.raises(InvalidInput):
        canvas.put(1, torch.zeros(1, second.height * 3, second.width * 3, 3))


def test_an_unfinished_picture_is_not_handed_out() -> None:
    plan = ModelPlan(Size(30, 16), 1, **SMALL)
    canvas = ModelCanvas(plan)
    canvas.put(0, results(plan, picture(plan), 2)[0])
    with pytest.raises(RuntimeError):
        canvas.finish()


# Size


@pytest.mark.parametrize("depth", ["8bit", "float"])
@pytest.mark.parametrize("size", [Size(40, 24), Size(100, 56), Size(60, 40)])
def test_frames_are_brought_to_a_size_when_they_are_whole(size: Size, depth: str) -> None:
    plan = ModelPlan(Size(30, 20), 3, **SMALL)
    tiles = results(plan, picture(plan), 2)
    order = list(range(len(tiles)))
    random.Random(1).shuffle(order)
    native = gathered(plan, tiles, order, depth=depth)
    assert native.shape == (3, 40, 60, 3)
    assert np.array_equal(gathered(plan, tiles, order, size=size, depth=depth), lanczos(native, size))


def test_lanczos_keeps_the_type() -> None:
    for kind in (np.uint8, np.float32):
        given_pixels = np.full((2, 8, 9, 3), 1, kind)
        large = lanczos(given_pixels, Size(18, 16))
        assert (large.shape, large.dtype) == ((2, 16, 18, 3), kind)


# Memory


def test_what_waits_is_the_overlap_of_one_row_of_tiles_when_results_come_in_order() -> None:
    plan = ModelPlan(Size(160, 400), 1, **SMALL)
    tiles = results(plan, picture(plan), 2)
    canvas = ModelCanvas(plan)
    most = 0
    for number, tile in enumerate(tiles):
        canvas.put(number, tile)
        most = max(most, canvas.held_bytes)
    of_a_row = 2 * plan.overlap * (2 * plan.source.width) * 3 * 4  # float32 RGB
    assert 0 < most <= 2 * of_a_row + 3 * tiles[0].numel()


def test_what_waits_is_never_more_than_all_overlaps_and_no_insides() -> None:
    plan = ModelPlan(Size(160, 160), 1, **SMALL)
    tiles = results(plan, picture(plan), 2)
    across = len(plan.columns)
    order = sorted(range(len(tiles)), key=lambda number: ((number // across + number % across) % 2, number))
    canvas = ModelCanvas(plan)
    most, all_sums = 0, 0
    for number in order:  # one colour of a chess board first: nothing has its neighbour
        canvas.put(number, tiles[number])
        most = max(most, canvas.held_bytes)
        all_sums += tiles[number].numel() * tiles[number].element_size()
    inside = 1 - 2 * plan.overlap / plan.tile
    assert 0 < most < all_sums * (1 - inside**2)
    assert canvas.held_bytes == 0


# What never comes


@pytest.mark.parametrize("early", [True, False])
def test_a_skipped_tile_shows_its_resized_source(early: bool) -> None:
    plan = ModelPlan(Size(30, 20), 1, **SMALL)
    image = picture(plan)
    tiles = results(plan, image, 2)
    order = [1, 0, 2, 3, 4, 5] if early else [0, 2, 3, 4, 5, 1]
    canvas = ModelCanvas(plan)
    for number in order:
        if number == 1:
            assert canvas.skip(1, plan.cut(image, 1))
            assert not canvas.skip(1, plan.cut(image, 1))
            assert not canvas.put(1, tiles[1])
        else:
            canvas.put(number, tiles[number])
    box = plan.tiles[1].box
    tiles[1] = torch.from_numpy(lanczos(plan.cut(image, 1), Size(box.width * 2, box.height * 2)))
    assert np.array_equal(canvas.finish(), gathered(plan, tiles, list(range(6))))


def test_when_all_are_skipped_the_source_is_resized() -> None:
    plan = ModelPlan(Size(30, 20), 1, **SMALL)
    image = picture(plan)
    canvas = ModelCanvas(plan, Size(60, 40))
    for tile in plan.tiles:
        canvas.skip(tile.number, plan.cut(image, tile.number))
    expected = lanczos(quantise(image), Size(60, 40)).astype(int)
    assert np.abs(canvas.finish().astype(int) - expected).max() <= 2  # weights bring 8-bit values just below themselves


# How often the reference runs the model


@pytest.mark.parametrize(
    ("source", "canvas", "runs"),
    [
        (Size(512, 512), Size(512, 512), 0),
        (Size(512, 512), Size(256, 256), 0),
        (Size(512, 512), Size(520, 520), 1),
        (Size(512, 256), Size(1024, 512), 1),
        (Size(512, 512), Size(1536, 1536), 1),
        (Size(512, 512), Size(2048, 2048), 1),
        (Size(1003, 512), Size(4016, 2048), 2),  # upscale_by 4, but 4016 is more than four times 1003
        (Size(100, 100), Size(500, 500), 2),  # 6 = 3 x 2
        (Size(100, 100), Size(800, 800), 2),
        (Size(100, 100), Size(1000, 1000), 2),  # 2, and then 5 has none of the factors
        (Size(100, 100), Size(1600, 1600), 2),
        (Size(100, 100), Size(1800, 1800), 3),
    ],
)
def test_the_reference_runs_the_model_so_often(source: Size, canvas: Size, runs: int) -> None:
    assert model_runs(source, canvas) == runs


def test_one_run_enlarges_up_to_four_times() -> None:
    counts = {side: model_runs(Size(64, 64), Size(side, side)) for side in range(8, 272, 8)}
    assert counts == {side: 0 if side <= 64 else 1 if side <= 256 else 2 for side in counts}
