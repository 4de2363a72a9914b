"""What a job gets while it runs: items, when they may begin, results that were there before them, and participants."""

from __future__ import annotations

from . import events as ev
from .instructions import ReleaseResult
from .leasing import Leasing
from .ledger import Ledger
from .model import Item
from .planning import enter, make_items
from .states import ItemState, JobState


class Additions:
    """Works on the machine's books."""

    def __init__(self, books: Ledger, leasing: Leasing) -> None:
        self._books = books
        self._leasing = leasing

    def items_added(self, event: ev.ItemsAdded) -> None:
        """New items wait, or are held. Raises `InvalidInput`, and adds nothing, if one of them makes no sense."""
        job = self._books.jobs.get(event.job_id)
        if job is None or not job.state.is_open:
            return
        added: dict[int, Item] = {}
        for item in make_items(job, event.items):
            if item.index not in job.items:
                added.setdefault(item.index, item)
        for item in added.values():
            enter(item)
            self._books.reserve(item)
            self._take_early(item)
        self._place(list(added.values()))

    def items_ready(self, event: ev.ItemsReady) -> None:
        """They wait from now on, unless an earlier life of the job has their results."""
        job = self._books.jobs.get(event.job_id)
        if job is None or not job.state.is_open:
            return
        known = (job.items.get(index) for index in dict.fromkeys(event.indices))
        ready = [item for item in known if item is not None and item.state is ItemState.HELD]
        for item in ready:
            self._books.move_item(item, ItemState.WAITING)
        self._place(ready)

    def participant_joined(self, event: ev.ParticipantJoined) -> None:
        """It may take what waits from now on."""
        job = self._books.jobs.get(event.job_id)
        if job is not None and job.state.is_open and event.participant_id not in job.participants:
            self._books.join(job, self._books.participant(event.participant_id))

    def _place(self, items: list[Item]) -> None:
        for item in items:
            if item.job.state is not JobState.RUNNING:  # not yet accepted, or it has failed on the way
                return
            if item.state is ItemState.WAITING:
                self._leasing.place(item)

    def _take_early(self, item: Item) -> None:
        """Results that were offered before the item was there: those of earlier attempts are at hand, others are let go."""
        for (number, participant_id), result in item.job.early.pop(item.index, {}).items():
            if 1 <= number <= item.attempts_before and item.attempt(number) is None:
                attempt = self._books.recall(item, number, participant_id)
                attempt.result, attempt.holds_result = result, True
            else:
                self._books.order(ReleaseResult(participant_id, item.job.id, item.index, number, result))
