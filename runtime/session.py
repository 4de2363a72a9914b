"""What a worker holds for one master: its items and the link to tell of them, when there is one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..transport.manifest import BlobManifest
from ..utils.errors import LinkLost
from ..workers import messages as m
from ..workers.link import Link

WAITING = "waiting"
DELIVERED = "delivered"
ENDED = "ended"


@dataclass(eq=False)
class WorkItem:
    """One lease at this worker. ``report`` is its last word, repeated if the link was away when it was said."""

    session: MasterSession
    job_id: str
    index: int
    attempt: int
    prompt_id: str
    precision: str
    nodes: int
    state: str = WAITING
    concluded: bool = False
    started_s: float | None = None
    manifest: BlobManifest | None = None
    report: m.ItemFinished | m.ItemFailed | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        """Job, item and attempt."""
        return self.job_id, self.index, self.attempt

    @property
    def address(self) -> dict[str, Any]:
        """The same as the fields of a message."""
        return {"job_id": self.job_id, "index": self.index, "attempt": self.attempt}


@dataclass(eq=False)
class MasterSession:
    """Outlives its links: a master that reconnects finds its items again, by its instance id.

    ``links`` holds the open ones, the newest last. There may be two for a while: the older one is dead and nobody has
    noticed yet, or the master finds this worker under a second address and is about to close the newer one.
    """

    instance_id: str
    links: list[Link] = field(default_factory=list)
    items: dict[tuple[str, int, int], WorkItem] = field(default_factory=dict)
    lost_since_s: float = 0.0

    async def send(self, message: m.Message) -> None:
        """Sends over the newest link that takes it, if any; what must not be lost is an item's report, see `resend`."""
        for link in reversed(self.links):
            try:
                await link.send(message)
                return
            except LinkLost:
                continue

    async def resend(self) -> None:
        """Tells how every item stands. The master knows what it has heard before, and stops what it has given up."""
        for item in list(self.items.values()):
            if item.report is not None:
                await self.send(item.report)
            elif item.started_s is not None:
                await self.send(m.ItemStarted(**item.address))
            else:
                await self.send(m.LeaseAccepted(**item.address))
