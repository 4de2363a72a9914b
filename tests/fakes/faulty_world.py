"""A world of workers, links and faults around the state machine, all by chance from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from fakes.referee import Address, Referee, address
from flotilla.jobs import events as ev
from flotilla.jobs.instructions import FetchResult, ReleaseResult, SendLease, StopLease
from flotilla.jobs.machine import Machine
from flotilla.jobs.model import Failure

WORKERS = tuple(f"w{number}" for number in range(6))
MASTER = "master"
BROKEN = Failure("error", "it broke")
MANY_TURNS = 5_000
MANY_JOBS = 8


@dataclass
class Worker:
    """What a worker keeps: leases in hand and results in its spool, both beyond the link's life."""

    hand: dict[Address, bool] = field(default_factory=dict)  # address: has it begun
    spool: dict[Address, object] = field(default_factory=dict)
    is_broken: bool = False  # all that it does fails
    is_stuck: bool = False  # nothing that it does goes on


class FaultyWorld:
    """Workers behind unreliable links. In chaos anything may get lost, come twice, late or in another order."""

    def __init__(self, seed: int, late_share: float) -> None:
        self.late_share = late_share  # of jobs that get items while they run
        self.random = random.Random(seed)
        self.referee = Referee(Machine(wait_for_return_s=5.0))
        self.now_s = 100.0
        self.workers = {worker_id: Worker() for worker_id in (MASTER, *WORKERS)}
        self.mail: list[ev.Event] = []
        self.history: list[ev.Event] = []
        self.fetches: list[FetchResult] = []
        self.poison: set[tuple[str, int]] = set()  # items that fail wherever they are tried
        self.late: dict[str, tuple[ev.ItemSpec, ...]] = {}  # items that jobs get while they run
        self.jobs = 0
        self.lives = 1
        self.chaos = True
        self.tell(ev.ParticipantOnline(MASTER, slots=100, takes_unpinned=False))

    def tell(self, event: ev.Event) -> None:
        """Gives the machine an event and carries out what it says."""
        look = self.referee.events % 5 == 0
        for told in self.referee.handle(event, self.now_s, look=look):
            if isinstance(told, FetchResult):
                self.fetches.append(told)
            elif self.chaos and self.random.random() < 0.05:
                continue
            elif isinstance(told, SendLease):
                self.workers[told.participant_id].hand[address(told)] = False
            elif isinstance(told, StopLease):
                self.workers[told.participant_id].hand.pop(address(told), None)
            elif isinstance(told, ReleaseResult):
                self.workers[told.participant_id].spool.pop(address(told), None)

    def post(self, event: ev.Event) -> None:
        """A worker's message, on its way."""
        copies = self.random.choice((0, 1, 1, 1, 1, 1, 2)) if self.chaos else 1
        self.mail.extend([event] * copies)
        self.history.append(event)
        del self.history[:-200]

    def work(self, worker_id: str) -> None:
        """A worker does a bit of what it has in hand."""
        worker = self.workers[worker_id]
        if not worker.hand or (worker.is_stuck and self.chaos):
            return
        where = self.random.choice(list(worker.hand))
        luck = self.random.random() if self.chaos else 0.5
        if not worker.hand[where]:
            if luck < 0.02:
                del worker.hand[where]
                self.post(ev.LeaseRefused(*where, reason="a model is missing"))
            else:
                worker.hand[where] = True
                self.post(ev.ItemStarted(*where))
        elif luck < 0.06 or where[:2] in self.poison or (worker.is_broken and self.chaos):
            del worker.hand[where]
            self.post(ev.ItemFailed(*where, failure=BROKEN, retry=luck > 0.004))
        elif luck < 0.4:
            self.post(ev.ItemProgressed(*where, fraction=self.random.random(), label=f"step {luck:.1f}"))
        else:
            del worker.hand[where]
            worker.spool[where] = ("blob", *where)
            self.post(ev.ItemFinished(*where, result=worker.spool[where]))

    def bring_over(self) -> None:
        """One fetch of the master comes to an end."""
        if not self.fetches:
            return
        fetch = self.fetches.pop(self.random.randrange(len(self.fetches)))
        where = address(fetch)
        there = where in self.workers[fetch.participant_id].spool
        if there and not (self.chaos and self.random.random() < 0.1):
            self.post(ev.ResultFetched(*where))
        else:
            self.post(ev.FetchFailed(*where, failure=BROKEN))

    def connect(self, worker_id: str) -> None:
        """A link opens: the worker says again what it has. Now and then it has lost its memory."""
        worker = self.workers[worker_id]
        if self.chaos:
            if self.random.random() < 0.2:
                worker.hand.clear()
                worker.spool.clear()
            worker.is_broken = self.random.random() < 0.15
            worker.is_stuck = self.random.random() < 0.1
        self.tell(ev.ParticipantOnline(worker_id, slots=self.random.choice((1, 2, 2, 3))))
        for where, begun in worker.hand.items():
            self.post(ev.ItemStarted(*where) if begun else ev.LeaseHeld(*where))
        for where, result in worker.spool.items():
            self.post(ev.ItemFinished(*where, result=result))

    def plan(self) -> None:
        """A new job, like none or any of the ways to fan out. Old ones are forgotten, some before the last word."""
        self.forget_ended(keep=4)
        open_jobs = [job_id for job_id in self.referee.planned if job_id not in self.referee.finished]
        if len(open_jobs) > MANY_JOBS:
            self.tell(ev.JobAccepted(self.random.choice(open_jobs)))
            return
        self.jobs += 1
        job_id = f"j{self.jobs}"
        chosen = self.random.sample(WORKERS, self.random.randint(1, len(WORKERS)))
        pulled = {group: self.random.random() < 0.5 for group in (0, 1)}
        items = []
        for index in range(self.random.randint(0, 8)):
            group = int(index > 4)
            items.append(ev.ItemSpec(index, self.random.choice(chosen), group=group, pulled=pulled[group]))
        if items and self.random.random() < 0.3:
            items[0] = ev.ItemSpec(0, MASTER, pinned=True)
        if len(items) > 1 and self.random.random() < 0.1:
            items[1] = ev.ItemSpec(1, chosen[0], pinned=True)
        if self.random.random() < 0.35:
            self.poison.add((job_id, self.random.randrange(8)))
        late = frozenset({1}) if self.random.random() < self.late_share else frozenset()
        if late:
            self.late[job_id] = self.late_items(chosen)
            items = items[:5]
        people = (MASTER, *chosen) if self.random.random() < 0.7 else tuple(chosen)
        self.tell(
            ev.JobPlanned(
                job_id,
                tuple(items),
                people,
                {chosen[-1]: "its model is missing"} if self.random.random() < 0.1 else {},
                fallback=MASTER if self.random.random() < 0.5 else None,
                partial_groups=frozenset(group for group in (0, 1) if self.random.random() < 0.6),
                late_groups=late,
            )
        )

    def late_items(self, chosen: list[str]) -> tuple[ev.ItemSpec, ...]:
        return tuple(
            ev.ItemSpec(index, self.random.choice(chosen), group=1, pulled=True, held=self.random.random() < 0.6)
            for index in range(5, self.random.randint(5, 11))
        )

    def plan_again(self, plan: ev.JobPlanned) -> None:
        """Another life of the job: attempts count on, and finished results are offered again."""
        self.lives += 1
        items = [
            replace(spec, attempts_before=self.referee.attempts[plan.job_id, spec.index], pinned=False)
            for spec in plan.items
        ]
        if plan.job_id in self.late:
            self.late[plan.job_id] = tuple(
                replace(spec, attempts_before=self.referee.attempts[plan.job_id, spec.index])
                for spec in self.late[plan.job_id]
            )
        self.referee.new_life(plan.job_id)
        self.tell(replace(plan, items=tuple(items)))
        for worker in self.workers.values():
            for where, result in worker.spool.items():
                if where[0] == plan.job_id:
                    self.post(ev.ItemFinished(*where, result=result))

    def restart(self) -> None:
        """The master dies and begins anew: open jobs are resumed, ended ones are forgotten, links are made anew."""
        plans = [plan for job_id, plan in self.referee.planned.items() if job_id not in self.referee.finished]
        self.referee.restarted(Machine(wait_for_return_s=5.0))
        self.fetches.clear()
        self.workers[MASTER].hand.clear()
        self.tell(ev.ParticipantOnline(MASTER, slots=100, takes_unpinned=False))
        for plan in plans:
            self.plan_again(plan)
        for worker_id in WORKERS:
            if self.random.random() < 0.7:
                self.connect(worker_id)

    def some_job(self) -> str:
        return f"j{max(1, self.jobs - self.random.randrange(8))}"

    def end_some_job(self) -> None:
        job_id = self.some_job()
        kind = self.random.randrange(3)
        if kind == 0:
            self.tell(ev.JobCancelled(job_id, "stopped by hand"))
        elif kind == 1:
            self.tell(ev.PromptEnded(job_id))
        else:
            self.tell(ev.JobDropped(job_id, "the host refused it"))

    def forget_ended(self, keep: int) -> None:
        known = list(self.referee.machine.job_ids())
        for job_id in known[: max(0, len(known) - keep)]:
            state = self.referee.finished.get(job_id)
            if state is None:
                continue
            retry = self.chaos and state in ("failed", "partial") and self.random.random() < 0.5
            if self.random.random() < 0.7:
                self.tell(ev.JobGathered(job_id))
            self.tell(ev.JobForgotten(job_id, release=not retry))
            if retry:
                self.referee.kept = {where for where in self.referee.kept if where[0] != job_id}
                self.plan_again(self.referee.planned[job_id])

    def ask(self, job_id: str) -> None:
        """The master's nodes of the job would take an item each, and say so once."""
        for group in (0, 1):
            if (job_id, group, MASTER) not in self.referee.asks:
                self.tell(ev.ItemAsked(job_id, group, MASTER))

    def go_on(self, job_id: str) -> None:
        """The node of a late stage adds some items, or finds that some may begin; its prompt ends when all is there."""
        specs = self.late.get(job_id)
        if specs is None:
            return
        some = [spec for spec in specs if not self.chaos or self.random.random() < 0.5]
        if self.chaos:
            self.random.shuffle(some)
        if not self.chaos or self.random.random() < 0.5:
            self.tell(ev.ItemsAdded(job_id, tuple(some)))
        else:
            self.tell(ev.ItemsReady(job_id, tuple(spec.index for spec in some)))
        if not self.chaos:
            self.tell(ev.ItemsReady(job_id, tuple(spec.index for spec in some)))
        view = self.referee.machine.job(job_id)
        is_complete = view is not None and not view.unfinished and len(view.items) >= len(specs)
        if view is not None and view.state == "running" and is_complete:
            self.tell(ev.PromptEnded(job_id))

    def join(self, job_id: str) -> None:
        """Somebody comes up who was not planned with."""
        self.tell(ev.ParticipantJoined(job_id, self.random.choice((MASTER, *WORKERS))))

    def deliver(self) -> None:
        if self.mail:
            at = self.random.randrange(len(self.mail)) if self.chaos else 0
            self.tell(self.mail.pop(at))

    def step(self) -> None:
        """Any one thing happens."""
        self.now_s += self.random.choice((0.0, 0.01, 0.5))
        luck = self.random.random()
        if luck < 0.02:
            self.plan()
        elif luck < 0.045:
            self.tell(ev.JobAccepted(self.some_job()))
        elif luck < 0.05:
            self.end_some_job()
        elif luck < 0.075:
            self.connect(self.random.choice(WORKERS))
        elif luck < 0.085:
            self.tell(ev.ParticipantOffline(self.random.choice(WORKERS), "the connection was lost"))
        elif luck < 0.0865:
            self.restart()
        elif luck < 0.1:
            self.now_s += self.random.choice((0.0, 0.0, 0.0, 0.0, 150.0))
            self.tell(ev.TimePassed())
        elif luck < 0.12 and self.history:
            self.tell(self.random.choice(self.history))
        elif luck < 0.16:
            self.random.choice((self.ask, self.go_on, self.join))(self.some_job())
        elif luck < 0.24:
            self.bring_over()
        elif luck < 0.5:
            self.work(self.random.choice([MASTER, *WORKERS]))
        else:
            self.deliver()

    def quiesce(self) -> None:
        """Faults end: every link is made anew, then everybody does what is left to do, whatever time it takes."""
        self.chaos = False
        self.mail.clear()
        self.fetches.clear()
        for worker_id in (MASTER, *WORKERS):
            self.tell(ev.ParticipantOffline(worker_id, "the connection was lost"))
        self.workers[MASTER].hand.clear()
        for worker_id in WORKERS:
            self.connect(worker_id)
        self.tell(ev.ParticipantOnline(MASTER, slots=100, takes_unpinned=False))
        for number in range(1, self.jobs + 1):
            self.tell(ev.JobAccepted(f"j{number}"))
        for _ in range(MANY_TURNS):
            open_jobs = [job_id for job_id in self.referee.planned if job_id not in self.referee.finished]
            for job_id in open_jobs:
                self.ask(job_id)
                self.go_on(job_id)
            if self.mail or self.fetches or any(worker.hand for worker in self.workers.values()):
                for worker_id in self.workers:
                    self.work(worker_id)
                self.bring_over()
                self.deliver()
            elif (deadline_s := self.referee.machine.next_deadline_s()) is not None:
                self.now_s = max(self.now_s, deadline_s)
                self.tell(ev.TimePassed())
            else:
                return
        raise AssertionError("the world never came to rest")
