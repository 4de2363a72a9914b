"""Nodes for the benchmarks: they make data, wait for each other, and write down when they were reached.

Loaded only into the benchmarks' own fleets. Times are `time.monotonic`, which all processes of a machine share on Linux.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import comfy.utils
import torch
from comfy_api.latest import ComfyExtension, io

from . import loop_probe, tile_model

BARRIER_TIMEOUT_S = 60.0
SEEDS = 2**20
"""So many seeds in a row are told apart by a float32."""


def _folder() -> Path:
    return Path(os.environ["FLOTILLA_BENCH_DIR"])


def stamp(run: str, place: str) -> None:
    """Writes the present time as ``<run>.<place>.<pid>.json``."""
    path = _folder() / f"{run}.{place}.{os.getpid()}.json"
    path.write_text(json.dumps({"monotonic_s": time.monotonic()}), encoding="utf-8")


class BenchFrames(io.ComfyNode):
    """Float32 frames [frames, height, width, 3] of noise; made once per seed and kept by the host's cache."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchFrames",
            category="flotilla/bench",
            inputs=[
                io.Int.Input("seed", min=0, max=2**63),
                io.Int.Input("frames", min=1, max=10_000),
                io.Int.Input("width", min=1, max=16_384),
                io.Int.Input("height", min=1, max=16_384),
            ],
            outputs=[io.Image.Output("images")],
        )

    @classmethod
    def execute(cls, seed: int, frames: int, width: int, height: int) -> io.NodeOutput:
        generator = torch.Generator().manual_seed(seed)
        return io.NodeOutput(torch.rand(frames, height, width, 3, generator=generator))


class BenchBarrier(io.ComfyNode):
    """Lets its input pass when ``parties`` processes have reached it in this run, and stamps that moment."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchBarrier",
            category="flotilla/bench",
            inputs=[io.Image.Input("images"), io.String.Input("run"), io.Int.Input("parties", min=1, max=64)],
            outputs=[io.Image.Output("images")],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, run: str, parties: int) -> io.NodeOutput:
        stamp(run, "ready")
        give_up_s = time.monotonic() + BARRIER_TIMEOUT_S
        while len(list(_folder().glob(f"{run}.ready.*.json"))) < parties:
            if time.monotonic() > give_up_s:
                raise TimeoutError("the other participants did not reach the barrier")
            time.sleep(0.0005)
        stamp(run, "entered")
        return io.NodeOutput(images)


class BenchSteps(io.ComfyNode):
    """Lets its input pass after ``delay_s`` seconds of ``steps`` reported steps, changed so that no two seeds give the same."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchSteps",
            category="flotilla/bench",
            inputs=[
                io.Image.Input("images"),
                io.Int.Input("seed", min=0, max=2**63),
                io.Float.Input("delay_s", min=0.0, max=600.0),
                io.Int.Input("steps", min=1, max=10_000),
            ],
            outputs=[io.Image.Output("images")],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, seed: int, delay_s: float, steps: int) -> io.NodeOutput:
        bar = comfy.utils.ProgressBar(steps)
        for step in range(1, steps + 1):
            time.sleep(delay_s / steps)
            bar.update_absolute(step)
        changed = images.clone()
        changed[0, 0, 0, 0] = float(seed % SEEDS)
        return io.NodeOutput(changed)


class BenchArrived(io.ComfyNode):
    """Stamps the moment at which its input is there."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchArrived",
            category="flotilla/bench",
            is_output_node=True,
            inputs=[io.Image.Input("images"), io.String.Input("run")],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, run: str) -> io.NodeOutput:
        stamp(run, "arrived")
        return io.NodeOutput(ui={"text": [str(list(images.shape))]})


class BenchExtension(ComfyExtension):
    """The pack."""

    async def on_load(self) -> None:
        loop_probe.register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [BenchFrames, BenchBarrier, BenchSteps, BenchArrived, *tile_model.NODES]


async def comfy_entrypoint() -> BenchExtension:
    return BenchExtension()
