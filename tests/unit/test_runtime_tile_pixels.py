"""The real redraw, spread over participants: the same pixels, whoever computes which tile, in whatever order."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from fakes.master import Master, until
from fakes.upscaling import Upscaling
from flotilla.upscale.canvas import Canvas
from flotilla.upscale.geometry import Size
from flotilla.upscale.one_tile import Sampling
from flotilla.upscale.redraw_work import RedrawWork
from flotilla.upscale.tasks import INDEPENDENT, MODES, PARITY_MODES, SEAM_HALF_CROSS, SEAM_NONE, Layout, SeamFix
from flotilla.upscale.work import PIXELS, Models, Values, result_of
from flotilla.workers import messages as m

SIZE = Size(88, 64)
SAMPLING = Sampling(seed=1, steps=2, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=0.5, tiled_decode=False)


class Drawn(RedrawWork):
    """Redraws without a model: every pixel depends on others of its tile."""

    def compute(self, place: int, models: Models, values: Values) -> torch.Tensor:
        return drawn(values)


def drawn(values: Values) -> torch.Tensor:
    given = values[PIXELS].data
    assert isinstance(given, torch.Tensor)
    turned = given.roll((3, 5), dims=(1, 2))
    return 255 - turned if given.dtype == torch.uint8 else 1.0 - turned * 0.9


def work_of(mode: str, seams: str, depth: str, *, frames: int = 1, chunk: int = 1) -> Drawn:
    image = torch.rand(frames, SIZE.height, SIZE.width, 3, generator=torch.Generator().manual_seed(5))
    layout = Layout(
        canvas=SIZE,
        tile=Size(24, 24),
        padding=8,
        mask_blur=3,
        uniform=True,
        mode=mode,
        seam_fix=SeamFix(seams, 16, 2, 8),
    )
    canvas = Canvas(image, SIZE, "8bit" if depth == "8bit" else "float", keep_source=mode == INDEPENDENT)
    chunks = [range(start, min(start + chunk, frames)) for start in range(0, frames, chunk)]
    return Drawn(canvas, layout, SAMPLING, source=SIZE, chunks=chunks)


def alone(work: Drawn) -> torch.Tensor:
    """What one computer makes of it."""
    ready = work.start()
    while ready:
        place = heapq.heappop(ready)
        for one in work.arrived(place, result_of(drawn(work.cut(place)), "")):
            heapq.heappush(ready, one)
    assert work.is_over
    return work.result()


@pytest.fixture
async def master(tmp_path: Path) -> AsyncIterator[Master]:
    made = Master(tmp_path)
    await made.linked()
    yield made
    await made.close()


async def worker(up: Upscaling, worker_id: str, leases: asyncio.Queue[m.Lease], chance: random.Random) -> None:
    """Takes its time, returns any of the tiles that it has in hand, some twice."""
    while True:
        held = [await leases.get()]
        for _ in range(chance.randrange(20)):
            await asyncio.sleep(0)
        while not leases.empty():
            held.append(leases.get_nowait())
        chance.shuffle(held)
        for lease in held:
            made = drawn(up.pixels(worker_id, lease))
            report = up.master.finish_with(lease, result_of(made, up.inputs_of(lease)["made_of"]))
            for _ in range(chance.choice((1, 1, 2))):
                await up.master.end(worker_id).send(report)


async def listener(up: Upscaling, worker_id: str, leases: asyncio.Queue[m.Lease]) -> None:
    """What the worker is sent."""
    while True:
        message = await up.master.end(worker_id).receive()
        if isinstance(message, m.Lease):
            leases.put_nowait(message)


async def node(up: Upscaling) -> None:
    """The master's own part."""
    while not up.stage.is_over:
        await up.compute(*await up.take())


CASES = [(mode, seams, "8bit") for mode in MODES for seams in (SEAM_NONE, SEAM_HALF_CROSS)]
CASES += [(mode, SEAM_HALF_CROSS, "float") for mode in MODES if mode not in PARITY_MODES]


@pytest.mark.parametrize(("mode", "seams", "depth"), [case for case in CASES if case[:2] != ("none", SEAM_NONE)])
async def test_the_pixels_are_those_of_one_computer(master: Master, mode: str, seams: str, depth: str) -> None:
    expected = alone(work_of(mode, seams, depth))
    await spread(master, work := work_of(mode, seams, depth))
    assert torch.equal(work.result(), expected)


async def test_frames_pass_apart_from_each_other(master: Master) -> None:
    expected = alone(work_of("mosaic", SEAM_NONE, "8bit", frames=3, chunk=2))
    await spread(master, work := work_of("mosaic", SEAM_NONE, "8bit", frames=3, chunk=2))
    assert torch.equal(work.result(), expected)


async def spread(master: Master, work: Drawn) -> None:
    """Two workers and the master do it."""
    up = Upscaling.post(master)
    await up.begin_with(work)
    chance = random.Random(7)
    parts = [node(up)]
    for one in ("w1", "w2"):
        leases: asyncio.Queue[m.Lease] = asyncio.Queue()
        parts += [listener(up, one, leases), worker(up, one, leases, chance)]
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await until(lambda: up.stage.is_over or any(task.done() for task in tasks))
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert up.stage.is_over, outcomes
    up.stage.check()
    await up.end()
    assert up.state() == "done"
