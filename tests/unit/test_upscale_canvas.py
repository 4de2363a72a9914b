"""The canvas: how pixels become 8-bit and back, what is cut, what a blend touches, and how much memory it takes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from flotilla.upscale import resampling
from flotilla.upscale.canvas import Canvas, blend_task, cut_task, quantise
from flotilla.upscale.geometry import Size
from flotilla.upscale.pixels import floats, unit
from flotilla.upscale.tasks import Layout, Task, Tile, plan_tasks
from flotilla.utils.errors import InvalidInput
from PIL import Image

ALL_8BIT = np.arange(256, dtype=np.uint8)
SMALL_STRIPS_BYTES = 40_000


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def noise_8bit(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def tasks_of(
    size: Size, tile_px: int = 64, padding: int = 16, mask_blur: int = 4, mode: str = "linear", tile_batch: int = 1
) -> tuple[Task, ...]:
    return plan_tasks(Layout(size, Size(tile_px, tile_px), padding, mask_blur, True, mode, tile_batch=tile_batch))


def tile_of(size: Size, place: tuple[int, int], mask_blur: int = 4) -> Tile:
    tiles = [tile for task in tasks_of(size, mask_blur=mask_blur) for tile in task.tiles]
    return next(tile for tile in tiles if (tile.xi, tile.yi) == place)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_every_8bit_value_makes_the_way_there_and_back(kind: torch.dtype) -> None:
    there = unit(ALL_8BIT)
    assert there.dtype == np.float32
    assert np.array_equal(there, ALL_8BIT.astype(np.float32) / 255.0)
    assert np.array_equal(quantise(there), ALL_8BIT)
    assert np.array_equal(quantise(torch.from_numpy(there)), ALL_8BIT)
    assert np.array_equal(quantise(torch.from_numpy(ALL_8BIT.astype(np.float64) / 255).to(kind)), ALL_8BIT)


def test_quantising_truncates_and_makes_undefined_values_black() -> None:
    given = np.array([0.999, 0.5, np.nan, 1.0, 0.0, 1 / 255 - 1e-6], np.float32)
    assert quantise(given).tolist() == [254, 127, 0, 255, 0, 0]
    assert np.isnan(given[2]), "what is given must not be changed"


def test_what_is_outside_is_left_to_numpy_unless_it_is_to_be_clamped() -> None:
    given = np.array([1.02, 1.5, -0.1], np.float32)
    with np.errstate(invalid="ignore"):
        assert np.array_equal(quantise(given), (given * np.float32(255)).astype(np.uint8))
    beyond = np.array([1.02, 1.5, -0.1, np.inf, -np.inf, np.nan], np.float32)
    assert quantise(beyond, clamp=True).tolist() == [255, 255, 0, 255, 0, 0]


def test_other_kinds_of_numbers() -> None:
    assert np.array_equal(quantise(ALL_8BIT), ALL_8BIT)
    assert quantise(torch.tensor([0.0, 0.5, 1.0], dtype=torch.bfloat16)).tolist() == [0, 127, 255]
    assert quantise(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float16)).tolist() == [0, 127, 255]
    finite = floats(np.array([np.nan, np.inf, -np.inf, 1.5], np.float32))
    assert np.isfinite(finite).all() and finite[0] == 0 and finite[3] == 1.5
    assert np.array_equal(floats(ALL_8BIT), unit(ALL_8BIT))


def test_the_canvas_holds_8bit_values_in_the_memory_that_it_was_given() -> None:
    image = noise(2, 40, 48, 3)
    taken: list[torch.Tensor] = []

    def allocate(shape: tuple[int, ...]) -> torch.Tensor:
        taken.append(torch.zeros(shape))
        return taken[-1]

    canvas = Canvas(torch.from_numpy(image), Size(48, 40), "8bit", allocate)
    assert canvas.batch == 2
    assert canvas.result() is taken[0] and len(taken) == 1
    assert np.array_equal(canvas.result().numpy(), unit(quantise(image)))


def test_grey_alpha_and_8bit_inputs() -> None:
    image = noise(1, 16, 16, 4)
    plain = Canvas(image[..., :3], Size(16, 16)).result()
    assert torch.equal(Canvas(image, Size(16, 16)).result(), plain)
    assert torch.equal(Canvas(quantise(image), Size(16, 16)).result(), plain)
    grey = Canvas(image[..., :1], Size(16, 16)).result()
    assert torch.equal(grey, plain[..., :1].expand(-1, -1, -1, 3))


@pytest.mark.parametrize("shape", [(16, 16, 3), (1, 16, 16, 2), (0, 16, 16, 3), (1, 0, 16, 3)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="shape"):
        Canvas(torch.zeros(shape), Size(16, 16))


def test_an_unknown_depth_is_refused() -> None:
    with pytest.raises(InvalidInput, match="depth"):
        Canvas(torch.zeros(1, 16, 16, 3), Size(16, 16), "16bit")  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [(44, 65), (100, 77), (61, 200), (200, 61), (128, 90)])
def test_another_size_is_resized_as_pillow_does_it(given: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "STRIP_BYTES", SMALL_STRIPS_BYTES)
    size = Size(128, 96)
    image = noise(2, given[1], given[0], 3)
    resized = [Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS) for frame in quantise(image)]
    assert np.array_equal(Canvas(torch.from_numpy(image), size).result().numpy(), unit(np.stack(resized)))


@pytest.mark.parametrize("given", [(44, 65), (128, 90)])
def test_float_depth_is_resized_without_loss(given: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "STRIP_BYTES", SMALL_STRIPS_BYTES)
    size = Size(128, 96)
    image = 3 * noise(1, given[1], given[0], 3) - 1
    colours = [Image.fromarray(image[0, ..., c].copy()).resize(size, Image.Resampling.LANCZOS) for c in range(3)]
    canvas = Canvas(torch.from_numpy(image), size, "float")
    assert np.allclose(canvas.result()[0].numpy(), np.stack(colours, axis=-1), atol=1e-5)


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.from_numpy(noise(2, 96, 128, 3))
    whole = Canvas(image, Size(128, 96)).result()
    monkeypatch.setattr(resampling, "STRIP_BYTES", SMALL_STRIPS_BYTES)
    assert len(list(resampling.strips(96, 128))) > 1
    assert torch.equal(Canvas(image, Size(128, 96)).result(), whole)


@pytest.mark.parametrize("depth", ["8bit", "float"])
def test_making_a_canvas_takes_a_few_strips_of_memory(depth: str, monkeypatch: pytest.MonkeyPatch) -> None:
    strip_bytes = 256 * 1024
    monkeypatch.setattr(resampling, "STRIP_BYTES", strip_bytes)
    image = torch.from_numpy(noise(3, 512, 512, 3))
    Canvas(image[:, :8, :8], Size(8, 8))  # what is made once
    tracemalloc.start()
    try:
        Canvas(image, Size(512, 512), depth)  # type: ignore[arg-type]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 * strip_bytes, "numpy's memory; the output is torch's"


@pytest.mark.parametrize("given", [Size(128, 128), Size(120, 100)])
@pytest.mark.parametrize("depth", ["8bit", "float"])
def test_the_source_stays_what_it_was(depth: str, given: Size) -> None:
    size = Size(128, 128)
    canvas = Canvas(torch.from_numpy(noise(1, given.height, given.width, 3)), size, depth)  # type: ignore[arg-type]
    tile = tile_of(size, (1, 0))
    before = canvas.cut(tile, range(1))
    canvas.blend(tile, range(1), before[:, ::-1].copy())
    assert not np.array_equal(canvas.cut(tile, range(1)), before)
    assert np.array_equal(canvas.cut(tile, range(1), from_source=True), before)


def test_no_source_is_kept_for_nothing() -> None:
    canvas = Canvas(torch.zeros(1, 64, 64, 3), Size(64, 64), keep_source=False)
    with pytest.raises(ValueError, match="keep_source"):
        canvas.cut(tile_of(canvas.size, (0, 0)), range(1), from_source=True)


def test_a_cut_is_the_crop_resized_by_pillow() -> None:
    size = Size(320, 320)
    image = noise(2, 320, 320, 3)
    tile = tile_of(size, (2, 2))
    assert tile.window.crop.size != tile.window.size
    cut = Canvas(torch.from_numpy(image), size).cut(tile, range(1, 2))
    whole = Image.fromarray(quantise(image)[1])
    assert np.array_equal(cut[0], whole.crop(tile.window.crop).resize(tile.window.size, Image.Resampling.LANCZOS))
    assert cut.dtype == np.uint8 and cut.flags.c_contiguous


def test_a_blend_changes_what_it_touches_in_its_frames_alone() -> None:
    size = Size(320, 320)
    canvas = Canvas(torch.from_numpy(noise(3, 320, 320, 3)), size)
    before = canvas.result().clone()
    tile = tile_of(size, (2, 1))
    canvas.blend(tile, range(1, 3), noise_8bit(2, tile.window.size.height, tile.window.size.width, 3))
    changed = (canvas.result() != before).any(dim=-1)
    touch = tile.touch
    assert not changed[0].any()
    for frame in (1, 2):
        assert changed[frame, touch.y1 + 20, touch.x1 + 20]
        changed[frame, touch.y1 : touch.y2, touch.x1 : touch.x2] = False
    assert not changed.any()


@pytest.mark.parametrize("made", [(80, 80), (72, 88), (7, 5)])
def test_a_tile_of_any_size_is_fitted_to_its_crop(made: tuple[int, int]) -> None:
    size = Size(64, 64)
    image = noise(1, 64, 64, 3)
    canvas = Canvas(torch.from_numpy(image), size)
    tile = tile_of(size, (0, 0), mask_blur=0)  # as large as the canvas, and without a soft edge
    pixels = noise_8bit(1, *made, 3)
    canvas.blend(tile, range(1), pixels)
    expected = Image.fromarray(pixels[0]).resize(size, Image.Resampling.LANCZOS)
    assert np.array_equal(canvas.result()[0].numpy(), unit(np.asarray(expected)))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 80, 80, 3), np.uint8),
        np.zeros((2, 80, 80, 4), np.uint8),
        np.zeros((2, 80, 80, 3), np.float32),
        np.zeros((2, 0, 80, 3), np.uint8),
        np.zeros((80, 80, 3), np.uint8),
    ],
)
def test_a_result_that_is_no_such_tile_is_refused(pixels: np.ndarray) -> None:
    canvas = Canvas(torch.zeros(2, 128, 128, 3), Size(128, 128))
    with pytest.raises(InvalidInput, match="2 frames"):
        canvas.blend(tile_of(canvas.size, (0, 0)), range(2), pixels)
    assert not canvas.result().any()


def test_float_depth_mixes_by_the_mask_and_cuts_nothing_off() -> None:
    size = Size(320, 320)
    image = 3 * noise(1, 320, 320, 3) - 1
    image[0, 5, 5, 0] = np.nan
    canvas = Canvas(torch.from_numpy(image), size, "float")
    below = np.nan_to_num(image[0])
    assert np.array_equal(canvas.result()[0].numpy(), below)
    tile = tile_of(size, (1, 1))
    crop, touch = tile.window.crop, tile.touch
    pixels = 5 * noise(1, crop.height, crop.width, 3, seed=1) - 2
    canvas.blend(tile, range(1), pixels)
    alpha = np.zeros((320, 320, 1), np.float32)
    alpha[touch.y1 : touch.y2, touch.x1 : touch.x2, 0] = np.asarray(tile.mask.alpha(touch), np.float32) / 255
    over = np.zeros_like(below)
    over[crop.y1 : crop.y2, crop.x1 : crop.x2] = pixels[0]
    assert np.array_equal(canvas.result()[0].numpy(), below * (1 - alpha) + over * alpha)
    assert canvas.result().max() > 2


def test_float_depth_cuts_what_is_there_bit_for_bit() -> None:
    size = Size(128, 128)
    image = 3 * noise(1, 128, 128, 3) - 1
    tile = tile_of(size, (0, 0))
    assert tile.window.crop.size == tile.window.size
    cut = Canvas(torch.from_numpy(image), size, "float").cut(tile, range(1))
    crop = tile.window.crop
    assert cut.dtype == np.float32
    assert np.array_equal(cut, image[:, crop.y1 : crop.y2, crop.x1 : crop.x2])


def test_undefined_pixels_of_a_tile_do_not_spread_in_float_depth() -> None:
    canvas = Canvas(torch.zeros(1, 64, 64, 3), Size(64, 64), "float")
    pixels = np.full((1, 80, 80, 3), np.nan, np.float32)
    canvas.blend(tile_of(canvas.size, (0, 0)), range(1), pixels)
    assert torch.isfinite(canvas.result()).all()


def test_a_group_of_tiles_lies_frame_by_frame() -> None:
    size = Size(256, 64)
    image = torch.from_numpy(noise(2, 64, 256, 3))
    group = tasks_of(size, tile_batch=3)[0]
    assert len(group.tiles) == 3
    canvas = Canvas(image, size)
    pixels = cut_task(canvas, group, range(2))
    single = [canvas.cut(tile, range(frame, frame + 1))[0] for frame in range(2) for tile in group.tiles]
    assert np.array_equal(pixels, np.stack(single))
    redrawn = noise_8bit(*pixels.shape)
    blend_task(canvas, group, range(2), redrawn)
    other = Canvas(image, size)
    for place, tile in enumerate(group.tiles):
        for frame in range(2):
            number = frame * len(group.tiles) + place
            other.blend(tile, range(frame, frame + 1), redrawn[number : number + 1])
    assert torch.equal(canvas.result(), other.result())


def test_frames_one_by_one_give_the_bits_of_all_at_once() -> None:
    size = Size(128, 128)
    image = torch.from_numpy(noise(3, 128, 128, 3))
    at_once, singly = Canvas(image, size), Canvas(image, size)
    for task in tasks_of(size):
        pixels = cut_task(at_once, task, range(3))
        blend_task(at_once, task, range(3), 255 - pixels)
        for frame in range(3):
            part = cut_task(singly, task, range(frame, frame + 1))
            assert np.array_equal(part[0], pixels[frame])
            blend_task(singly, task, range(frame, frame + 1), 255 - part)
    assert torch.equal(at_once.result(), singly.result())


def test_overshoot_is_clamped_on_request() -> None:
    canvas = Canvas(torch.full((1, 64, 64, 3), 1.02), Size(64, 64), clamp=True)
    assert torch.equal(canvas.result(), torch.ones(1, 64, 64, 3))
    assert (canvas.cut(tile_of(canvas.size, (0, 0)), range(1), from_source=True) == 255).all()


def test_a_small_picture_of_a_frame() -> None:
    image = torch.zeros(2, 64, 200, 3)
    image[1] = 3.0
    canvas = Canvas(image, Size(200, 64), "float")
    picture = canvas.picture(1, 100)
    assert picture.mode == "RGB"
    assert picture.size == (100, 32)
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    assert canvas.picture(0, 1000).size == (200, 64)
    assert max(canvas.picture(0, 99).size) <= 99
