"""What cutting a tile from the canvas and blending it costs, against the size of the canvas.

    python benchmarks/blend.py [--tiles 60] [--depth 8bit] [--huge] [--frames 1]

Square canvases of 2k, 4k and 8k pixels, with ``--huge`` 16k as well (about 3.5 GB of memory), all at the same time: in each
round one tile of each, so that what else the machine does meanwhile hits all of them alike. Tiles of 512 pixels, padding
32, blur 8, none of them at the rim, where tiles are smaller. Prints milliseconds, and the medians' ratio to the smallest
canvas, which must not pass 1.3 for a blend. Then how long each canvas took to make, and how much memory beside its tensor
(Linux only).
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
importlib.import_module("loader").load_package()

from flotilla.upscale.canvas import Canvas  # noqa: E402
from flotilla.upscale.geometry import Size, grid  # noqa: E402
from flotilla.upscale.tasks import Layout, Tile, plan_tasks  # noqa: E402

from benchmarks.collect import memory_kib, reset_peak  # noqa: E402

SIDES_PX = (2048, 4096, 8192)
HUGE_PX = 16384
TILE_PX, PADDING_PX, BLUR_PX = 512, 32, 8
BOUND = 1.3
MIB = 1 << 20
MS_PER_S = 1000


@dataclass
class Subject:
    """A canvas, its inner tiles, and the seconds that each step took."""

    side_px: int
    canvas: Canvas
    tiles: list[Tile]
    made_s: float
    extra_bytes: float
    cut_s: list[float] = field(default_factory=list)
    blend_s: list[float] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=60, help="rounds; each cuts and blends one tile of each canvas")
    parser.add_argument("--depth", choices=["8bit", "float"], default="8bit")
    parser.add_argument("--huge", action="store_true", help="a canvas of 16k as well")
    parser.add_argument("--frames", type=int, default=1, help="frames of each canvas, and in each step")
    options = parser.parse_args()
    sides = (*SIDES_PX, HUGE_PX) if options.huge else SIDES_PX
    subjects = [subject(side_px, options.frames, options.depth) for side_px in sides]
    chance = random.Random(0)
    for number in range(options.tiles + 1):
        for one in subjects:
            work(one, chance.choice(one.tiles), measured=number > 0)
    print(f"{options.depth}, {options.frames} frames, tile {TILE_PX}, padding {PADDING_PX}, blur {BLUR_PX}")
    print(f"{'ms per tile, ' + str(options.tiles) + ' tiles':<24} {'min':>9} {'median':>9} {'max':>9} {'to 2k':>9}")
    worst = max(table(subjects))
    for one in subjects:
        extra = "unknown" if one.extra_bytes < 0 else f"{one.extra_bytes / MIB:,.0f} MiB"
        print(f"{one.side_px:>6} px: made in {one.made_s:.2f} s, peak memory beside its tensor {extra}")
    print(f"a blend costs at most {worst:.2f} times that on the smallest canvas; {BOUND} are allowed")
    return 0 if worst <= BOUND else 1


def subject(side_px: int, frames: int, depth: str) -> Subject:
    """A canvas of one shade per column: what is in it has no influence, and its input takes no memory."""
    size = Size(side_px, side_px)
    image = torch.rand(1, 1, side_px, 3).expand(frames, side_px, side_px, 3)
    layout = Layout(size, Size(TILE_PX, TILE_PX), PADDING_PX, BLUR_PX, uniform=True, mode="linear")
    columns, rows = grid(size, layout.tile)
    tiles = [tile for task in plan_tasks(layout) for tile in task.tiles]
    before_kib = peak_kib(forget=True)
    began_s = time.perf_counter()
    canvas = Canvas(image, size, "8bit" if depth == "8bit" else "float", keep_source=False)
    made_s = time.perf_counter() - began_s
    output_bytes = frames * side_px * side_px * 3 * np.dtype(np.float32).itemsize
    extra_bytes = (peak_kib() - before_kib) * 1024 - output_bytes if before_kib else -1
    inner = [tile for tile in tiles if 0 < tile.xi < columns - 1 and 0 < tile.yi < rows - 1]
    return Subject(side_px, canvas, inner, made_s, extra_bytes)


def peak_kib(forget: bool = False) -> int:
    """The process's peak memory; with ``forget``, from now on. 0 where the system does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return 0
    if forget:
        reset_peak(os.getpid())
    return memory_kib(os.getpid(), "VmHWM")


def work(one: Subject, tile: Tile, measured: bool) -> None:
    """Cuts a tile, and blends what came of it."""
    frames = range(one.canvas.batch)
    times = [time.perf_counter()]
    pixels = one.canvas.cut(tile, frames)
    times.append(time.perf_counter())
    one.canvas.blend(tile, frames, pixels[:, ::-1])
    times.append(time.perf_counter())
    if measured:
        one.cut_s.append(times[1] - times[0])
        one.blend_s.append(times[2] - times[1])


def table(subjects: list[Subject]) -> list[float]:
    """Prints the lines of all canvases; returns the ratios of their blends to the first one's."""
    ratios = []
    for title in ("cut", "blend", "both"):
        base_s = 0.0
        for one in subjects:
            both_s = [cut_s + blend_s for cut_s, blend_s in zip(one.cut_s, one.blend_s, strict=True)]
            seconds = {"cut": one.cut_s, "blend": one.blend_s, "both": both_s}[title]
            median_s = statistics.median(seconds)
            base_s = base_s or median_s
            figures = [value * MS_PER_S for value in (min(seconds), median_s, max(seconds))]
            line = " ".join(f"{value:9.2f}" for value in figures)
            print(f"{title}, {one.side_px} px".ljust(24), line, f"{median_s / base_s:9.2f}")
            if title == "blend":
                ratios.append(median_s / base_s)
    return ratios


if __name__ == "__main__":
    raise SystemExit(main())
