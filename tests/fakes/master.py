"""A master without a ComfyUI: real coordinator, state machine, registry, pool, journal; fake host, fake links, results
without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fakes.host import FakeQueue, FakeScreen
from fakes.link import FakeDialler, FakeLink
from flotilla.runtime.coordinator import Coordinator
from flotilla.runtime.own_results import OwnResults
from flotilla.runtime.pushes import InputPusher
from flotilla.runtime.results import ResultFetcher
from flotilla.runtime.wishes import Wishes
from flotilla.storage.database import sqlite_url
from flotilla.storage.journal import Journal
from flotilla.transport.assemble import Assembly
from flotilla.transport.loose import read_values
from flotilla.transport.manifest import BlobManifest
from flotilla.transport.spool import Spool
from flotilla.transport.uses import Adopted, StoredBlob
from flotilla.transport.values import Value
from flotilla.utils.clock import SystemClock
from flotilla.utils.errors import LinkLost
from flotilla.workers import messages as m
from flotilla.workers.address import WorkerAddress
from flotilla.workers.connection import WorkerHealth
from flotilla.workers.entries import make_entry
from flotilla.workers.link import Link
from flotilla.workers.pool import WorkerPool
from flotilla.workers.registry import WorkerRegistry

WAIT_S = 5.0
HOME = "the-desk"
CLASSES = frozenset({"KitImage", "KitText", "KitModel", "KitEncode", "DistributedSeed", "DistributedCollector"})
OUTPUT_TYPES = {
    "KitImage": ("IMAGE",),
    "KitText": ("STRING",),
    "KitModel": ("MODEL", "VAE"),
    "KitEncode": ("CONDITIONING",),
}


def image(seed: int) -> dict[str, Value]:
    generator = torch.Generator().manual_seed(seed)
    return {"images": Value("IMAGE", torch.rand(1, 2, 2, 3, generator=generator))}


@dataclass(frozen=True)
class Pushed:
    """A blob that a worker was sent, and what was in it."""

    worker_id: str
    job_id: str
    blob_hash: str
    keep: bool
    values: dict[str, Value]

    @property
    def key(self) -> tuple[str, str, str]:
        return self.worker_id, self.job_id, self.blob_hash


class FakePusher(InputPusher):
    """Sends nothing, and remembers what it was to send. ``hold`` keeps blobs on their way, ``fails_for`` says, by worker, what is raised
    for them."""

    def __init__(self) -> None:
        super().__init__(clock=SystemClock())
        self.pushed: list[Pushed] = []
        self.forgotten: list[str] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.fails_for: dict[str, Exception] = {}

    async def push(
        self,
        worker_id: str,
        address: WorkerAddress,
        link: Callable[[], Link | None],
        job_id: str,
        blob: StoredBlob,
        *,
        keep: bool,
    ) -> None:
        if link() is None:
            raise LinkLost("The worker has no link now.")
        pushed = Pushed(worker_id, job_id, blob.manifest.hash, keep, read_values(blob.path, blob.manifest))
        if not keep or not any(one.keep and one.key == pushed.key for one in self.pushed):
            self.pushed.append(pushed)
        await self.hold.wait()
        if worker_id in self.fails_for:
            raise self.fails_for[worker_id]

    def forget_job(self, job_id: str) -> None:
        self.forgotten.append(job_id)
        super().forget_job(job_id)


class SpoolFetcher(ResultFetcher):
    """Takes results straight from the spool of this test; ``hold`` keeps them on their way."""

    def __init__(self, spool: Spool) -> None:
        super().__init__(clock=SystemClock(), same_host=True)
        self._folders = {worker: list(spool.folders) for worker in ("w1", "w2")}
        self.hold = asyncio.Event()
        self.hold.set()

    def forget_worker(self, worker_id: str) -> None:
        pass

    async def fetch(
        self, worker_id: str, address: Any, link: Any, manifest: BlobManifest, assembly: Assembly, place: int
    ) -> None:
        await self.hold.wait()
        await super().fetch(worker_id, address, link, manifest, assembly, place)


class Master:
    """A coordinator with two linked workers, whose ends are in `ends`."""

    def __init__(self, folder: Path, *, spool: Spool | None = None) -> None:
        """``spool`` is one that an earlier master in ``folder`` has left."""
        self.clock = SystemClock()
        self.queue = FakeQueue()
        self.registry = WorkerRegistry(folder / "workers.json")
        for number in (1, 2) if not self.registry.entries() else ():
            fields = {"id": f"w{number}", "name": f"Worker {number}", "address": f"http://127.0.0.1:{9000 + number}"}
            self.registry.add(make_entry(fields))
        self.dialler = FakeDialler(self.clock)
        self.spool = spool or Spool(
            None, folder / "spool", memory_cap_bytes=0, disk_cap_bytes=1 << 24, recycle_cap_bytes=0, home_id=HOME
        )
        self.fetcher = SpoolFetcher(self.spool)
        self.pool = WorkerPool(self.registry, self.dialler, self.on_message, self.on_state, clock=self.clock)
        self.screen = FakeScreen()
        self.pusher = FakePusher()
        self.own_results = OwnResults(self.spool, HOME, self.clock)
        self.journal = Journal(sqlite_url(folder), HOME)
        self.journal.start()
        self.choices: dict[str, dict[str, tuple[str, ...]]] = {}
        self.coordinator = Coordinator(
            registry=self.registry,
            pool=self.pool,
            queue=self.queue,
            fetcher=self.fetcher,
            clock=self.clock,
            call_soon=asyncio.get_running_loop().call_soon_threadsafe,
            make_watch=self.queue.make_watch,
            own_choices=self.own_choices,
            journal=self.journal,
            screen=self.screen,
            own_results=self.own_results,
            home_id=HOME,
            spool=self.spool,
            pusher=self.pusher,
            output_types=OUTPUT_TYPES.get,
        )

    def own_choices(self, classes: Iterable[str]) -> tuple[frozenset[str], dict[str, dict[str, tuple[str, ...]]]]:
        return frozenset(classes) & CLASSES, self.choices

    async def on_message(self, worker_id: str, message: m.Message) -> None:
        await self.coordinator.inbox.on_message(worker_id, message)

    def on_state(self, worker_id: str, health: WorkerHealth) -> None:
        self.coordinator.inbox.on_state(worker_id, health)

    def end(self, worker_id: str) -> FakeLink:
        return self.dialler.workers[worker_id][-1]

    async def linked(self) -> None:
        self.pool.start()
        await until(lambda: all(health.state == "online" for health in self.pool.health().values()))

    def post(self, seed: int = 5, wishes: Wishes | None = None, **inputs: Any) -> str:
        """Plans and accepts a prompt as the interception does; returns the job's id."""
        return self.post_prompt(prompt(seed, **inputs), wishes)

    def post_prompt(self, posted: dict[str, Any], wishes: Wishes | None = None, client_id: str = "") -> str:
        """The same for any prompt that is to be distributed."""
        run = self.coordinator.plan({"prompt": posted, "client_id": client_id}, wishes or Wishes())
        assert run is not None
        self.queue.waiting.append(run.job_id)
        self.coordinator.accept(run.job_id)
        return run.job_id

    def finish(self, lease: m.Lease, seed: int) -> m.ItemFinished:
        return self.finish_with(lease, image(seed))

    def finish_with(self, lease: m.Lease, values: Mapping[str, Value]) -> m.ItemFinished:
        stored = self.spool.write(values)
        address = {"job_id": lease.job_id, "index": lease.index, "attempt": lease.attempt}
        return m.ItemFinished(**address, manifest=stored.manifest.to_wire(), seconds=0.5)

    def adopt_own(self, job_id: str, values: dict[str, Value]) -> None:
        """As if an earlier process had left its item 0 in the spool."""
        note = {"kind": "item", "master": HOME, "job": job_id, "index": 0, "attempt": 1, "seconds": 0.5}
        self.coordinator.adopt([Adopted(self.spool.write(values, "exact", note), note, loose=True)])

    async def journal_is_open(self) -> None:
        await until(lambda: self.journal.status().state == "ok")

    async def crash(self) -> None:
        """Ends without a word to anybody; what is in the spool stays."""
        await self.pool.stop()
        await self.coordinator.close()
        self.journal.close()

    async def close(self) -> None:
        await self.coordinator.close()
        await self.pool.stop()
        self.journal.close()
        self.spool.close()


def prompt(seed: int, **inputs: Any) -> dict[str, Any]:
    return {
        "1": {"class_type": "DistributedSeed", "inputs": {"seed": seed}},
        "2": {"class_type": "KitImage", "inputs": {"seed": ["1", 0]}},
        "3": {"class_type": "DistributedCollector", "inputs": {"images": ["2", 0], **inputs}},
    }


async def until(condition: Callable[[], bool]) -> None:
    async def turn() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(turn(), WAIT_S)


async def heard(end: FakeLink, kind: type[m.Message]) -> Any:
    while True:
        message = await asyncio.wait_for(end.receive(), WAIT_S)
        if isinstance(message, kind):
            return message
