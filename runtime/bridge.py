"""What waits on the master for items of a stage: the part that is the same whatever becomes of the results.

The coordinator lives on the server's loop, a node in the loop of its prompt: this object is the bridge, and safe to use
from both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ..graph.plan import JobPlan, StagePlan
from ..utils.errors import FlotillaError

SHOWN_MISSING = 8
"""Most missing items that a note names; the others are counted."""

SHOWN_REASON_CHARS = 200


@dataclass(frozen=True)
class NodeCalls:
    """What a node tells the coordinator. May be called in any thread.

    ``delivered`` gets index, attempt and values of an item that the master has computed itself, ``abandoned`` is called
    when the node stops waiting before the end, ``asks`` when it would compute one more item now: not again before that
    was answered.
    """

    delivered: Callable[[int, int, Mapping[str, Any]], None]
    abandoned: Callable[[], None]
    asks: Callable[[], None]


class NodeBridge:
    """A distributed node of one job, as the node on the master and the coordinator see it.

    ``assembly`` takes the results that are brought over.
    """

    assembly: Any
    noun = "item"
    """What its items are called in messages for people."""
    gathers = True
    """Whether it is over as soon as all its items have ended."""

    def __init__(self, job: JobPlan, plan: StagePlan, calls: NodeCalls) -> None:
        """``job`` is the whole job, ``plan`` this stage of it."""
        self.job = job
        self.plan = plan
        self.expansion_prefix = _free_prefix(job, plan.node_id)
        self._calls = calls
        self._lock = threading.Lock()
        self._fractions: dict[int, float] = {}
        self._progress = 0.0
        self._best_progress = 0.0
        self._error: FlotillaError | None = None
        self._missing: dict[int, str] = {}
        self._finished = False
        self._waiters: list[Future[None]] = []
        self._asked = False
        self._requests: dict[int, int] = {}  # place → attempt, to be computed here

    @property
    def count(self) -> int:
        """The number of items. Any thread."""
        return len(self.plan.items)

    @property
    def finished(self) -> bool:
        """Whether waiting is over, one way or the other. Any thread."""
        return self._finished

    @property
    def wanted(self) -> bool:
        """Whether the node has something to do: an item to compute, or the end to deal with. Any thread."""
        return self._finished or bool(self._requests)

    def progress(self) -> float:
        """Items done, with the parts of those at work: 0 to `count`. It never falls: what is lost and begun again shows
        only once it has caught up. Any thread."""
        return min(self._best_progress, float(self.count))

    # Called by the node, in the prompt thread

    def ask(self) -> None:
        """Says that one more item could be computed here now. Harmless while the last time is unanswered, and after
        the end."""
        with self._lock:
            if self._asked or self._finished or self._requests:
                return
            self._asked = True
        self._calls.asks()

    def take_request(self) -> tuple[int, int] | None:
        """Place and attempt of an item that is to be computed here; None while there is none."""
        with self._lock:
            return self._requests.popitem() if self._requests else None

    def deliver_requested(self, place: int, attempt: int, values: Mapping[str, Any]) -> None:
        """Takes a result that was asked for (`take_request`), unless somebody else's came first. Raises InvalidInput."""
        self.assembly.put_local(place, values)
        self._calls.delivered(self.plan.items[place].index, attempt, values)

    def next_change(self) -> Future[None]:
        """A future that is done at the next change, or at once when there is something to do (`wanted`).

        A change may also be that a request was withdrawn: what was asked for has then to be asked for again.
        """
        waiter: Future[None] = Future()
        with self._lock:
            if self.wanted:
                waiter.set_result(None)
            else:
                self._waiters.append(waiter)
        return waiter

    def missing_note(self) -> str:
        """One line for people that says which items are missing and why; "" when none is."""
        if not self._missing:
            return ""
        places = sorted(self._missing)
        named = [f"{self.name_of(place)} ({_short(self._missing[place])})" for place in places[:SHOWN_MISSING]]
        more = len(places) - len(named)
        listed = "; ".join(named) + (f"; and {more} more" if more else "")
        verb = "is" if len(places) == 1 else "are"
        return f"{len(places)} of {self.count} {self.noun}s {verb} missing: {listed}"

    def name_of(self, place: int) -> str:
        """What an item is called in messages for people."""
        return f"{self.noun} {place}"

    def abandon(self) -> None:
        """Gives up waiting (the prompt was interrupted): the job is to stop."""
        self._calls.abandoned()

    # Called by the coordinator, on the server's loop

    def grow(self, job: JobPlan) -> None:
        """The job has new items or participants."""
        self.job = job
        self.plan = job.stages[self.plan.number]

    def request(self, place: int, attempt: int) -> None:
        """Has the node compute an item. Answers what the node has asked."""
        with self._lock:
            self._asked = False
            self._requests[place] = attempt
        self._wake()

    def withdraw(self, place: int, attempt: int) -> None:
        """The item is no longer wanted here; the node may be at it already."""
        with self._lock:
            if self._requests.get(place) != attempt:
                return
            del self._requests[place]
        self._wake()

    def show(self, place: int, fraction: float, *, done: bool) -> None:
        """Tells how far item ``place`` is, 0 to 1, and whether its result is here."""
        if done:
            fraction = 1.0
        with self._lock:
            self._progress += fraction - self._fractions.get(place, 0.0)
            self._fractions[place] = fraction
            self._best_progress = max(self._best_progress, self._progress)
        self._wake()

    def finish(self, error: FlotillaError | None, missing: Mapping[int, str] | None = None) -> None:
        """The wait is over: with ``error`` the node raises it, without it returns what there is.

        ``missing`` says why, by place, items will not come. Later calls change nothing.
        """
        with self._lock:
            if self._finished:
                return
            self._error = error
            self._missing = dict(missing or {})
            if error is None and not missing:
                self._best_progress = float(self.count)
        self._wake(end=True)

    def lost(self, place: int, reason: str) -> None:
        """The item will not come, which the user allows. Who gathers items looks in the end at what there is."""

    def _wake(self, *, end: bool = False) -> None:
        with self._lock:
            self._finished = self._finished or end
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if waiter.set_running_or_notify_cancel():
                waiter.set_result(None)


def _free_prefix(job: JobPlan, node_id: str) -> str:
    """What the ids of nodes that this stage adds to the running prompt begin with, and no id of the prompt does."""
    prefix = f"{node_id}."
    while any(other.startswith(prefix) for other in job.prompt):
        prefix += "."
    return prefix


def _short(reason: str) -> str:
    flat = " ".join(reason.split())
    return flat if len(flat) <= SHOWN_REASON_CHARS else flat[: SHOWN_REASON_CHARS - 1] + "…"
