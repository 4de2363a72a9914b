"""A worker's agent with everything around it: real spool, fake host, fake links; and short words for its messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fakes.host import FakeQueue
from fakes.link import FakeLink, link_pair
from fakes.spools import kill
from flotilla.host.records import Preview, ProgressSnapshot
from flotilla.relay.previews import PreviewSource
from flotilla.runtime.agent import Agent
from flotilla.transport.spool import Spool
from flotilla.transport.values import Value
from flotilla.utils.clock import Clock, ManualClock
from flotilla.workers import messages as m

ADDRESS: dict[str, Any] = {"job_id": "job", "index": 1, "attempt": 1}
PROMPT_ID = "prompt-of-item-1"
WORKER_HOME = "home of the worker"
MASTER_HOME = "home of the master"
WAIT_S = 5.0


class Worker:
    """One life of a worker. Another one in the same folder with the same clock is its restart."""

    def __init__(self, folder: Path, clock: Clock | None = None, **spool: int) -> None:
        self.clock = clock or ManualClock()
        self.queue = FakeQueue()
        caps = {"memory_cap_bytes": 0, "disk_cap_bytes": 1 << 24, "recycle_cap_bytes": 0, **spool}
        self.spool = Spool(folder / "memory", folder / "disk", home_id=WORKER_HOME, clock=self.clock, **caps)
        self.progress: ProgressSnapshot | None = None
        self.preview: Preview | None = None

        async def capabilities() -> tuple[frozenset[str], dict[str, Any]]:
            return frozenset({"KSampler"}), {"KSampler": {"sampler_name": ("euler",)}}

        self.agent = Agent(
            queue=self.queue,
            spool=self.spool,
            clock=self.clock,
            call_soon=asyncio.get_running_loop().call_soon_threadsafe,
            make_watch=self.queue.make_watch,
            read_capabilities=capabilities,
            progress_of=lambda _prompt_id: self.progress,
            previews=PreviewSource(lambda _prompt_id: self.preview, self.clock),
            home_id=WORKER_HOME,
        )
        self.serving: list[asyncio.Task[None]] = []

    def link(self, *, master_id: str = "master-1", home_id: str = MASTER_HOME) -> FakeLink:
        """A new link; returns the master's end."""
        master, worker = link_pair(self.clock, master_id=master_id, master_home=home_id)
        self.serving.append(asyncio.ensure_future(self.agent.serve(worker)))
        return master

    async def unlink(self, master: FakeLink) -> None:
        """The master goes away, and the worker has noticed."""
        await master.close("test")
        await until(lambda: self.serving[-1].done())

    async def compute(self, master: FakeLink, seed: int = 1, **address: Any) -> m.ItemFinished:
        """Has an item leased, run and delivered; returns what the master is told."""
        prompt_id = f"prompt {seed} {address}"
        await master.send(lease(**address, prompt_id=prompt_id))
        await heard(master, m.LeaseAccepted)
        self.queue.start(prompt_id)
        await heard(master, m.ItemStarted)
        await asyncio.to_thread(self.agent.deliver, prompt_id, image(seed))
        finished: m.ItemFinished = await heard(master, m.ItemFinished)
        self.queue.end(prompt_id)
        await until(lambda: prompt_id not in self.agent._by_prompt)
        return finished

    async def close(self, *, killed: bool = False) -> None:
        """Ends this life, in order or as a kill ends it: then nothing of the spool is tidied up."""
        await self.agent.close()
        for task in self.serving:
            task.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)
        kill(self.spool) if killed else self.spool.close()


async def heard(master: FakeLink, kind: type[m.Message]) -> Any:
    """The next message of this kind; others before it are passed over."""
    while True:
        message = await asyncio.wait_for(master.receive(), WAIT_S)
        if isinstance(message, kind):
            return message


async def until(condition: Callable[[], bool]) -> None:
    async def turn() -> None:
        while not condition():
            await asyncio.sleep(0)

    await asyncio.wait_for(turn(), WAIT_S)


def lease(**changes: Any) -> m.Lease:
    fields: dict[str, Any] = {
        **ADDRESS,
        "prompt_id": PROMPT_ID,
        "prompt": {"1": {"class_type": "FlotillaDeliver", "inputs": {}}},
        "extra_data": {},
        "precision": "exact",
        "node_id": "1",
        "title": "item 2 of 3",
    }
    return m.Lease(**{**fields, **changes})


async def start_item(worker: Worker, master: FakeLink) -> None:
    """Has an item leased and begun."""
    await master.send(lease())
    await heard(master, m.LeaseAccepted)
    worker.queue.start(PROMPT_ID)
    await heard(master, m.ItemStarted)


def image(seed: int = 1) -> dict[str, Value]:
    return {"images": Value("IMAGE", torch.rand(2, 4, 4, 3, generator=torch.Generator().manual_seed(seed)))}
