"""One distributed node of one job, as the node on the master sees it.

The coordinator lives on the server's loop, a node in the loop of its prompt: this object is the bridge, and safe to use
from both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from ..graph.classes import STAGE_CLASSES
from ..graph.plan import JobPlan, StagePlan
from ..transport.assemble import Assembly
from ..transport.memory import Reserve
from ..transport.values import Value
from ..utils.errors import FlotillaError, InvalidInput

FIRST_ATTEMPT = 1
"""The master's own item is leased once, to the master."""

SHOWN_MISSING = 8
"""Most missing items that a note names; the others are counted."""

SHOWN_REASON_CHARS = 200


def list_given() -> InvalidInput:
    """What a collector says, on the master or on a worker, when it is given a list of results."""
    return InvalidInput(
        "The collector got a list, and it gathers one batch per item.",
        cure="Join the list into one batch in front of the collector, or use Distributed Collector (Any).",
    )


class StageRun:
    """Gathers the items of one stage."""

    def __init__(
        self,
        job: JobPlan,
        plan: StagePlan,
        *,
        precision_of: Callable[[str], str],
        delivered: Callable[[int, int, Mapping[str, Value]], None],
        abandoned: Callable[[], None],
        asks: Callable[[], None],
        reserve: Reserve | None = None,
        salt: str = "",
    ) -> None:
        """The callbacks may be called in any thread.

        Args:
            job: the whole job.
            plan: this stage of it.
            precision_of: how exactly a participant's results travel.
            delivered: gets index, attempt and values of an item that the master has computed itself.
            abandoned: called when the node stops waiting before the end.
            asks: called when the node would compute one more item now; not again before that was answered.
            reserve: where large memory for results comes from.
            salt: what tells this run from others with the same plan, where the host's cache must not answer for them.
        """
        self.job = job
        self.plan = plan
        self.fingerprint = _fingerprint(job, plan, precision_of, salt)
        self.assembly = Assembly(len(plan.items), reserve=reserve, joined=STAGE_CLASSES[plan.class_type].joins)
        self.expansion_prefix = _free_prefix(job, plan.node_id)
        self._delivered = delivered
        self._abandoned = abandoned
        self._asks = asks
        self._lock = threading.Lock()
        self._own_place = next((item.k for item in plan.items if item.by_master_prompt), None)
        self._fractions = [0.0] * len(plan.items)
        self._progress = 0.0
        self._best_progress = 0.0
        self._open = set(range(len(plan.items)))
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

    def own_place(self) -> int | None:
        """The place of the item that the master's own prompt computes; None when it computes none. Any thread."""
        return self._own_place

    # Called by the node, in the prompt thread

    def deliver_own(self, values: Mapping[str, Value]) -> None:
        """Takes the result of the master's own prompt into the assembly.

        Raises InvalidInput if it is the second one, because the node was given a list, or does not go with the others.
        """
        if self._own_place is None:
            raise RuntimeError("the master has no item of its own in this stage")
        if not self.assembly.put_local(self._own_place, values):
            raise list_given()
        self._delivered(self.plan.items[self._own_place].index, FIRST_ATTEMPT, values)

    def ask(self) -> None:
        """Says that one more item could be computed here now. Harmless while the last time is unanswered, and after
        the end."""
        with self._lock:
            if self._asked or self._finished or self._requests:
                return
            self._asked = True
        self._asks()

    def take_request(self) -> tuple[int, int] | None:
        """Place and attempt of an item that is to be computed here; None while there is none."""
        with self._lock:
            return self._requests.popitem() if self._requests else None

    def deliver_requested(self, place: int, attempt: int, values: Mapping[str, Value]) -> None:
        """Takes a result that was asked for (`take_request`), unless somebody else's came first. Raises InvalidInput."""
        self.assembly.put_local(place, values)
        self._delivered(self.plan.items[place].index, attempt, values)

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

    def results(self) -> dict[str, Any]:
        """The joined values by name, once the wait is over.

        Raises what ended the job, if something did, and InvalidInput if the values do not fit.
        """
        self._check_over()
        return self.assembly.finish()

    def entries(self) -> list[Any]:
        """The values of all items one by one, in item order, once the wait is over. Raises what ended the job."""
        self._check_over()
        return [value for values in self.assembly.entries().values() for value in values]

    def missing_note(self) -> str:
        """One line for people that says which items are missing and why; "" when none is."""
        if not self._missing:
            return ""
        named = [f"item {place} ({_short(self._missing[place])})" for place in sorted(self._missing)[:SHOWN_MISSING]]
        more = len(self._missing) - len(named)
        listed = "; ".join(named) + (f"; and {more} more" if more else "")
        verb = "is" if len(self._missing) == 1 else "are"
        return f"{len(self._missing)} of {self.count} items {verb} missing: {listed}"

    def abandon(self) -> None:
        """Gives up waiting (the prompt was interrupted): the job is to stop."""
        self._abandoned()

    # Called by the coordinator, on the server's loop

    def request(self, place: int, attempt: int) -> None:
        """Has the node compute an item. Answers what the node has asked."""
        with self._lock:
            self._asked = False
            self._requests[place] = attempt
        self._wake(end=False)

    def withdraw(self, place: int, attempt: int) -> None:
        """The item is no longer wanted here; the node may be at it already."""
        with self._lock:
            if self._requests.get(place) != attempt:
                return
            del self._requests[place]
        self._wake(end=False)

    def show(self, place: int, fraction: float, *, done: bool) -> None:
        """Tells how far item ``place`` is, 0 to 1, and whether its result is here. All of them here is the end."""
        if done:
            fraction = 1.0
        with self._lock:
            self._progress += fraction - self._fractions[place]
            self._fractions[place] = fraction
            self._best_progress = max(self._best_progress, self._progress)
            if done:
                self._open.discard(place)
        self._wake(end=not self._open)

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

    def _check_over(self) -> None:
        if self._error is not None:
            raise self._error
        if not self._finished:
            raise RuntimeError("the stage's items are not all here yet")

    def _wake(self, *, end: bool) -> None:
        with self._lock:
            self._finished = self._finished or end
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if waiter.set_running_or_notify_cancel():
                waiter.set_result(None)


def _fingerprint(job: JobPlan, plan: StagePlan, precision_of: Callable[[str], str], salt: str) -> str:
    """The plan's, and how exactly results arrive: the host's cache must not answer with what arrived rounded when it
    is to arrive exactly now."""
    if plan.way == "pull":  # anybody may take any item
        precisions = sorted({precision_of(participant_id) for participant_id in job.participants})
    else:
        precisions = [precision_of(item.planned_for) for item in plan.items]
    return " ".join([plan.fingerprint, *precisions, *([salt] if salt else [])])


def _free_prefix(job: JobPlan, node_id: str) -> str:
    """What the ids of nodes that this stage adds to the running prompt begin with, and no id of the prompt does."""
    prefix = f"{node_id}."
    while any(other.startswith(prefix) for other in job.prompt):
        prefix += "."
    return prefix


def _short(reason: str) -> str:
    flat = " ".join(reason.split())
    return flat if len(flat) <= SHOWN_REASON_CHARS else flat[: SHOWN_REASON_CHARS - 1] + "…"
