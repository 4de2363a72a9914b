"""What a worker tells of an item while it runs, and how it ended; and what it tells of its queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from ..host.records import HostQueue, Outcome, ProgressSnapshot, Refused
from ..relay.previews import PreviewSource, step_label
from ..utils.errors import LinkLost, SpoolFull
from ..workers import messages as m
from ..workers.link import Link
from .session import DELIVERED, ENDED, WorkItem

PROGRESS_EVERY_S = 0.25
STATUS_EVERY_S = 2.0
OUTCOME_EVERY_S = 0.02

FAILURE_KINDS = {
    "OutOfMemoryError": "out_of_memory",
    "OOM_EXCEPTION": "out_of_memory",
    "MemoryError": "out_of_memory",
    SpoolFull.__name__: SpoolFull.code,
}
"""Exceptions, by the last part of their name, that are a kind of failure of their own."""

NO_RESULT = "The workflow ended on the worker without a result at the collector (was a branch blocked or muted?)."


async def report_progress(
    item: WorkItem, progress_of: Callable[[str], ProgressSnapshot | None], previews: PreviewSource
) -> None:
    """Tells how far the item is, where, and how it looks, until it has a result or has ended."""
    fraction = 0.0
    told: m.ItemProgress | None = None
    while item.state not in (DELIVERED, ENDED):
        seen = progress_of(item.prompt_id)
        if seen is not None:
            nodes = max(len(item.prompt), seen.finished_nodes + 1)
            fraction = max(fraction, min(1.0, (seen.finished_nodes + seen.value / seen.maximum) / nodes))
            label = step_label(item.prompt, seen)
            news = m.ItemProgress(**item.address, fraction=fraction, node_id=seen.node_id, label=label)
            if news != told:
                told = news
                await item.session.send(news)
        picture = await previews.next(item.prompt_id)
        if picture is not None:
            await item.session.send(m.ItemPreview(**item.address, **picture))
        await asyncio.sleep(PROGRESS_EVERY_S)


async def outcome_of(queue: HostQueue, prompt_id: str) -> Outcome | None:
    """How the prompt ended; None if it never ran. The host writes it down when it lets go of the prompt."""
    while True:
        running, _ = queue.live()
        outcome = queue.outcome(prompt_id)
        if outcome is not None or prompt_id not in running:
            return outcome
        await asyncio.sleep(OUTCOME_EVERY_S)


def refusal_reason(answer: Refused) -> str:
    """Why the host's validation has refused a prompt, in one line."""
    return " ".join(str(answer.error.get(part) or "") for part in ("message", "details")).strip()


def failure_report(item: WorkItem, outcome: Outcome | None) -> m.ItemFailed:
    """Why an item ended without a result."""
    kind, message = "no_result", NO_RESULT
    if outcome is None:
        kind, message = "removed", "Somebody removed the item from the worker's queue."
    elif outcome.status == "interrupted":
        kind, message = "interrupted", "Somebody interrupted the item on the worker."
    elif outcome.status == "error":
        kind, message = "exception", outcome.message or "The workflow failed on the worker."
        last_name = outcome.exception_type.rpartition(".")[2]
        kind = FAILURE_KINDS.get(last_name, kind)
    return m.ItemFailed(
        **item.address,
        kind=kind,
        message=message,
        exception_type=outcome.exception_type if outcome else "",
        traceback=list(outcome.traceback) if outcome else [],
        node_id=outcome.node_id if outcome else "",
        node_type=outcome.node_type if outcome else "",
        retry=kind != "no_result",
    )


class CountsReporter:
    """Tells masters how many prompts run and wait here, when that changes: ours at once, others within
    `STATUS_EVERY_S`."""

    def __init__(self, counts: Callable[[], m.Status]) -> None:
        self._counts = counts
        self._waiting: set[asyncio.Event] = set()

    def changed(self) -> None:
        """Looks at once."""
        for event in self._waiting:
            event.set()

    async def run(self, link: Link) -> None:
        """Reports over this link until it is lost."""
        told: m.Status | None = None
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            while True:
                changed.clear()
                counts = self._counts()
                if counts != told:
                    told = counts
                    await link.send(counts)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(changed.wait(), STATUS_EVERY_S)
        except LinkLost:
            return  # whoever reads the link hears of it
        finally:
            self._waiting.discard(changed)
