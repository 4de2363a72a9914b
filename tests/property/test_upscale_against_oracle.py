"""The engine gives the same bits as an upscale on whole canvases, in the serial order and in any that the board allows."""

from __future__ import annotations

import random
import zlib

import numpy as np
import pytest
import torch
from flotilla.upscale.canvas import Canvas, blend_task, cut_task, quantise
from flotilla.upscale.geometry import Size, canvas_size
from flotilla.upscale.order import Board, order_of
from flotilla.upscale.tasks import Layout, SeamFix, Task, plan_tasks
from hypothesis import example, given
from hypothesis import strategies as st
from property.upscale_oracle import Wishes, upscale

ARRIVAL_ORDERS = 2


def sample(pixels: np.ndarray, stage: str) -> np.ndarray:
    """In a model's place: every pixel of the result depends on every bit of what it is given, and on the batch.

    Neighbours show through, so that blending matters; some values overshoot; sides are those that a decoder can make.
    """
    chance = np.random.default_rng(zlib.crc32(pixels.tobytes(), zlib.crc32(f"{stage} {pixels.shape}".encode())))
    mixed = 0.6 * pixels.astype(np.float32) / 255 + 0.3 * np.roll(pixels, (3, -5), (1, 2)).astype(np.float32) / 255
    mixed += chance.normal(0, 0.1, pixels.shape).astype(np.float32)
    height, width = (side // 8 * 8 if side >= 8 else side for side in pixels.shape[1:3])
    return mixed[:, :height, :width]


def image_of(batch: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """Slopes with noise over them, a little outside of 0 to 1, one value undefined."""
    chance = np.random.default_rng(seed)
    slope = np.linspace(0, 1, size[0] * size[1], dtype=np.float32).reshape(1, size[1], size[0], 1)
    pixels = slope + chance.normal(0, 0.05, (batch, size[1], size[0], 3)).astype(np.float32)
    pixels[0, 0, 0, 0] = np.nan
    return torch.from_numpy(pixels)


def layout_of(wishes: Wishes, canvas: Size) -> Layout:
    return Layout(
        canvas=canvas,
        tile=Size(*wishes.tile),
        padding=wishes.padding,
        mask_blur=wishes.mask_blur,
        uniform=wishes.uniform,
        mode=wishes.mode,
        seam_fix=SeamFix(wishes.seam_mode, wishes.seam_width, wishes.seam_blur, wishes.seam_padding),
        tile_batch=wishes.tile_batch,
    )


def redrawn(task: Task, pixels: np.ndarray) -> np.ndarray:
    return quantise(sample(pixels, task.stage))


def in_order(canvas: Canvas, tasks: tuple[Task, ...]) -> None:
    frames = range(canvas.batch)
    for task in tasks:
        blend_task(canvas, task, frames, redrawn(task, cut_task(canvas, task, frames)))


def in_any_order(canvas: Canvas, tasks: tuple[Task, ...], chance: random.Random) -> None:
    """Ready tasks are cut and their results arrive whenever chance says, some of them twice."""
    frames = range(canvas.batch)
    board = Board(order_of(tasks))
    ready = list(board.start())
    under_way: dict[int, np.ndarray] = {}
    here: dict[int, np.ndarray] = {}
    while not board.is_over:
        assert ready or under_way, "nothing is ready, and yet it is not over"
        if ready and (not under_way or chance.random() < 0.6):
            number = ready.pop(chance.randrange(len(ready)))
            under_way[number] = cut_task(canvas, tasks[number], frames)
            continue
        number = chance.choice(sorted(under_way))
        pixels = under_way.pop(number)
        again = cut_task(canvas, tasks[number], frames)
        assert np.array_equal(pixels, again), "what a task is cut from has changed while it was under way"
        here[number] = redrawn(tasks[number], again)
        for blended in board.arrived(number):
            blend_task(canvas, tasks[blended], frames, here.pop(blended))
            ready += board.blended(blended)
        if chance.random() < 0.2:
            assert board.arrived(number) == []
    assert not here and not ready


def compare(batch: int, size: tuple[int, int], scale: float, wishes: Wishes) -> None:
    image = image_of(batch, size)
    expected = upscale(image.numpy(), wishes, sample, scale)
    wanted = canvas_size(*size, scale)
    tasks = plan_tasks(layout_of(wishes, wanted))
    canvas = Canvas(image, wanted)
    in_order(canvas, tasks)
    np.testing.assert_array_equal(canvas.result().numpy(), expected)
    for seed in range(ARRIVAL_ORDERS):
        canvas = Canvas(image, wanted)
        in_any_order(canvas, tasks, random.Random(seed))
        np.testing.assert_array_equal(canvas.result().numpy(), expected)


SEAM_MODES = ("None", "Band Pass", "Half Tile", "Half Tile + Intersections")
amounts = st.one_of(st.sampled_from([0, 1, 8, 16, 32, 256]), st.integers(0, 256))


@st.composite
def wishes_of_any_kind(draw: st.DrawFn) -> Wishes:
    mode = draw(st.sampled_from(["linear", "chess", "none", "mosaic", "independent"]))
    side = st.integers(64, 96) if mode in ("linear", "chess", "none") else st.sampled_from([64, 72, 80, 88, 96])
    return Wishes(
        tile=(draw(side), draw(side)),
        padding=draw(amounts),
        mask_blur=draw(amounts),
        uniform=draw(st.booleans()),
        mode=mode,
        tile_batch=draw(st.integers(1, 4)),
        seam_mode=draw(st.sampled_from(SEAM_MODES)),
        seam_width=draw(st.integers(2, 80)),
        seam_blur=draw(amounts),
        seam_padding=draw(st.one_of(st.sampled_from([0, 16]), st.integers(0, 256))),
    )


@given(
    batch=st.sampled_from([1, 1, 3]),
    size=st.tuples(st.integers(40, 260), st.integers(40, 260)),
    scale=st.sampled_from([1.0, 1.0, 1.5, 0.7]),
    wishes=wishes_of_any_kind(),
)
@example(
    batch=3, size=(256, 200), scale=1.0, wishes=Wishes((64, 72), mode="chess", tile_batch=4, seam_mode="Half Tile")
)
@example(batch=1, size=(72, 264), scale=1.0, wishes=Wishes((96, 96), padding=256, mask_blur=256, uniform=False))
@example(batch=1, size=(200, 200), scale=1.0, wishes=Wishes((96, 96), padding=0, mask_blur=0, seam_mode="Band Pass"))
def test_any_upscale_has_the_bits_of_the_oracle(
    batch: int, size: tuple[int, int], scale: float, wishes: Wishes
) -> None:
    compare(batch, size, scale, wishes)


@pytest.mark.parametrize("seam_mode", SEAM_MODES)
@pytest.mark.parametrize("mode", ["linear", "chess", "none", "mosaic", "independent"])
@pytest.mark.parametrize("uniform", [True, False])
def test_every_mode_with_every_seam_fix(mode: str, seam_mode: str, uniform: bool) -> None:
    wishes = Wishes((72, 64), padding=12, mask_blur=6, uniform=uniform, mode=mode, seam_mode=seam_mode, seam_width=20)
    compare(1, (200, 152), 1.0, wishes)


@pytest.mark.parametrize("tile_batch", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", ["linear", "chess", "mosaic", "independent"])
def test_groups_of_tiles_over_a_batch(mode: str, tile_batch: int) -> None:
    compare(3, (200, 136), 1.0, Wishes((64, 64), padding=16, mode=mode, tile_batch=tile_batch, seam_mode="Band Pass"))


def test_the_golden_geometry_at_full_size() -> None:
    compare(1, (1800, 1400), 1.0, Wishes((512, 512), mode="chess"))
