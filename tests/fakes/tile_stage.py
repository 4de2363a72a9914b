"""A tile stage with a pretended coordinator: what it says is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fakes.master import OUTPUT_TYPES
from fakes.tile_work import FakeWork
from flotilla.graph.plan import JobPlan, Participant, PlanOptions, plan_job
from flotilla.graph.tiles import with_tiles
from flotilla.runtime.bridge import NodeCalls
from flotilla.runtime.tile_stage import TileStage
from flotilla.transport.spool import Spool
from flotilla.upscale.work import Values
from flotilla.utils.clock import ManualClock
from PIL import Image

NODE = "9"
WAIT_S = 10.0


def upscale_prompt(**inputs: Any) -> dict[str, Any]:
    """An image maker, a loader, a text that comes from a node, and the upscale."""
    return {
        "1": {"class_type": "KitImage", "inputs": {"seed": 5}},
        "2": {"class_type": "KitModel", "inputs": {}},
        "3": {"class_type": "KitText", "inputs": {}},
        "4": {"class_type": "KitEncode", "inputs": {"model": ["2", 0], "text": ["3", 0], "hint": ["1", 0]}},
        NODE: {
            "class_type": "UltimateSDUpscaleDistributed",
            "inputs": {
                "upscaled_image": ["1", 0],
                "model": ["2", 0],
                "positive": ["4", 0],
                "vae": ["2", 1],
                **inputs,
            },
        },
    }


def upscale_plan(prompt: Mapping[str, Any], *, master: bool = True, workers: Sequence[str] = ("w1",)) -> JobPlan:
    """The plan of a prompt with an upscale."""
    people = [Participant("master", "Master", True), *(Participant(one, one, False) for one in workers)]
    plan = plan_job(prompt, people, PlanOptions(master), lambda ids: ids[0], OUTPUT_TYPES.get)
    assert plan is not None
    return plan


class Told:
    """The stage of one upscale. Its new places become items at once."""

    def __init__(self, *, spool: Spool, salt: str = "", master: bool = True, **inputs: Any) -> None:
        self.clock = ManualClock()
        self.plan = upscale_plan(upscale_prompt(**inputs), master=master)
        self.spool = spool
        self.added: list[tuple[list[dict[str, Any]], list[int]]] = []
        self.ready: list[list[int]] = []
        self.failed: list[tuple[int, int, str]] = []
        self.delivered: list[tuple[int, int, Values]] = []
        self.shown: list[Image.Image] = []
        self.asked = 0
        self.abandoned = 0
        self.stage = TileStage(
            self.plan,
            self.plan.stages[0],
            NodeCalls(
                delivered=self._deliver,
                abandoned=self._abandon,
                asks=self._ask,
            ),
            added=self._add,
            ready=lambda places: self.ready.append(list(places)),
            failed=lambda place, attempt, error: self.failed.append((place, attempt, str(error))),
            show=self.shown.append,
            keep=spool.write,
            clock=self.clock,
            salt=salt,
        )

    def begin(self, needs: Sequence[set[int]]) -> FakeWork:
        """A picture of so many places, begun."""
        work = FakeWork(needs)
        self.stage.begin(work)
        return work

    def settle(self) -> None:
        """Waits until the pictures' threads have done all that they were asked for."""
        for run in self.stage._runs:
            run._thread.submit(int).result(WAIT_S)

    def _deliver(self, index: int, attempt: int, values: Values) -> None:
        self.delivered.append((index, attempt, values))
        self.stage.show(index, 1.0, done=True)

    def _add(self, tiles: Sequence[dict[str, Any]], ready: Sequence[int]) -> None:
        self.added.append((list(tiles), list(ready)))
        self.plan = with_tiles(self.plan, 0, tiles)
        self.stage.grow(self.plan)

    def _abandon(self) -> None:
        self.abandoned += 1

    def _ask(self) -> None:
        self.asked += 1


def small_spool(folder: Path, *, cap_bytes: int = 1 << 24) -> Spool:
    """A spool on disk."""
    return Spool(None, folder / "spool", memory_cap_bytes=0, disk_cap_bytes=cap_bytes, recycle_cap_bytes=0)
