"""One distributed node of one job, as the node on the master sees it.

The coordinator lives on the server's loop, a node in the loop of its prompt: this object is the bridge, and safe to use
from both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from ..graph.plan import JobPlan, StagePlan
from ..transport.assemble import Assembly
from ..transport.memory import Reserve
from ..transport.values import Value
from ..utils.errors import FlotillaError, InvalidInput

FIRST_ATTEMPT = 1
"""The master's own item is leased once, to the master."""


def list_given() -> InvalidInput:
    """What a collector says, on the master or on a worker, when it is given a list of results."""
    return InvalidInput(
        "The collector got a list, and it gathers one batch per item.",
        cure="Join the list into one batch in front of the collector.",
    )


class StageRun:
    """Gathers the items of one stage."""

    def __init__(
        self,
        job: JobPlan,
        plan: StagePlan,
        *,
        precision_of: Callable[[str], str],
        delivered: Callable[[int, int], None],
        abandoned: Callable[[], None],
        node_waits: Callable[[], None],
        reserve: Reserve | None = None,
    ) -> None:
        """``precision_of`` tells how exactly a participant's results travel. ``delivered`` is called with index and
        attempt of an item that the master has computed itself, ``abandoned`` when the node stops waiting before the end,
        ``node_waits`` when it begins to wait and could compute further items.
        Large results are gathered in memory of ``reserve``."""
        self.job = job
        self.plan = plan
        # The host's cache must not answer with what arrived rounded when it is to arrive exactly now.
        self.fingerprint = " ".join([plan.fingerprint, *(precision_of(item.planned_for) for item in plan.items)])
        self.assembly = Assembly(len(plan.items), reserve=reserve)
        self._delivered = delivered
        self._abandoned = abandoned
        self._lock = threading.Lock()
        self._fractions = [0.0] * len(plan.items)
        self._missing = set(range(len(plan.items)))
        self._error: FlotillaError | None = None
        self._finished = False
        self._waiters: list[Future[None]] = []
        self._requests: dict[int, int] = {}  # place → attempt, to be computed here
        self._node_waits = node_waits

    @property
    def count(self) -> int:
        """The number of items."""
        return len(self.plan.items)

    @property
    def finished(self) -> bool:
        """Whether waiting is over, one way or the other."""
        return self._finished

    def progress(self) -> float:
        """Items done, with the parts of those at work: 0 to `count`."""
        return sum(self._fractions)

    def own_place(self) -> int | None:
        """The place of the item that the master's own prompt computes; None when the master only coordinates."""
        return next((item.k for item in self.plan.items if item.by_master_prompt), None)

    def deliver_own(self, values: Mapping[str, Value]) -> None:
        """Takes the master's own result into the assembly. Called by the node, in the prompt thread."""
        place = self.own_place()
        if place is None:
            raise RuntimeError("the master has no item of its own in this stage")
        if not self.assembly.put_local(place, values):
            raise list_given()
        self._delivered(self.plan.items[place].index, FIRST_ATTEMPT)

    def wait_for_others(self) -> None:
        """The node has computed what was its own to compute. Called by the node, in the prompt thread."""
        self._node_waits()

    def deliver_requested(self, place: int, attempt: int, values: Mapping[str, Value]) -> None:
        """Takes a result that was asked for (`take_request`), unless somebody else's came first. By the node."""
        self.assembly.put_local(place, values)
        self._delivered(self.plan.items[place].index, attempt)

    def take_request(self) -> tuple[int, int] | None:
        """Place and attempt of an item that the node is to compute here; None while there is none. By the node."""
        with self._lock:
            return self._requests.popitem() if self._requests else None

    @property
    def wanted(self) -> bool:
        """Whether the node has something to do: an item to compute, or the end to deal with."""
        return self._finished or bool(self._requests)

    def request(self, place: int, attempt: int) -> None:
        """The coordinator has the master compute an item that nobody else is left for."""
        with self._lock:
            self._requests[place] = attempt
        self._wake(end=False)

    def withdraw(self, place: int, attempt: int) -> None:
        """The coordinator no longer wants it; the node may be at it already."""
        with self._lock:
            if self._requests.get(place) == attempt:
                del self._requests[place]

    def abandon(self) -> None:
        """The node gives up waiting (it was interrupted): the job is to stop. Any thread."""
        self._abandoned()

    def next_change(self) -> Future[None]:
        """A future that is done at the next change of progress, or at once when the node has something to do (`wanted`)."""
        waiter: Future[None] = Future()
        with self._lock:
            if self.wanted:
                waiter.set_result(None)
            else:
                self._waiters.append(waiter)
        return waiter

    def results(self) -> dict[str, Any]:
        """The gathered values by name, once the wait is over.

        Raises what ended the job, if something did, and InvalidInput if the values do not fit.
        """
        if self._error is not None:
            raise self._error
        if not self._finished:
            raise RuntimeError("the stage's items are not all here yet")
        return self.assembly.finish()

    def show(self, place: int, fraction: float, *, done: bool) -> None:
        """The coordinator tells how far item ``place`` is, 0 to 1, and whether its result is here."""
        self._fractions[place] = fraction
        if done:
            self._missing.discard(place)
        self._wake(end=not self._missing)

    def finish(self, error: FlotillaError | None) -> None:
        """The coordinator tells that the wait is over. Later calls change nothing."""
        if not self._finished:
            self._error = error
            self._wake(end=True)

    def _wake(self, *, end: bool) -> None:
        with self._lock:
            self._finished = self._finished or end
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if waiter.set_running_or_notify_cancel():
                waiter.set_result(None)
