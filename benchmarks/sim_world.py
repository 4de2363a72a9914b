"""The real state machine of jobs on a fake clock, among simulated participants.

    outcome = SimWorld(Setup(members=(Member("a", speed=4.0), Member("b")), items=100)).run()

Everything follows from the `sim_fleet.Setup`: two runs of it are equal, but for how long the machine took.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flotilla.jobs import events as ev
from flotilla.jobs.instructions import FetchResult, FinishJob, Instruction, SendLease
from flotilla.jobs.machine import Machine
from flotilla.jobs.model import Failure, FailureKind, JobState
from flotilla.jobs.selection import choose_route

from .sim_fleet import MASTER, Setup, lower_bound_s
from .sim_worker import SimWorker, Spending

SETTLE_S = 60.0
"""How long after the last job's end the world goes on, so that what is to be stopped and released is."""

PATIENCE_BOUNDS, PATIENCE_S = 20.0, 600.0
"""A run takes at most so many lower bounds and so many seconds more: else it is taken for one that hangs."""

_JOB = "job"


class NeverEnds(RuntimeError):
    """A job is open and nothing will happen any more, or nothing of use has for far too long."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a simulation. Seconds of the fake clock, but for ``handling_s`` and ``slowest_s``: processor time."""

    states: tuple[JobState, ...]
    makespan_s: float
    bound_s: float
    useful_s: float  # work whose result was taken
    vain_s: float  # work stopped, or finished and not taken
    failed_s: float  # work that raised
    lost_s: float  # work lost with its process
    events: int
    handling_s: float  # in the machine
    slowest_s: float  # for one event
    kept: int  # results that nobody has released in the end
    taken: dict[str, int]  # items by the participant whose result was taken

    @property
    def ratio(self) -> float:
        """Makespan over lower bound."""
        return self.makespan_s / self.bound_s if self.bound_s else math.inf

    @property
    def vain(self) -> float:
        """Work done in vain as a part of the useful work."""
        return self.vain_s / self.useful_s if self.useful_s else 0.0

    @property
    def events_per_s(self) -> float:
        """Events that the machine handles in a second of processor time: what else the computer does is left out."""
        return self.events / self.handling_s


class SimWorld:
    """A clock, a fleet and the machine. ``check_every``: its invariants are checked after every so many events (0 = never)."""

    def __init__(self, setup: Setup, *, check_every: int = 0) -> None:
        self.setup = setup
        self.now_s = 0.0
        self.spent = Spending()
        self.machine = Machine()
        self.events = 0
        self.handling_s = 0.0
        self.finished: dict[str, FinishJob] = {}
        self.ended_s = 0.0
        self._check_every = check_every
        self._slowest_s = 0.0
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = itertools.count()
        self._alarm_s: float | None = None
        self._jobs: list[str] = []
        self._master_asked = False
        self._workers = {member.id: SimWorker(self, number, member) for number, member in enumerate(self.setup.members)}

    def run(self) -> Outcome:
        """Plans the work, lets it happen and sums up. Raises `NeverEnds`."""
        self.begin()
        bound_s = lower_bound_s(self.setup)
        give_up_s = PATIENCE_S + (bound_s * PATIENCE_BOUNDS if math.isfinite(bound_s) else 0.0)
        while len(self.finished) < len(self._jobs):
            if not self.step() or self.now_s > give_up_s:
                raise NeverEnds(f"at {self.now_s:.1f} s: {self._unfinished()}")
        events, handling_s, slowest_s = self.events, self.handling_s, self._slowest_s
        self._settle()
        useful_s, taken = self._useful()
        return Outcome(
            states=tuple(self.finished[job_id].state for job_id in self._jobs),
            makespan_s=self.ended_s,
            bound_s=bound_s,
            useful_s=useful_s,
            vain_s=max(0.0, sum(self.spent.finished_s.values()) - useful_s) + self.spent.stopped_s,
            failed_s=self.spent.failed_s,
            lost_s=self.spent.lost_s,
            events=events,
            handling_s=handling_s,
            slowest_s=slowest_s,
            kept=sum(len(worker.spool) for worker in self._workers.values() if worker.linked),
            taken=taken,
        )

    def begin(self) -> None:
        """Connects who is there from the start, plans all jobs and has them accepted."""
        for worker in self._workers.values():
            if worker.member.joins_s > 0.0:
                self.later(worker.member.joins_s, worker.join)
            else:
                worker.join()
            for fault in worker.member.faults:
                self.later(fault.at_s, worker.befall, fault)
        for planned in _plan(self.setup, self.machine):
            self._jobs.append(planned.job_id)
            self.tell(planned)
            self.tell(ev.JobAccepted(planned.job_id))
        self.later(0.0, self._ask)

    def step(self) -> bool:
        """The next thing happens; False when nothing is left to happen."""
        if not self._agenda:
            return False
        self.now_s, _, do, arguments = heapq.heappop(self._agenda)
        do(*arguments)
        return True

    # For the workers

    def later(self, after_s: float, do: Callable[..., None], *arguments: object) -> None:
        """Calls ``do`` in ``after_s`` seconds; never, if that is inf. What is due at one time happens in this order."""
        if math.isfinite(after_s):
            heapq.heappush(self._agenda, (self.now_s + after_s, next(self._order), do, arguments))

    def tell(self, event: ev.Event) -> None:
        """Tells the machine, and carries out what it says."""
        began_s = time.thread_time()
        instructions = self.machine.handle(event, self.now_s)
        deadline_s = self.machine.next_deadline_s()
        took_s = time.thread_time() - began_s
        self.handling_s += took_s
        self._slowest_s = max(self._slowest_s, took_s)
        self.events += 1
        if self._check_every and self.events % self._check_every == 0:
            self.machine.validate()
        if deadline_s is not None and (self._alarm_s is None or deadline_s < self._alarm_s):
            self._alarm_s = deadline_s
            self.later(max(0.0, deadline_s - self.now_s), self._ring, deadline_s)
        for told in instructions:
            self._carry_out(told)

    # The coordinator's part

    def _ring(self, alarm_s: float) -> None:
        """The machine's deadline has come; a later one than this is looked up with it."""
        if alarm_s == self._alarm_s:
            self._alarm_s = None
            self.tell(ev.TimePassed())

    def _carry_out(self, told: Instruction) -> None:
        if isinstance(told, FinishJob):
            self.finished[told.job_id] = told
            self.ended_s = self.now_s
            return
        worker = self._workers.get(getattr(told, "participant_id", ""))
        if worker is None or not hasattr(told, "attempt"):  # an item or a participant has changed: for screens only
            return
        if isinstance(told, FetchResult):
            trip_s = 0.0 if worker.is_master else self.setup.fetch_s + 2.0 * self.setup.latency_s
            self.later(trip_s, self._fetched, worker, told)
            return
        if worker.is_master:
            self._master_asked = self._master_asked and not isinstance(told, SendLease)
        worker.order(told)
        if worker.is_master:
            self.later(0.0, self._ask)

    def _fetched(self, worker: SimWorker, fetch: FetchResult) -> None:
        where = (fetch.job_id, fetch.index, fetch.attempt)
        if worker.linked and not worker.frozen and where in worker.spool:
            self.tell(ev.ResultFetched(*where, worker.member.id))
        else:
            failure = Failure(FailureKind.TRANSFER, "it could not be reached")
            self.tell(ev.FetchFailed(*where, worker.member.id, failure))
        if worker.is_master:
            self._ask()

    def _ask(self) -> None:
        """The master's node, when it has nothing to compute, asks for one more item."""
        master = self._workers.get(MASTER)
        if master is None or not master.is_idle or self._master_asked or _JOB in self.finished:
            return
        self._master_asked = True
        self.tell(ev.ItemAsked(_JOB, 0, MASTER))

    # The end

    def _settle(self) -> None:
        for job_id in self._jobs:
            self.tell(ev.JobGathered(job_id))
        last_s = self.ended_s + SETTLE_S
        while self._agenda and self._agenda[0][0] <= last_s:
            self.step()

    def _useful(self) -> tuple[float, dict[str, int]]:
        """Seconds of work whose results were taken, and items by who made them."""
        useful_s, taken = 0.0, dict.fromkeys(self._workers, 0)
        for job_id in self._jobs:
            for index in range(self.setup.items) if self.setup.way != "route" else (0,):
                view = self.machine.item(job_id, index)
                if view is None or view.state != "done" or view.attempt is None or view.participant_id is None:
                    continue
                useful_s += self.spent.finished_s[(job_id, index, view.attempt), view.participant_id]
                taken[view.participant_id] += 1
        return useful_s, taken

    def _unfinished(self) -> list[Any]:
        job_id = next(job_id for job_id in self._jobs if job_id not in self.finished)
        view = self.machine.job(job_id)
        open_items = [item for item in view.items if item.state not in ("done", "failed")] if view else []
        return open_items[:3]


def _plan(setup: Setup, machine: Machine) -> Sequence[ev.JobPlanned] | Any:
    """The jobs one after the other; a route is chosen when the machine knows of the ones before it."""
    ids = tuple(member.id for member in setup.members)
    fallback = MASTER if MASTER in ids else None
    if setup.way == "route":
        for number in range(setup.items):
            aim = choose_route(ids, machine.load)
            spec = ev.ItemSpec(0, aim)
            yield ev.JobPlanned(f"{_JOB}{number}", (spec,), ids, max_attempts=setup.max_attempts, fallback=fallback)
        return
    specs = tuple(
        ev.ItemSpec(
            index,
            ids[index % len(ids)],
            pinned=index == 0 and ids[0] == MASTER,
            pulled=setup.way == "pull",
        )
        for index in range(setup.items)
    )
    yield ev.JobPlanned(_JOB, specs, ids, max_attempts=setup.max_attempts, fallback=fallback)
