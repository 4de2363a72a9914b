"""`dev.py demo`: pictures from a master and two workers, and the proof that a single server makes the same ones.

Every row of the contact sheet is one txt2img workflow, posted to the master like any client would. Flotilla makes of it
one item per participant, item k with seed + k. The same seeds then run on a plain ComfyUI without Flotilla, and the
saved pictures are compared pixel by pixel.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from .demo_client import Client, DemoError, Prompt
from .demo_sheet import Tile, contact_sheet, save
from .env import say
from .fleet import Fleet, FleetError
from .fleet_cli import Ended, describe, end_on_signals, ignore_signals, wait_for_end
from .hosts import resolve
from .paths import DEV

KIT_NODES = "tests/kit_nodes"
SHEET_PATH = DEV / "demo" / "contact-sheet.png"

UNET_NAME = "flotilla_tiny.safetensors"
VAE_NAME = "flotilla_tiny_vae.safetensors"
SIZE_PX = 128
STEPS = 16
CFG = 2.0
FIRST_SEED = 1_000
PROMPT_TIMEOUT_S = 300.0
BAR_CELLS = 30

COLLECTOR, SAVER = "collect", "save"


@dataclass(frozen=True)
class Scene:
    """What a row of the sheet shows, and the seed of its first picture."""

    boats: int
    time: str
    seed: int

    @property
    def title(self) -> str:
        """The scene in words."""
        return f"{self.time}, {self.boats} boat{'s' if self.boats > 1 else ''}"


SCENES = (
    Scene(3, "day", FIRST_SEED),
    Scene(2, "dusk", 2 * FIRST_SEED),
    Scene(1, "night", 3 * FIRST_SEED),
    Scene(5, "dusk", 4 * FIRST_SEED),
)


@dataclass(frozen=True)
class Row:
    """One line of the table: an item, who made it, and whether a single server makes the same."""

    scene: Scene
    item: int
    seed: int
    participant: str
    seconds: float | None
    size_bytes: int | None
    identical: bool


def workflow(scene: Scene, distributed: bool, item: int = 0) -> Prompt:
    """The txt2img workflow of a scene: with Flotilla's two nodes, or plain with the seed of one item."""
    seed: list[Any] | int = ["seed", 0] if distributed else scene.seed + item
    prompt: Prompt = {
        "model": {"class_type": "UNETLoader", "inputs": {"unet_name": UNET_NAME, "weight_dtype": "default"}},
        "vae": {"class_type": "VAELoader", "inputs": {"vae_name": VAE_NAME}},
        "wish": {"class_type": "KitConditioning", "inputs": {"boats": scene.boats, "time": scene.time}},
        "none": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["wish", 0]}},
        "empty": {
            "class_type": "EmptySD3LatentImage",
            "inputs": {"width": SIZE_PX, "height": SIZE_PX, "batch_size": 1},
        },
        "sample": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["model", 0],
                "seed": seed,
                "steps": STEPS,
                "cfg": CFG,
                "sampler_name": "euler",
                "scheduler": "simple",
                "positive": ["wish", 0],
                "negative": ["none", 0],
                "latent_image": ["empty", 0],
                "denoise": 1.0,
            },
        },
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["vae", 0]}},
        SAVER: {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "flotilla-demo"}},
    }
    if distributed:
        prompt["seed"] = {"class_type": "DistributedSeed", "inputs": {"seed": scene.seed}}
        prompt[COLLECTOR] = {
            "class_type": "DistributedCollector",
            "inputs": {"images": ["decode", 0], "load_balance": False},
        }
        prompt[SAVER]["inputs"]["images"] = [COLLECTOR, 0]
    return prompt


class ProgressLine:
    """One line on stderr that shows how far all prompts are; on a file or pipe, only a line per finished prompt."""

    def __init__(self, total: int, node: str) -> None:
        self._total = total
        self._node = node
        self._shares: dict[str, float] = {}
        self._live = sys.stderr.isatty()

    def told(self, prompt_id: str, node: str, share: float) -> None:
        """Takes a progress message."""
        if node == self._node:
            self._shares[prompt_id] = max(share, self._shares.get(prompt_id, 0.0))
            self._draw("\r")

    def finished(self, prompt_id: str) -> None:
        """Takes the end of a prompt."""
        self._shares[prompt_id] = 1.0
        done = sum(share >= 1.0 for share in self._shares.values())
        if self._live:
            self._draw("\r" if done < self._total else "\n")
        else:
            say(f"  workflow {done} of {self._total} finished")

    def _draw(self, end: str) -> None:
        if self._live:
            share = sum(self._shares.values()) / self._total
            cells = round(share * BAR_CELLS)
            bar = "#" * cells + "." * (BAR_CELLS - cells)
            print(f"  [{bar}] {share:4.0%}", end=end, file=sys.stderr, flush=True)


async def _run_distributed(fleet: Fleet) -> tuple[list[list[Image.Image]], list[dict[str, Any]], float]:
    """Queues every scene on the master. Returns pictures and job by scene, and the seconds it took."""
    line = ProgressLine(len(SCENES), COLLECTOR)
    async with Client(fleet.master.url, line.told) as client:
        started_s = time.monotonic()
        prompt_ids = [await client.queue(workflow(scene, distributed=True)) for scene in SCENES]
        for prompt_id in prompt_ids:
            await client.finished(prompt_id, PROMPT_TIMEOUT_S)
            line.finished(prompt_id)
        took_s = time.monotonic() - started_s
        pictures = [await client.pictures(prompt_id) for prompt_id in prompt_ids]
        jobs = [await client.get(f"/distributed/v2/jobs/{prompt_id}") for prompt_id in prompt_ids]
    return pictures, jobs, took_s


async def _run_single(url: str, counts: Sequence[int]) -> tuple[list[list[Image.Image]], float]:
    """Makes the same pictures one by one on a plain server."""
    prompt_ids: list[list[str]] = []
    async with Client(url) as client:
        started_s = time.monotonic()
        for scene, count in zip(SCENES, counts, strict=True):
            plain = [workflow(scene, distributed=False, item=item) for item in range(count)]
            prompt_ids.append([await client.queue(prompt) for prompt in plain])
        for prompt_id in [prompt_id for row in prompt_ids for prompt_id in row]:
            await client.finished(prompt_id, PROMPT_TIMEOUT_S)
        took_s = time.monotonic() - started_s
        # One row after the other: a comprehension in a comprehension may await from Python 3.11 on only.
        found = [await _first_pictures(client, row) for row in prompt_ids]
    return found, took_s


async def _first_pictures(client: Client, prompt_ids: Sequence[str]) -> list[Image.Image]:
    return [(await client.pictures(prompt_id))[0] for prompt_id in prompt_ids]


def _same(first: Image.Image, second: Image.Image) -> bool:
    return first.size == second.size and np.array_equal(np.asarray(first), np.asarray(second))


def _rows(jobs: list[dict[str, Any]], pictures: list[list[Image.Image]], single: list[list[Image.Image]]) -> list[Row]:
    rows = []
    for scene, job, made, wanted in zip(SCENES, jobs, pictures, single, strict=True):
        names = {participant["id"]: participant["name"] for participant in job["participants"]}
        for entry, one, other in zip(job["items"], made, wanted, strict=True):
            rows.append(
                Row(
                    scene=scene,
                    item=entry["index"],
                    seed=scene.seed + entry["index"],
                    participant=names.get(entry["participant"], entry["participant"]),
                    seconds=entry.get("seconds"),
                    size_bytes=entry.get("size_bytes"),
                    identical=_same(one, other),
                )
            )
    return rows


def _table(rows: Sequence[Row]) -> str:
    lines = [f"{'scene':18} {'item':>4} {'seed':>6}  {'participant':12} {'seconds':>7} {'bytes':>9}  identical"]
    for row in rows:
        seconds = "-" if row.seconds is None else f"{row.seconds:.2f}"
        size = "-" if not row.size_bytes else f"{row.size_bytes:,}"
        verdict = "yes" if row.identical else "NO"
        lines.append(
            f"{row.scene.title:18} {row.item:4} {row.seed:6}  {row.participant:12} {seconds:>7} {size:>9}  {verdict}"
        )
    return "\n".join(lines)


def _check_counts(pictures: list[list[Image.Image]], jobs: list[dict[str, Any]]) -> None:
    for scene, made, job in zip(SCENES, pictures, jobs, strict=True):
        if len(made) != len(job["items"]):
            raise DemoError(f"The {scene.time} scene has {len(job['items'])} items, but {len(made)} pictures came.")


async def _show(fleet: Fleet, single_url: str) -> bool:
    """Runs, compares, prints and draws; returns whether every picture equals the single server's."""
    say(f"\nQueueing {len(SCENES)} workflows on the master ...")
    pictures, jobs, took_s = await _run_distributed(fleet)
    _check_counts(pictures, jobs)
    count = sum(len(made) for made in pictures)
    say("Making the same pictures on a single plain ComfyUI ...")
    single, single_s = await _run_single(single_url, [len(made) for made in pictures])
    rows = _rows(jobs, pictures, single)
    participants = len({row.participant for row in rows})
    identical = sum(row.identical for row in rows)
    print(f"\n{_table(rows)}\n")
    print(f"{count} pictures: {took_s:.1f} s on {participants} participants, {single_s:.1f} s on a single server.")
    print(f"{identical} of {count} are bit for bit what the single server made.")
    columns = []
    for scene, made in zip(SCENES, pictures, strict=True):
        own = [row for row in rows if row.scene == scene]
        columns.append(
            (
                scene.title.capitalize(),
                [
                    Tile(picture, row.item, row.seed, row.participant, row.identical)
                    for picture, row in zip(made, own, strict=True)
                ],
            )
        )
    title = f"{len(SCENES)} workflows on {participants} ComfyUI servers, {count} pictures in {took_s:.1f} s"
    note = f"{identical} of {count} pictures are, bit for bit, what a single ComfyUI makes from the same seeds."
    save(contact_sheet(columns, title, note), SHEET_PATH)
    print(f"Contact sheet: {SHEET_PATH}", flush=True)
    return identical == count


def run(options: argparse.Namespace) -> int:
    """Carries out `dev.py demo`; returns 0 only if every picture equals the single server's."""
    end_on_signals()
    fleet: Fleet | None = None
    try:
        started_s = time.monotonic()
        host = resolve(options.host, options.comfyui)
        fleet = Fleet(workers=options.workers, host=host, extra_nodes=[KIT_NODES], plain=["single"])
        say(f"Starting a master, {options.workers} workers and a plain server (ComfyUI {fleet.host.version}) ...")
        fleet.start()
        say(f"All answer after {time.monotonic() - started_s:.0f} s:\n{describe(fleet)}")
        identical = asyncio.run(_show(fleet, fleet.extras[0].url))
        if options.keep:
            fleet.extras[0].ask_to_stop()
            print(f"\nThe fleet stays up until Ctrl+C:\n{describe(fleet)}", flush=True)
            wait_for_end()
        return 0 if identical else 1
    except Ended:
        return 0 if options.keep else 130
    except (DemoError, FleetError, RuntimeError, OSError) as error:
        say(f"\nThe demo failed: {error}")
        return 1
    finally:
        ignore_signals()
        if fleet is not None:
            fleet.stop()
