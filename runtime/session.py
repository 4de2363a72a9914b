"""What a worker holds for one master: its items, finished results, and the links to tell of them, when there are any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..transport.uses import StoredBlob
from ..utils.errors import LinkLost
from ..workers import messages as m
from ..workers.link import Link

WAITING = "waiting"
DELIVERED = "delivered"
ENDED = "ended"

Key = tuple[str, int, int]
"""Job, item and attempt."""


@dataclass(eq=False)
class WorkItem:
    """One lease at this worker, until it has a result. ``report`` is a failure that the master has not yet heard of."""

    session: MasterSession
    job_id: str
    index: int
    attempt: int
    prompt_id: str
    precision: str
    prompt: Mapping[str, Any]
    state: str = WAITING
    concluded: bool = False
    has_result: bool = False
    started_s: float | None = None
    report: m.ItemFailed | None = None
    inputs: frozenset[str] = frozenset()
    """The hashes of the blobs that the master has sent for this item alone, until they are given up."""

    @property
    def key(self) -> Key:
        """Job, item and attempt."""
        return self.job_id, self.index, self.attempt

    @property
    def address(self) -> dict[str, Any]:
        """The same as the fields of a message."""
        return {"job_id": self.job_id, "index": self.index, "attempt": self.attempt}


@dataclass(frozen=True)
class HeldResult:
    """A finished item: where its result lies and what the master is told of it."""

    stored: StoredBlob
    report: m.ItemFinished


@dataclass(eq=False)
class Preparation:
    """A prompt that loads a job's models, until the job is over. ``report`` is how it ended, or None."""

    session: MasterSession
    job_id: str
    prompt_id: str
    report: m.Prepared | None = None
    unwanted: bool = False
    concluded: bool = False


@dataclass(eq=False)
class HeldInput:
    """A blob that a master has sent for a job, of which one use is held in the spool. ``kept``: until the job is over;
    ``sent`` counts how often it came for one item alone, less those items that are over."""

    kept: bool = False
    sent: int = 0


@dataclass(eq=False)
class Arrival:
    """An input on its way. ``wanted`` ends with its job."""

    job_id: str
    blob_hash: str
    keep: bool
    wanted: bool = True


@dataclass(eq=False)
class MasterSession:
    """Outlives its links, and the master's process: a master finds its items again by the id of its home.

    ``links`` holds the open ones, the newest last. There may be two for a while: the older one is dead and nobody has
    noticed yet, or the master finds this worker under a second address and is about to close the newer one.
    """

    home_id: str
    links: list[Link] = field(default_factory=list)
    items: dict[Key, WorkItem] = field(default_factory=dict)
    results: dict[Key, HeldResult] = field(default_factory=dict)
    preparations: dict[str, Preparation] = field(default_factory=dict)  # by job
    inputs: dict[tuple[str, str], HeldInput] = field(default_factory=dict)  # by job and hash
    arrivals: set[Arrival] = field(default_factory=set)
    lost_since_s: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held for this master."""
        return not (self.items or self.results or self.preparations or self.inputs or self.arrivals)

    async def send(self, message: m.Message) -> bool:
        """Sends over the newest link that takes it; False if there is none. What must not be lost is told by `resend`."""
        for link in reversed(self.links):
            try:
                await link.send(message)
                return True
            except LinkLost:
                continue
        return False

    async def tell(self, item: WorkItem) -> None:
        """Tells how the item stands."""
        if item.report is not None:
            await self.tell_failure(item)
        elif item.started_s is not None:
            await self.send(m.ItemStarted(**item.address))
        else:
            await self.send(m.LeaseAccepted(**item.address))

    async def tell_failure(self, item: WorkItem) -> None:
        """Tells of the item's failure; then it is over here. If nobody can be told, it waits for the next link."""
        if item.report is not None and await self.send(item.report) and self.items.get(item.key) is item:
            del self.items[item.key]

    async def resend(self) -> None:
        """Tells how everything stands. The master knows what it has heard before, and stops or releases what it has
        given up; what it does not know (it has started anew) it may take up again."""
        for item in list(self.items.values()):
            await self.tell(item)
        for result in list(self.results.values()):
            await self.send(result.report)
        for preparation in list(self.preparations.values()):
            if preparation.report is not None:
                await self.send(preparation.report)
        jobs = sorted({*self.preparations, *(job_id for job_id, _hash in self.inputs)})
        if jobs:
            await self.send(m.JobsHeld(job_ids=jobs[: m.MAX_JOBS_TOLD]))
