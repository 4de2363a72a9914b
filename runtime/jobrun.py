"""One job on the master while it runs, and what is remembered of it afterwards."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from ..graph.plan import ItemPlan, JobPlan
from ..graph.prompt import Prompt
from ..utils.ids import new_id
from ..workers import messages as m
from ..workers.entries import Precision
from .bridge import NodeBridge
from .shelf import Kept
from .wishes import Wishes


@dataclass(eq=False)
class JobRun:
    """``job_id`` is the id of the master's prompt.

    ``created_s`` and ``ended_s`` are seconds since 1970, ``ahead_s`` is what the clock of the wall was ahead of the
    process's own when this life of the job began, ``own_began_s`` is on the latter; it,
    ``seconds`` and ``sizes`` (bytes) are by item index, ``prompt_ids`` and ``fetching`` by item index and attempt.
    ``lives`` counts how often the job was begun, with ``attempts_before`` by item in earlier lives. ``own_attempts``
    are the leases that the master's own prompt carries out, ``kept`` the finished results and who holds them,
    ``recorded`` what the journal has been told, ``missing`` why one failed that the job may lack, all by item index;
    ``ended_items`` are the indices of those that have ended, ``done`` of which have results; ``offers`` are results on
    offer, by item index and attempt.
    """

    job_id: str
    plan: JobPlan
    client_id: str
    extra_data: dict[str, Any]
    created_s: float
    ahead_s: float
    wishes: Wishes = field(default_factory=Wishes)
    lives: int = 1
    attempts_before: dict[int, int] = field(default_factory=dict)
    own_attempts: dict[int, int] = field(default_factory=dict)
    offers: dict[tuple[int, int], Kept] = field(default_factory=dict)
    kept: dict[int, Kept] = field(default_factory=dict)
    recorded: dict[int, tuple[object, ...]] = field(default_factory=dict)
    ended_items: set[int] = field(default_factory=set)
    done: int = 0
    missing: dict[int, str] = field(default_factory=dict)
    stages: dict[str, NodeBridge] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    prompt_ids: dict[tuple[int, int], str] = field(default_factory=dict)
    accepted_s: float | None = None
    own_began_s: dict[int, float] = field(default_factory=dict)
    ended_s: float | None = None
    fetching: dict[tuple[int, int], asyncio.Task[None]] = field(default_factory=dict)

    def item(self, index: int) -> ItemPlan:
        """The plan of one item."""
        return self.plan.items[index]

    def lease(self, index: int, attempt: int, prompt: Prompt, precision: Precision) -> m.Lease:
        """What a worker is sent for this attempt, to compute the item by that ``prompt``."""
        item = self.item(index)
        return m.Lease(
            job_id=self.job_id,
            index=index,
            attempt=attempt,
            prompt_id=self.prompt_ids.setdefault((index, attempt), new_id()),
            prompt=prompt,
            extra_data=self._worker_extra_data(index, attempt),
            precision=precision,
            node_id=item.node_id,
            title=f"item {item.k + 1} of {item.count}",
        )

    def wall_s(self, moment_s: float) -> float:
        """A moment of the process's own clock as seconds since 1970."""
        return self.ahead_s + moment_s

    def note_ended(self, index: int, *, done: bool) -> None:
        """An item has ended; told again, it changes nothing."""
        if index not in self.ended_items:
            self.ended_items.add(index)
            self.done += done

    def note_offer(self, kept: Kept) -> None:
        """A participant has finished an attempt."""
        self.offers[kept.index, kept.attempt] = kept
        self.seconds.setdefault(kept.index, kept.seconds)
        self.sizes.setdefault(kept.index, kept.manifest.size_bytes)

    def release_memory(self, *, resumable: bool) -> None:
        """Lets go of gathered values and of all that only a running job needs. What is kept for a ``resumable`` one stays."""
        if not resumable:
            self.kept.clear()
        self.stages.clear()
        self.extra_data = {}
        self.offers.clear()
        self.recorded.clear()

    def _worker_extra_data(self, index: int, attempt: int) -> dict[str, Any]:
        """What travels with an item's prompt: the workflow for nodes that ask for it, and where the item belongs.

        Never the user's tokens, and no client id of the user's: a worker's messages would go to strangers.
        """
        extra: dict[str, Any] = {
            "client_id": f"flotilla-{self.job_id}",
            "flotilla": {"job": self.job_id, "item": index, "attempt": attempt},
        }
        if isinstance(self.extra_data.get("extra_pnginfo"), dict):
            extra["extra_pnginfo"] = self.extra_data["extra_pnginfo"]
        if isinstance(self.extra_data.get("preview_method"), str):
            extra["preview_method"] = self.extra_data["preview_method"]
        return extra

    def salt(self, on_failure: str) -> str:
        """What keeps the host's cache from answering for another job: a result that may lack items, or lacked some."""
        return f"{self.job_id} {self.lives}" if on_failure == "partial" or self.lives > 1 else ""
