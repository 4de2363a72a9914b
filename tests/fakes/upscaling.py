"""A master with an upscale on its way: workers whose every move is the test's, and the node's own part."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fakes.master import Master, heard, until
from fakes.tile_stage import NODE, upscale_prompt
from fakes.tile_work import FakeWork
from flotilla.host.records import Outcome
from flotilla.runtime.tile_stage import TileStage
from flotilla.runtime.wishes import Wishes
from flotilla.transport.values import IMAGE, JSON, Value
from flotilla.upscale.work import PIXELS, Models, TileWork, Values, made_of, result_of
from flotilla.workers import messages as m

CLIENT = "tab-1"
DATA = {"d0": Value(IMAGE, torch.full((1, 2, 2, 3), 0.25)), "d1": Value(JSON, "a boat")}
"""What the model side takes of the rest of the graph."""


class Upscaling:
    """One upscale of a master. The host has begun with its prompt."""

    def __init__(self, master: Master, job_id: str) -> None:
        self.master = master
        self.job_id = job_id
        stage = master.coordinator.stage_of(job_id, NODE)
        assert isinstance(stage, TileStage)
        self.stage = stage

    @classmethod
    def post(
        cls, master: Master, wishes: Wishes | None = None, posted: dict[str, Any] | None = None, **inputs: Any
    ) -> Upscaling:
        """A new job, of the prompt ``posted`` or of a plain one."""
        job_id = master.post_prompt(posted or upscale_prompt(**inputs), wishes, CLIENT)
        master.queue.start(job_id)
        return cls(master, job_id)

    async def begin(self, needs: Sequence[set[int]]) -> FakeWork:
        """The node is reached; its picture has so many places."""
        work = FakeWork(needs)
        await self.begin_with(work)
        return work

    async def begin_with(self, work: TileWork) -> None:
        """The same for any picture."""
        before = self.stage.count
        if not self.stage.data:
            await asyncio.to_thread(self.stage.set_data, DATA)
        await asyncio.to_thread(self.stage.begin, work)
        await until(lambda: self.stage.count == before + work.count)

    async def lease(self, worker_id: str) -> m.Lease:
        """The next that this worker is sent."""
        lease = await heard(self.master.end(worker_id), m.Lease)
        assert isinstance(lease, m.Lease)
        assert lease.job_id == self.job_id
        return lease

    def pixels(self, worker_id: str, lease: m.Lease) -> Values:
        """What the worker was sent for it."""
        blob_hash = lease.prompt[NODE]["inputs"]["pixels"]
        return next(
            one.values
            for one in self.master.pusher.pushed
            if (one.worker_id, one.blob_hash, one.keep) == (worker_id, blob_hash, False)
        )

    def redrawn(self, worker_id: str, lease: m.Lease, hint: str = "") -> m.ItemFinished:
        """The worker's report, once it has computed it as a `FakeWork` is computed."""
        made = self.pixels(worker_id, lease)[PIXELS].data * 2
        return self.master.finish_with(lease, result_of(made, self.inputs_of(lease)["made_of"], hint))

    async def serve(self, worker_id: str, *, hint: str = "") -> m.Lease:
        """The worker does its next lease."""
        lease = await self.lease(worker_id)
        await self.master.end(worker_id).send(self.redrawn(worker_id, lease, hint))
        return lease

    async def refuse(self, worker_id: str, message: str = "boom", *, retry: bool = True) -> m.Lease:
        """The worker fails its next lease."""
        lease = await self.lease(worker_id)
        address = {"job_id": lease.job_id, "index": lease.index, "attempt": lease.attempt}
        failed = {"kind": "exception", "message": message, "exception_type": "ValueError", "retry": retry}
        await self.master.end(worker_id).send(m.ItemFailed(**address, **failed, traceback=["in line 1\n"]))
        return lease

    async def take(self) -> tuple[int, int]:
        """What the master is to compute, after its node has asked."""
        await asyncio.to_thread(self.stage.ask)
        await until(lambda: bool(self.stage._requests))
        request = self.stage.take_request()
        assert request is not None
        return request

    async def compute(self, place: int, attempt: int) -> None:
        """The master's node computes a tile."""
        work, at = self.stage.work_of(place)
        values = await asyncio.wrap_future(self.stage.cut(place))
        made = work.compute(at, Models(), values)
        told = made_of(values, NODE, work.root_inputs(at))
        await asyncio.to_thread(self.stage.deliver_requested, place, attempt, result_of(made, told))

    async def over(self) -> None:
        """Waits until the picture is."""
        await until(lambda: self.stage.is_over)

    async def end(self, outcome: Outcome | None = None) -> None:
        """The host is done with the prompt."""
        self.master.queue.end(self.job_id, outcome)
        await until(lambda: not self.master.coordinator.run(self.job_id).stages)

    def state(self) -> str:
        """That of the job."""
        return self.master.coordinator.view(self.job_id).state

    def inputs_of(self, lease: m.Lease) -> Mapping[str, Any]:
        """Those of the node that computes the tile."""
        inputs: Mapping[str, Any] = lease.prompt[NODE]["inputs"]
        return inputs
