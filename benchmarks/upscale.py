"""How well the tiles of an upscale are shared out: time against the lower bound, bytes moved, idle time.

    python benchmarks/upscale.py [--canvas 4096 ...] [--tile 512] [--participants 1 2 3 4] [--modes mosaic ...] [--tile-s 0.5] [--runs 3]

A tile's sampling waits ``--tile-s`` seconds and computes next to nothing, so that several instances on one machine do not
slow each other down; cutting, sending and blending are real. For each case the table says how long it took from the
first lease to the last result, the lower bound max(critical path, ceil(tiles / participants)) in tile times, their ratio,
the megabytes that went to and fro, and for how long each participant had nothing to compute meanwhile.
"""

from __future__ import annotations

import argparse
import importlib
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
importlib.import_module("loader").load_package()

from flotilla.upscale.geometry import Size  # noqa: E402
from flotilla.upscale.order import order_of  # noqa: E402
from flotilla.upscale.tasks import Layout, plan_tasks  # noqa: E402

from benchmarks.client import call  # noqa: E402
from devtools.demo import UNET_NAME  # noqa: E402
from devtools.fleet import Fleet  # noqa: E402

PADDING_PX, BLUR_PX = 32, 8
STEPS = 2
MB = 1e6
COLOURS = 3
ENDS_WITHIN_S = 900.0
MODES = ("mosaic", "independent", "chess", "linear")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--canvas", type=int, nargs="+", default=[4096])
    parser.add_argument("--tile", type=int, nargs="+", default=[512])
    parser.add_argument("--participants", type=int, nargs="+", default=[3])
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--tile-s", type=float, default=0.5)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print(
        f"{'mode':<12} {'canvas':>6} {'tile':>5} {'part.':>5} {'tiles':>5} {'path':>5} {'bound':>6}   "
        f"{'time s (min/median/max)':<24} {'bound/time':>10}  {'MB':>7}   idle s by participant"
    )
    with tempfile.TemporaryDirectory() as folder:
        env = {"FLOTILLA_BENCH_DIR": folder}
        nodes = [ROOT / "benchmarks" / "bench_nodes", ROOT / "tests" / "kit_nodes"]
        workers = max(options.participants) - 1
        with Fleet(workers=workers, extra_nodes=nodes, env=env, threads=1) as fleet:
            salt = 0
            for canvas_px in options.canvas:
                for tile_px in options.tile:
                    for count in options.participants:
                        use(fleet, count - 1)
                        for mode in options.modes:
                            salt += 1
                            show(fleet, mode, canvas_px, tile_px, count, options, salt)
    return 0


def use(fleet: Fleet, workers: int) -> None:
    """Enables so many workers, and waits for their links."""
    url = f"{fleet.master.url}/distributed/v2/workers"
    for place, worker in enumerate(fleet.workers):
        call(f"{url}/{worker.id}", {"enabled": place < workers}, method="PATCH")
    give_up_s = time.monotonic() + 60.0
    while sum(entry["state"] == "online" for entry in call(url)["workers"]) != workers:
        if time.monotonic() > give_up_s:
            raise RuntimeError("the workers did not come online")
        time.sleep(0.1)


def show(
    fleet: Fleet, mode: str, canvas_px: int, tile_px: int, count: int, options: argparse.Namespace, salt: int
) -> None:
    tiles, path = bounds(mode, canvas_px, tile_px)
    bound_s = max(path, math.ceil(tiles / count)) * options.tile_s
    runs = []
    for number in range(options.runs):
        seed = salt * 1_000 + number
        runs.append(
            one_run(fleet.master.url, workflow(mode, canvas_px, tile_px, options.tile_s, seed), alone=count == 1)
        )
    times = [run["seconds"] for run in runs]
    middle = min(runs, key=lambda run: abs(run["seconds"] - statistics.median(times)))
    idle = " ".join(f"{name} {seconds:.2f}" for name, seconds in middle["idle"].items())
    spread = f"{min(times):.2f} / {statistics.median(times):.2f} / {max(times):.2f}"
    print(
        f"{mode:<12} {canvas_px:>6} {tile_px:>5} {count:>5} {tiles:>5} {path:>5} {bound_s:>6.2f}   {spread:<24} "
        f"{bound_s / statistics.median(times):>10.3f}  {middle['moved'] / MB:>7.1f}   {idle}",
        flush=True,
    )


def bounds(mode: str, canvas_px: int, tile_px: int) -> tuple[int, int]:
    """Tiles of the redraw, and the longest chain of them that wait for each other."""
    layout = Layout(Size(canvas_px, canvas_px), Size(tile_px, tile_px), PADDING_PX, BLUR_PX, True, mode)
    tasks = plan_tasks(layout)
    return len(tasks), order_of(tasks).critical_path


def one_run(master: str, prompt: dict[str, Any], *, alone: bool) -> dict[str, Any]:
    """Runs the prompt; seconds from the first lease to the last result (of the whole prompt if the master is ``alone``,
    where there is no job), idle seconds by participant, bytes moved."""
    prompt_id = call(f"{master}/prompt", {"prompt": prompt})["prompt_id"]
    give_up_s = time.monotonic() + ENDS_WITHIN_S
    while call(f"{master}/history/{prompt_id}").get(prompt_id) is None:
        if time.monotonic() > give_up_s:
            raise RuntimeError("the upscale did not end")
        time.sleep(0.05)
    status = call(f"{master}/history/{prompt_id}")[prompt_id]["status"]
    if status["status_str"] != "success":
        raise RuntimeError(str(status)[:4000])
    if alone:
        return {"seconds": stage_seconds(status), "idle": {}, "moved": 0.0}
    url = f"{master}/distributed/v2/jobs/{prompt_id}"
    while (job := call(url))["ended_s"] is None:
        time.sleep(0.05)
    return measured(job)


def stage_seconds(status: dict[str, Any]) -> float:
    moments = {name: data["timestamp"] for name, data in status["messages"]}
    return (moments["execution_success"] - moments["execution_start"]) / 1_000


def measured(job: dict[str, Any]) -> dict[str, Any]:
    attempts = [attempt for item in job["items"] for attempt in item["attempts"]]
    began_s = min(attempt["leased_s"] for attempt in attempts)
    ended_s = max(attempt["ended_s"] for attempt in attempts)
    busy: dict[str, float] = {}
    for attempt in attempts:
        if attempt["started_s"] is not None:
            busy.setdefault(attempt["participant"], 0.0)
            busy[attempt["participant"]] += attempt["ended_s"] - attempt["started_s"]
    remote = [item for item in job["items"] if item["participant"] != "master"]
    moved = 2.0 * sum(item["size_bytes"] or 0 for item in remote)  # as many bytes go as come back
    return {
        "seconds": ended_s - began_s,
        "idle": {one: ended_s - began_s - seconds for one, seconds in sorted(busy.items())},
        "moved": moved,
    }


def workflow(mode: str, canvas_px: int, tile_px: int, tile_s: float, seed: int) -> dict[str, Any]:
    return {
        "image": {
            "class_type": "BenchFrames",
            "inputs": {"seed": 7, "frames": 1, "width": canvas_px, "height": canvas_px},
        },
        "model": {"class_type": "UNETLoader", "inputs": {"unet_name": UNET_NAME, "weight_dtype": "default"}},
        "vae": {"class_type": "BenchVAE", "inputs": {}},
        "wish": {"class_type": "KitConditioning", "inputs": {"boats": 1, "time": "day"}},
        "sampler": {"class_type": "BenchSampler", "inputs": {"step_s": tile_s / STEPS}},
        "sigmas": {"class_type": "BenchSigmas", "inputs": {"steps": STEPS}},
        "upscale": {
            "class_type": "UltimateSDUpscaleDistributed",
            "inputs": {
                "upscaled_image": ["image", 0],
                "model": ["model", 0],
                "positive": ["wish", 0],
                "negative": ["wish", 0],
                "vae": ["vae", 0],
                "seed": seed,
                "steps": STEPS,
                "cfg": 1.0,
                "sampler_name": "euler",
                "scheduler": "simple",
                "denoise": 1.0,
                "tile_width": tile_px,
                "tile_height": tile_px,
                "padding": PADDING_PX,
                "mask_blur": BLUR_PX,
                "force_uniform_tiles": True,
                "tiled_decode": False,
                "mode": mode,
                "custom_sampler": ["sampler", 0],
                "custom_sigmas": ["sigmas", 0],
            },
        },
        "end": {"class_type": "BenchArrived", "inputs": {"images": ["upscale", 0], "run": f"upscale{seed}"}},
    }


if __name__ == "__main__":
    raise SystemExit(main())
