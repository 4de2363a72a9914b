"""One collector of one job, as the node on the master sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..graph.classes import STAGE_CLASSES
from ..graph.plan import JobPlan, StagePlan
from ..transport.assemble import Assembly
from ..transport.memory import Reserve
from ..transport.values import Value
from ..utils.errors import InvalidInput
from .bridge import NodeBridge, NodeCalls

FIRST_ATTEMPT = 1
"""The master's own item is leased once, to the master."""


def list_given() -> InvalidInput:
    """What a collector says, on the master or on a worker, when it is given a list of results."""
    return InvalidInput(
        "The collector got a list, and it gathers one batch per item.",
        cure="Join the list into one batch in front of the collector, or use Distributed Collector (Any).",
    )


class StageRun(NodeBridge):
    """Gathers the items of one stage."""

    def __init__(
        self,
        job: JobPlan,
        plan: StagePlan,
        calls: NodeCalls,
        precision_of: Callable[[str], str],
        *,
        reserve: Reserve | None = None,
        salt: str = "",
    ) -> None:
        """As for a `NodeBridge`, and:

        Args:
            precision_of: how exactly a participant's results travel.
            reserve: where large memory for results comes from.
            salt: what tells this run from others with the same plan, where the host's cache must not answer for them.
        """
        super().__init__(job, plan, calls)
        self.fingerprint = _fingerprint(job, plan, precision_of, salt)
        self.assembly = Assembly(len(plan.items), reserve=reserve, joined=STAGE_CLASSES[plan.class_type].joins)
        self._own_place = next((item.k for item in plan.items if item.by_master_prompt), None)
        self._open = set(range(len(plan.items)))

    def own_place(self) -> int | None:
        """The place of the item that the master's own prompt computes; None when it computes none. Any thread."""
        return self._own_place

    def deliver_own(self, values: Mapping[str, Value]) -> None:
        """Takes the result of the master's own prompt into the assembly. For the prompt thread.

        Raises InvalidInput if it is the second one, because the node was given a list, or does not go with the others.
        """
        if self._own_place is None:
            raise RuntimeError("the master has no item of its own in this stage")
        if not self.assembly.put_local(self._own_place, values):
            raise list_given()
        self._calls.delivered(self.plan.items[self._own_place].index, FIRST_ATTEMPT, values)

    def results(self) -> dict[str, Any]:
        """The joined values by name, once the wait is over.

        Raises what ended the job, if something did, and InvalidInput if the values do not fit.
        """
        self._check_over()
        values: dict[str, Any] = self.assembly.finish()
        return values

    def entries(self) -> list[Any]:
        """The values of all items one by one, in item order, once the wait is over. Raises what ended the job."""
        self._check_over()
        return [value for values in self.assembly.entries().values() for value in values]

    def show(self, place: int, fraction: float, *, done: bool) -> None:
        """As for a `NodeBridge`. All items here is the end."""
        super().show(place, fraction, done=done)
        if done:
            self._open.discard(place)
            if not self._open:
                self._wake(end=True)

    def _check_over(self) -> None:
        if self._error is not None:
            raise self._error
        if not self._finished:
            raise RuntimeError("the stage's items are not all here yet")


def _fingerprint(job: JobPlan, plan: StagePlan, precision_of: Callable[[str], str], salt: str) -> str:
    """The plan's, and how exactly results arrive: the host's cache must not answer with what arrived rounded when it
    is to arrive exactly now."""
    if plan.way == "pull":  # anybody may take any item
        precisions = sorted({precision_of(participant_id) for participant_id in job.participants})
    else:
        precisions = [precision_of(item.planned_for) for item in plan.items]
    return " ".join([plan.fingerprint, *precisions, *([salt] if salt else [])])
