"""One job as the event stream tells it: what it counts, and what of its items has changed since the last message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from ..jobs.states import ItemState
from .news import ItemNews, JobNews

MAX_ITEMS_PER_MESSAGE = 250
MAX_LABEL_CHARS = 200
MAX_FAILURE_CHARS = 500
NOT_BEGUN = (ItemState.HELD, ItemState.WAITING)
TOLD_AT_THE_END = (ItemState.DONE, ItemState.FAILED)


class JobFeed:
    """Holds one record per item that has been begun and not ended, and one bit of state for each other."""

    def __init__(self, news: JobNews, names: Callable[[str], str]) -> None:
        """``names`` turns a participant's id into its name for people."""
        self.news = news
        self._names = names
        self._open: dict[int, ItemNews] = {}
        self._ended = bytearray(news.items_total)
        self._changed: dict[int, ItemNews] = {}
        self._participants: dict[str, None] = {}  # in order of appearance
        self._running: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._items_done = 0
        self._fractions = 0.0  # of open items
        self._work_began: tuple[float, int, float] | None = None  # when, items done by then, parts of items included
        self._told: dict[str, Any] | None = None
        self.take_job(news)

    def take_job(self, news: JobNews) -> None:
        """The job's state has changed, or it has more items."""
        self.news = news
        self._ended.extend(bytes(news.items_total - len(self._ended)))
        self._participants.update(dict.fromkeys(news.participants))

    def take_item(self, news: ItemNews, now_s: float) -> bool:
        """An item has changed; False if that is nothing to tell of: it has ended before, or has not begun."""
        if not 0 <= news.index < len(self._ended) or self._ended[news.index]:
            return False
        old = self._open.get(news.index)
        if old == news or (old is None and news.state in NOT_BEGUN and not news.failed_on):
            return False
        self._count(old, -1)
        self._failed.update(news.failed_on)
        if news.is_open:
            self._open[news.index] = news
            self._count(news, +1)
        else:
            self._open.pop(news.index, None)
            self._ended[news.index] = True
            if news.state == ItemState.DONE:
                self._items_done += 1
                self._done.update(() if news.participant_id is None else (news.participant_id,))
        for participant_id in (*news.running_on, *news.failed_on, news.participant_id):
            if participant_id is not None:
                self._participants.setdefault(participant_id)
        if self._work_began is None and news.running_on:
            self._work_began = now_s, self._items_done, self._progress()
        self._changed[news.index] = news
        return True

    def _count(self, item: ItemNews | None, sign: int) -> None:
        """Adds what is counted of an open item, or takes it away. Failures of an ended item go on to count."""
        if item is not None:
            self._fractions += sign * item.fraction
            for participant_id in item.running_on:
                self._running[participant_id] += sign
            if sign < 0:
                self._failed.subtract(item.failed_on)

    def _progress(self) -> float:
        return self._items_done + self._fractions

    @property
    def has_changed_items(self) -> bool:
        """Whether `next_items` has something to tell."""
        return bool(self._changed)

    def next_items(self) -> dict[str, Any] | None:
        """The next ``flotilla.item`` message, with those items that changed first; None when all has been told."""
        batch = [self._changed.pop(index) for index in list(islice(self._changed, MAX_ITEMS_PER_MESSAGE))]
        names = {one: self._names(one) for one in {item.participant_id for item in batch} if one is not None}
        items = [_item(item, names) for item in batch]
        return {"job_id": self.news.job_id, "items": items} if items else None

    def forget_cancelled(self) -> None:
        """The job has ended: that its open items have too needs no message for each."""
        self._changed = {index: item for index, item in self._changed.items() if item.state in TOLD_AT_THE_END}

    def summary(self, now_s: float) -> dict[str, Any] | None:
        """The next ``flotilla.job`` message; None when it would say what the last one said."""
        news = self.news
        told: dict[str, Any] = {
            "job_id": news.job_id,
            "state": news.state,
            "items_total": news.items_total,
            "items_done": self._items_done,
            "missing": len(news.missing),
            "participants": [
                {
                    "id": one,
                    "name": self._names(one),
                    "running": self._running[one],
                    "done": self._done[one],
                    "failed": self._failed[one],
                }
                for one in self._participants
            ],
        }
        if news.failure is not None:
            told["failure"] = {
                "kind": news.failure.kind,
                "message": news.failure.message[:MAX_FAILURE_CHARS],
                "participant": news.failure.participant_id,
            }
        eta_s = self._eta_s(now_s)
        if eta_s is not None:
            told["eta_s"] = eta_s
        if told == self._told:
            return None
        self._told = told
        return told

    def _eta_s(self, now_s: float) -> float | None:
        """Seconds until all is done if it goes on as it went since work began; None before an item was done since then,
        because parts of items are a rough measure: they count nodes, however long each takes."""
        if self._work_began is None or not self.news.is_open:
            return None
        began_s, done_before, before = self._work_began
        if self._items_done == done_before:
            return None
        left = self.news.items_total - self._progress()
        return round((now_s - began_s) / (self._progress() - before) * left, 1)


def _item(item: ItemNews, names: Mapping[str, str]) -> dict[str, Any]:
    label = item.label[:MAX_LABEL_CHARS] if item.state == ItemState.RUNNING else ""
    if label and item.participant_id is not None:
        label = f"{label} on {names[item.participant_id]}"
    told: dict[str, Any] = {
        "index": item.index,
        "k": item.k,
        "node_id": item.node_id,
        "state": item.state,
        "participant": item.participant_id,
        "attempt": item.attempt,
        "fraction": round(item.fraction, 3),
        "label": label,
        "copies": item.copies,
    }
    if item.tile is not None:
        told["tile"] = item.tile
    return told
