"""A simulated participant: it works on its leases one after the other, keeps results, and has faults."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable
from typing import Protocol

from flotilla.jobs import events as ev
from flotilla.jobs.instructions import FinishJob, Instruction, ReleaseResult, SendLease, StopLease
from flotilla.jobs.model import Failure, FailureKind

from .sim_fleet import MASTER, MASTER_SLOTS, Crash, Fault, Freeze, Member, Setup, Stall, chance

SILENCE_S = 10.0
"""A link is given up after so long a silence."""

Address = tuple[str, int, int]  # job, index, attempt
_JITTER, _FAILURE = 1, 2  # what the dice are thrown for


class Surroundings(Protocol):
    """What a worker needs of its world."""

    setup: Setup
    now_s: float
    spent: Spending

    def later(self, after_s: float, do: Callable[..., None], *arguments: object) -> None:
        """Calls ``do`` in ``after_s`` seconds."""

    def tell(self, event: ev.Event) -> None:
        """Tells the machine, now."""


class Spending:
    """Seconds of work by what became of it."""

    def __init__(self) -> None:
        self.finished_s: dict[tuple[Address, str], float] = {}  # results, wanted or not, by attempt and participant
        self.stopped_s = 0.0
        self.failed_s = 0.0
        self.lost_s = 0.0


class SimWorker:
    """One participant and the link to it. The master is one too: without a link, and it cannot stop what it has begun."""

    def __init__(self, world: Surroundings, number: int, member: Member) -> None:
        self.member = member
        self.spool: dict[Address, object] = {}
        self.linked = False
        self.alive = False
        self.frozen = False
        self.stalled = False
        self._world = world
        self._number = number
        self._latency_s = 0.0 if member.id == MASTER else world.setup.latency_s
        self._session = 0
        self._inbox: list[Instruction] = []
        self._queue: deque[Address] = deque()
        self._running: Address | None = None
        self._needs_s = 0.0  # work that the running item takes in all
        self._done_s = 0.0  # of it, up to `_since_s`
        self._since_s = 0.0
        self._cold_s = 0.0  # what the next item takes more than others
        self._turn = 0  # grows whenever what was scheduled for the running item is void

    # The link

    def join(self) -> None:
        """Starts, and is connected."""
        self.alive = True
        self._cold_s = self._world.setup.warm_up_s
        self._connect()

    def send(self, event: ev.Event) -> None:
        """A message to the machine, on its way while the link lasts."""
        if self.linked and not self.frozen:
            self._world.later(self._latency_s, self._arrive, self._session, event)

    def _arrive(self, session: int, event: ev.Event) -> None:
        if session == self._session and self.linked:
            self._world.tell(event)

    def order(self, told: Instruction) -> None:
        """A message from the machine, on its way while the link lasts."""
        if self.linked:
            self._world.later(self._latency_s, self._receive, self._session, told)

    def _receive(self, session: int, told: Instruction) -> None:
        if session != self._session or not self.linked or not self.alive:
            return
        if self.frozen:
            self._inbox.append(told)
            return
        if isinstance(told, FinishJob):
            return
        where = (told.job_id, told.index, told.attempt)  # type: ignore[union-attr]
        if isinstance(told, SendLease):
            self._queue.append(where)
            self._begin_next()
        elif isinstance(told, StopLease):
            self._stop(where)
        elif isinstance(told, ReleaseResult):
            self.spool.pop(where, None)

    def _connect(self) -> None:
        """The link is made (anew): what is still at hand is told again."""
        self.linked = True
        self._session += 1
        self._world.tell(ev.ParticipantOnline(self.member.id, self.slots, takes_unpinned=not self.is_master))
        for where in self._queue:
            self.send(ev.LeaseHeld(*where, self.member.id))
        if self._running is not None:
            self.send(ev.ItemStarted(*self._running, self.member.id))
        for where, result in self.spool.items():
            self.send(ev.ItemFinished(*where, self.member.id, result))

    def _cut(self, session: int, reason: str) -> None:
        """The link ends, if it is still that one."""
        if session == self._session and self.linked:
            self.linked = False
            self._inbox.clear()
            self._world.tell(ev.ParticipantOffline(self.member.id, reason))

    @property
    def slots(self) -> int:
        """Leases that it takes at a time."""
        return MASTER_SLOTS if self.is_master else self.member.slots

    @property
    def is_master(self) -> bool:
        """Whether it computes inside the waiting prompt."""
        return self.member.id == MASTER

    # Work

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do."""
        return self._running is None and not self._queue

    def _begin_next(self) -> None:
        if self._running is not None or not self._queue or not self.alive or self.frozen:
            return
        setup = self._world.setup
        where = self._running = self._queue.popleft()
        spread = 1.0 + setup.jitter * (2.0 * chance(setup.seed, _JITTER, *_names(where), self._number) - 1.0)
        self._needs_s = setup.base_s / self.member.speed * spread + self._cold_s
        self._cold_s = 0.0
        self._done_s = 0.0
        self.send(ev.ItemStarted(*where, self.member.id))
        self._resume()

    def _resume(self) -> None:
        """Goes on with the running item, unless it cannot move."""
        self._turn += 1
        self._since_s = self._world.now_s
        if self._running is None or self.frozen or self.stalled:
            return
        self._world.later(max(0.0, self._needs_s - self._done_s), self._finish, self._turn)
        self._plan_report()

    def _pause(self) -> None:
        """Takes account of what has been done so far; nothing goes on until `_resume`."""
        if self._running is not None and not self.frozen and not self.stalled:
            self._done_s += self._world.now_s - self._since_s
        self._turn += 1

    def _plan_report(self) -> None:
        every_s = self._world.setup.progress_every_s
        if every_s is not None:
            self._world.later(every_s, self._report, self._turn)

    def _report(self, turn: int) -> None:
        if turn != self._turn or self._running is None:
            return
        fraction = (self._done_s + self._world.now_s - self._since_s) / self._needs_s
        if fraction < 1.0:
            self.send(ev.ItemProgressed(*self._running, self.member.id, fraction))
            self._plan_report()

    def _finish(self, turn: int) -> None:
        if turn != self._turn or self._running is None:
            return
        where, self._running = self._running, None
        self._turn += 1
        setup, spent = self._world.setup, self._world.spent
        throw = 1.0 if self.is_master else chance(setup.seed, _FAILURE, *_names(where), where[2], self._number)
        if throw < setup.failures:
            spent.failed_s += self._needs_s
            failure = Failure(FailureKind.ERROR, "it broke", participant_id=self.member.id)
            self.send(ev.ItemFailed(*where, self.member.id, failure))
        else:
            spent.finished_s[where, self.member.id] = self._needs_s
            self.spool[where] = where
            self.send(ev.ItemFinished(*where, self.member.id, where))
        self._begin_next()

    def _stop(self, where: Address) -> None:
        if where in self._queue:
            self._queue.remove(where)
        elif where == self._running and not self.is_master:
            self._pause()
            self._world.spent.stopped_s += self._done_s
            self._running = None
            self._begin_next()

    # Faults

    def befall(self, fault: Fault) -> None:
        """The fault happens now."""
        self._pause()
        if isinstance(fault, Crash):
            self._crash(fault)
        elif isinstance(fault, Freeze):
            self.frozen = True
            self._world.later(SILENCE_S, self._given_up, self._session)
            self._world.later(fault.for_s, self._thaw)
        elif isinstance(fault, Stall):
            self.stalled = True
            self._world.later(fault.for_s, self._unstall)

    def _crash(self, fault: Crash) -> None:
        if self._running is not None:
            self._world.spent.lost_s += self._done_s
        self._running = None
        self._queue.clear()
        self.alive = self.frozen = self.stalled = False
        self._world.later(self._latency_s, self._cut, self._session, "its process ended")
        if fault.back_after_s is not None:
            self._world.later(fault.back_after_s, self.join)

    def _given_up(self, session: int) -> None:
        if self.frozen:
            self._cut(session, f"nothing was heard of it for {SILENCE_S:.0f} s")

    def _thaw(self) -> None:
        self.frozen = False
        self._resume()
        if not self.linked:
            self._connect()
        inbox, self._inbox = self._inbox, []
        for told in inbox:
            self._receive(self._session, told)
        self._begin_next()

    def _unstall(self) -> None:
        self.stalled = False
        self._resume()


def _names(where: Address) -> tuple[int, int]:
    """Numbers that tell this item from all others."""
    return zlib.crc32(where[0].encode()), where[1]
