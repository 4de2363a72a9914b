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
    """Outlives its links: a master that reconnects finds its items again, by its instance id."""

    instance_id: str
    link: Link | None = None
    items: dict[tuple[str, int, int], WorkItem] = field(default_factory=dict)
    lost_since_s: float | None = None

    async def attach(self, link: Link) -> None:
        """Takes ``link`` as the way to the master; an older one that is still open is closed."""
        older, self.link, self.lost_since_s = self.link, link, None
        if older is not None:
            await older.close("the master has opened a newer link")

    def detach(self, link: Link, now_s: float) -> bool:
        """``link`` has ended. True if it was the present one, so that the master is away now."""
        if self.link is not link:
            return False
        self.link, self.lost_since_s = None, now_s
        return True

    async def send(self, message: m.Message) -> None:
        """Sends if there is a link; what must not be lost is kept as an item's report and sent again."""
        if self.link is not None:
            try:
                await self.link.send(message)
            except LinkLost:
                return

    async def resend(self) -> None:
        """Tells the last word of every item again. The master knows what it has heard before."""
        for item in list(self.items.values()):
            if item.report is not None:
                await self.send(item.report)
