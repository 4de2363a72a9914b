"""Run by `servers.on_host`: what the upscale nodes are to ComfyUI, and how they go through their tiles."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from comfy_execution.utils import CurrentNodeContext
from fakes.tile_stage import Told, small_spool
from fakes.tile_work import FakeWork
from flotilla.nodes import tiles
from flotilla.nodes.upscale import DistributedUpscale, UltimateSDUpscaleDistributed
from flotilla.nodes.upscale_flow import compute_alone, compute_in_job
from flotilla.nodes.upscale_inputs import Asked
from flotilla.runtime import context
from flotilla.transport.values import IMAGE, JSON, Value
from flotilla.upscale.work import ABOUT, Models, Values, made_of
from flotilla.utils.errors import JobFailed
from servers.on_host import report

CHAIN = [set(), {0}, {1}]
FORK = [set(), set(), {0, 1}]
MODELS = Models(model="model")
OLD = {
    "seed": 3,
    "steps": 20,
    "cfg": 8.0,
    "sampler_name": "euler",
    "scheduler": "normal",
    "denoise": 0.5,
    "tile_width": 512,
    "tile_height": 512,
    "padding": 32,
    "mask_blur": 8,
    "force_uniform_tiles": True,
    "tiled_decode": False,
}


class Breaking(FakeWork):
    """Cannot compute some places. ``stops`` is called before each."""

    def __init__(self, needs: list[set[int]], broken: set[int], stops: Callable[[], object] = int) -> None:
        super().__init__(needs)
        self.broken = broken
        self.stops = stops

    def compute(self, place: int, models: Models, values: Values) -> torch.Tensor:
        self.stops()
        if place in self.broken:
            raise ValueError(f"place {place} breaks")
        return super().compute(place, models, values)


def outcome(act: Callable[[], Any]) -> Any:
    """What it returns, or what it raises, in words."""
    try:
        return act()
    except BaseException as error:  # the host's interrupt is one
        return f"{type(error).__name__}: {error}"


# What the nodes are


def schema_of(node: Any) -> dict[str, Any]:
    schema = node.define_schema()
    return {
        "inputs": [[one.id, bool(one.optional)] for one in schema.inputs],
        "defaults": {one.id: one.default for one in schema.inputs if getattr(one, "default", None) is not None},
        "lazy": [one.id for one in schema.inputs if getattr(one, "lazy", False)],
    }


def unknown_models(node: Any) -> list[str]:
    """What it asks for outside of any job."""
    return list(node.check_lazy_status(image=torch.zeros(1, 8, 8, 3), model=None, vae="here", custom_sampler=None))


# Alone


def alone(needs: list[set[int]], broken: set[int], *, partial: bool = False) -> dict[str, Any]:
    work = Breaking(needs, broken)
    told = outcome(lambda: compute_alone(work, MODELS, "9", partial=partial))
    return {"told": told, "numbers": work.result()}


def interrupted_alone() -> dict[str, Any]:
    work = Breaking(CHAIN, set(), lambda: comfy.model_management.interrupt_current_processing(True))
    told = outcome(lambda: compute_alone(work, MODELS, "9", partial=True))
    comfy.model_management.interrupt_current_processing(False)
    return {"told": told.partition(":")[0], "numbers": work.result()}


# In a job


class Desk(Told):
    """Answers every ask with the first place that is ready and not given out, as if nobody else took part.

    What fails comes back once. ``after`` is called before each answer.
    """

    after: Callable[[], object] = int

    def begin(self, needs: Any) -> FakeWork:
        raise NotImplementedError

    def begin_with(self, work: FakeWork) -> None:
        self.given: list[int] = []
        self.run = self.stage.begin(work)

    def _ask(self) -> None:
        super()._ask()
        self.after()
        self.settle()
        ready = {*self.added[-1][1], *(place for places in self.ready for place in places)}
        again = [place for place, _, _ in self.failed if self.given.count(place) < 2]
        fresh = again or sorted(place for place in ready if place not in self.given)
        if fresh:
            self.given.append(fresh[0])
            self.stage.request(fresh[0], self.given.count(fresh[0]))


def in_job(folder: Path, work: FakeWork, models: Models | None, after: Callable[[], object] = int) -> dict[str, Any]:
    spool = small_spool(folder)
    desk = Desk(spool=spool)
    desk.after = after
    desk.begin_with(work)
    told = outcome(lambda: asyncio.run(compute_in_job(desk.stage, desk.run, models)))
    found = {
        "told": told,
        "numbers": work.result(),
        "given": desk.given,
        "failed": desk.failed,
        "abandoned": desk.abandoned,
        "waits": desk.stage.take_request(),
        "made_of": [values[ABOUT].data["made_of"] for _, _, values in desk.delivered],
        "delivered": [[index, attempt] for index, attempt, _ in desk.delivered],
    }
    desk.stage.finish(None)
    spool.close()
    return found


def mends() -> Breaking:
    """Its second place works at the second try."""
    work = Breaking(CHAIN, {1})
    work.stops = lambda: work.broken.discard(1) if work.cuts.count(1) > 1 else None
    return work


def ended(folder: Path) -> dict[str, Any]:
    """The job fails while the node is at its first tile."""
    spool = small_spool(folder)
    desk = Desk(spool=spool)
    work = Breaking(CHAIN, set(), lambda: desk.stage.finish(JobFailed("no more")))
    desk.begin_with(work)
    told = outcome(lambda: asyncio.run(compute_in_job(desk.stage, desk.run, MODELS)))
    spool.close()
    return {"told": told, "numbers": work.result()}


def expected_made_of() -> str:
    work = FakeWork(CHAIN)
    return made_of(work.cut(0), "9", work.root_inputs(0))


# What runs in workers, and what is packed for them


def packed(folder: Path, links: int) -> dict[str, Any]:
    """Nodes for so many values, and what they give when the host runs them."""
    spool = small_spool(folder)
    desk = Told(spool=spool)
    sources = {f"d{number}": (str(100 + number), 0) for number in range(links)}
    object.__setattr__(desk.stage.side, "data", sources)
    nodes, link = tiles.pack_nodes(desk.stage)
    made: dict[str, Any] = {}
    for node_id, node in nodes.items():
        inputs = {
            name: [made[source[0]] if source[0] in made else f"value of {source[0]}"]
            for name, source in node["inputs"].items()
        }
        made[node_id] = tiles.FlotillaPack.execute(**inputs).args[0]
    values = made[link[0]]
    spool.close()
    return {"nodes": len(nodes), "values": [value.data for value in values], "kinds": sorted({v.kind for v in values})}


def worker_nodes() -> dict[str, Any]:
    """They find what the master has sent, by the prompt that runs."""
    prepared: list[Mapping[str, Any]] = []
    sent = {"hash": {"value": Value(IMAGE, torch.full((1, 2, 2, 3), 0.5)), "other": Value(JSON, 3)}}
    context.install(
        context.Context(
            stage_of=lambda prompt_id, node_id: None,
            plan_of=lambda prompt_id: None,
            deliver=lambda prompt_id, values: None,
            input_values=lambda prompt_id, blob_hash: sent[blob_hash],
            prepared=lambda prompt_id, facts: prepared.append(facts),
        )
    )
    with CurrentNodeContext("prompt", "9"):
        image = tiles.FlotillaInput.execute(hash="hash", name="value").args[0]
        other = tiles.FlotillaInput.execute(hash="hash", name="other").args[0]
        tiles.FlotillaPrepare.execute(model="model")
    return {
        "image": float(image.mean()),
        "other": other,
        "constant": tiles.FlotillaConstant.execute(value=[1, "two"]).args[0],
        "prepared": prepared,
    }


def main(folder: Path) -> None:
    def place(name: str) -> Path:
        made = folder / name
        made.mkdir()
        return made

    def interrupt() -> None:
        comfy.model_management.interrupt_current_processing(True)

    stopped = in_job(place("stopped"), FakeWork(CHAIN), MODELS, interrupt)
    comfy.model_management.interrupt_current_processing(False)
    report(
        {
            "old node": schema_of(UltimateSDUpscaleDistributed),
            "new node": schema_of(DistributedUpscale),
            "lazy": unknown_models(UltimateSDUpscaleDistributed),
            "asked": asdict(Asked.of({**OLD, "model": "model", "mode": None})),
            "alone": alone(FORK, set()),
            "alone, broken": alone(CHAIN, {1}),
            "alone, partial": alone(CHAIN, {1}, partial=True),
            "alone, all broken": alone(FORK, {0, 1, 2}, partial=True),
            "alone, interrupted": interrupted_alone(),
            "in a job": in_job(place("job"), FakeWork(FORK), MODELS),
            "in a job, made of": expected_made_of(),
            "in a job, mended": in_job(place("mended"), mends(), MODELS),
            "in a job, without models": in_job(place("without"), FakeWork(CHAIN), None),
            "in a job, interrupted": stopped,
            "in a job, ended": ended(place("ended")),
            "pack": packed(place("pack"), 35),
            "pack of lists": outcome(lambda: tiles.FlotillaPack.execute(value0=[1, 2])),
            "in workers": worker_nodes(),
        }
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
