"""One job on the master while it runs, and what is remembered of it afterwards."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from ..graph.plan import ItemPlan, JobPlan, build_item_prompt
from ..graph.preflight import Capabilities, fit
from ..utils.ids import new_id
from ..workers import messages as m
from ..workers.entries import Precision
from .stage import StageRun


@dataclass(eq=False)
class JobRun:
    """``job_id`` is the id of the master's prompt.

    ``created_s`` and ``ended_s`` are seconds since 1970, ``own_began_s`` is on the process's own clock; it,
    ``seconds`` and ``sizes`` (bytes) are by item index, ``prompt_ids`` and ``fetching`` by item index and attempt.
    """

    job_id: str
    plan: JobPlan
    client_id: str
    extra_data: dict[str, Any]
    created_s: float
    stages: dict[str, StageRun] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    prompt_ids: dict[tuple[int, int], str] = field(default_factory=dict)
    accepted: bool = False
    own_began_s: dict[int, float] = field(default_factory=dict)
    ended_s: float | None = None
    fetching: dict[tuple[int, int], asyncio.Task[None]] = field(default_factory=dict)

    def item(self, index: int) -> ItemPlan:
        """The plan of one item."""
        return self.plan.items[index]

    def lease(self, index: int, attempt: int, capabilities: Capabilities | None, precision: Precision) -> m.Lease:
        """What a worker is sent for this attempt, in that worker's spelling of file names. Raises InvalidPrompt."""
        item = self.item(index)
        prompt = build_item_prompt(self.plan, item)
        if capabilities is not None:
            prompt = fit(prompt, capabilities)[0]
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

    def release_memory(self) -> None:
        """Lets go of gathered values and of all that only a running job needs."""
        self.stages.clear()
        self.extra_data = {}

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
        return extra
