"""The state machine under any order of events: random worlds with faults, and hypothesis's own stories."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from flotilla.jobs import events as ev
from flotilla.jobs.instructions import (
    FetchResult,
    FinishJob,
    Instruction,
    ItemChanged,
    ReleaseResult,
    SendLease,
    StopLease,
)
from flotilla.jobs.machine import Machine
from flotilla.jobs.model import Failure
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

Address = tuple[str, int, int, str]  # job, index, attempt, participant
WORKERS = tuple(f"w{number}" for number in range(6))
MASTER = "master"
BROKEN = Failure("error", "it broke")


def address(thing: object) -> Address:
    return (thing.job_id, thing.index, thing.attempt, thing.participant_id)  # type: ignore[attr-defined]


class Referee:
    """Stands between a world and the machine, and calls every foul: in the books and in what is ordered."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.events = 0
        self.leased: set[Address] = set()
        self.offered: dict[Address, object] = {}
        self.delivered: Counter[tuple[str, int]] = Counter()
        self.planned: dict[str, int] = {}
        self.finished: dict[str, str] = {}
        self.online: set[str] = set()

    def handle(self, event: ev.Event, now_s: float, *, look: bool = True) -> list[Instruction]:
        self.events += 1
        if isinstance(event, ev.ParticipantOnline):
            self.online.add(event.participant_id)
        elif isinstance(event, ev.ParticipantOffline):
            self.online.discard(event.participant_id)
        elif isinstance(event, ev.JobPlanned):
            self.planned.setdefault(event.job_id, len(event.items))
        elif isinstance(event, ev.ItemFinished):
            self.offered[address(event)] = event.result
        before = self._views() if look else {}
        open_before = self._is_open(event)
        instructions = self.machine.handle(event, now_s)
        self.machine.validate()
        if isinstance(event, ev.ResultFetched) and open_before and not self._is_open(event):
            self.delivered[event.job_id, event.index] += 1
        for instruction in instructions:
            self._judge(instruction)
        if look:
            after = self._views()
            changed = [(told.job_id, told.index) for told in instructions if isinstance(told, ItemChanged)]
            assert len(set(changed)) == len(changed)
            assert set(changed) == {key for key in after if key in before and before[key] != after[key]}
        return instructions

    def _is_open(self, event: ev.Event) -> bool:
        view = self.machine.item(event.job_id, event.index) if isinstance(event, ev.ResultFetched) else None
        return view is not None and view.state in ("waiting", "leased", "running", "fetching")

    def _views(self) -> dict[tuple[str, int], object]:
        jobs = [self.machine.job(job_id) for job_id in self.machine.job_ids()]
        return {(job.job_id, item.index): item for job in jobs if job for item in job.items}

    def _judge(self, told: Instruction) -> None:
        if isinstance(told, FinishJob):
            assert told.job_id not in self.finished, "a job finished twice"
            self.finished[told.job_id] = told.state.value
            assert (told.failure is None) == (told.state.value == "done")
            if told.state.value == "done":
                counts = [self.delivered[told.job_id, index] for index in range(self.planned[told.job_id])]
                assert counts == [1] * len(counts), "not every item was delivered exactly once"
        elif isinstance(told, SendLease):
            assert address(told) not in self.leased, "a lease was sent twice"
            assert told.participant_id in self.online
            assert told.job_id not in self.finished, "an ended job goes on"
            self.leased.add(address(told))
        elif isinstance(told, FetchResult):
            assert self.offered[address(told)] == told.result
            assert told.participant_id in self.online
            assert told.job_id not in self.finished
        elif isinstance(told, ReleaseResult):
            assert self.offered[address(told)] == told.result
            view = self.machine.item(told.job_id, told.index)
            wanted = view is not None and view.state in ("waiting", "leased", "running", "fetching")
            assert not (wanted and address(told) in self.leased), "a result was given up that may be needed"


# A world with workers, links and faults


@dataclass
class Worker:
    """What a worker keeps: leases in hand and results in its spool, both beyond the link's life."""

    hand: dict[Address, bool] = field(default_factory=dict)  # address: has it begun
    spool: dict[Address, object] = field(default_factory=dict)


class World:
    """Workers behind unreliable links. In chaos anything may get lost, come twice, late or in another order."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.referee = Referee(Machine(wait_for_return_s=5.0))
        self.now_s = 100.0
        self.workers = {worker_id: Worker() for worker_id in (MASTER, *WORKERS)}
        self.mail: list[ev.Event] = []
        self.history: list[ev.Event] = []
        self.fetches: list[FetchResult] = []
        self.jobs = 0
        self.chaos = True
        self.tell(ev.ParticipantOnline(MASTER, slots=3, takes_unpinned=False))

    def tell(self, event: ev.Event) -> None:
        """Gives the machine an event and carries out what it says."""
        look = self.referee.events % 5 == 0
        for told in self.referee.handle(event, self.now_s, look=look):
            if isinstance(told, (ItemChanged, FinishJob)):
                continue
            worker = self.workers[told.participant_id]
            if isinstance(told, FetchResult):
                self.fetches.append(told)
            elif self.chaos and self.random.random() < 0.05:
                continue
            elif isinstance(told, SendLease):
                worker.hand[address(told)] = False
            elif isinstance(told, StopLease):
                worker.hand.pop(address(told), None)
            elif isinstance(told, ReleaseResult):
                worker.spool.pop(address(told), None)

    def post(self, event: ev.Event) -> None:
        """A worker's message, on its way."""
        copies = self.random.choice((0, 1, 1, 1, 1, 1, 2)) if self.chaos else 1
        self.mail.extend([event] * copies)
        self.history.append(event)
        del self.history[:-200]

    def work(self, worker_id: str) -> None:
        """A worker does a bit of what it has in hand."""
        worker = self.workers[worker_id]
        if not worker.hand:
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
        elif luck < 0.06:
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
        if self.chaos and self.random.random() < 0.2:
            worker.hand.clear()
            worker.spool.clear()
        self.tell(ev.ParticipantOnline(worker_id, slots=self.random.choice((1, 2, 2, 3))))
        for where, begun in worker.hand.items():
            self.post(ev.ItemStarted(*where) if begun else ev.LeaseHeld(*where))
        for where, result in worker.spool.items():
            self.post(ev.ItemFinished(*where, result=result))

    def plan(self) -> None:
        """A new job, like none or any of the ways to fan out. Old ones are forgotten, some before the last word."""
        self.forget_ended(keep=4)
        self.jobs += 1
        job_id = f"j{self.jobs}"
        chosen = self.random.sample(WORKERS, self.random.randint(1, len(WORKERS)))
        items = [ev.ItemSpec(index, self.random.choice(chosen)) for index in range(self.random.randint(0, 6))]
        if items and self.random.random() < 0.3:
            items[0] = ev.ItemSpec(0, MASTER, pinned=True)
        if len(items) > 1 and self.random.random() < 0.1:
            items[1] = ev.ItemSpec(1, chosen[0], pinned=True)
        left_out = {chosen[-1]: "its model is missing"} if self.random.random() < 0.1 else {}
        self.tell(ev.JobPlanned(job_id, tuple(items), (MASTER, *chosen), left_out))

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
            if job_id in self.referee.finished:
                self.tell(ev.JobGathered(job_id))
                self.referee.machine.forget(job_id)

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
        elif luck < 0.055:
            self.end_some_job()
        elif luck < 0.075:
            self.connect(self.random.choice(WORKERS))
        elif luck < 0.085:
            self.tell(ev.ParticipantOffline(self.random.choice(WORKERS), "the connection was lost"))
        elif luck < 0.1:
            self.tell(ev.TimePassed())
        elif luck < 0.12 and self.history:
            self.tell(self.random.choice(self.history))
        elif luck < 0.2:
            self.bring_over()
        elif luck < 0.5:
            self.work(self.random.choice([MASTER, *WORKERS]))
        else:
            self.deliver()

    def quiesce(self) -> None:
        """Faults end: every link is made anew, then everybody does what is left to do."""
        self.chaos = False
        self.mail.clear()
        self.fetches.clear()
        for worker_id in (MASTER, *WORKERS):
            self.tell(ev.ParticipantOffline(worker_id, "the connection was lost"))
        for worker_id in WORKERS:
            self.connect(worker_id)
        self.tell(ev.ParticipantOnline(MASTER, slots=3, takes_unpinned=False))
        for number in range(1, self.jobs + 1):
            self.tell(ev.JobAccepted(f"j{number}"))
        while self.mail or self.fetches or any(worker.hand for worker in self.workers.values()):
            for worker_id in self.workers:
                self.work(worker_id)
            self.bring_over()
            self.deliver()
        while (deadline_s := self.referee.machine.next_deadline_s()) is not None:
            self.now_s = deadline_s
            self.tell(ev.TimePassed())


@pytest.mark.parametrize("seed", range(8))
def test_every_job_of_a_faulty_world_ends_and_delivers_each_item_once(seed: int) -> None:
    world = World(seed)
    while world.referee.events < 2_500:  # 20,000 in all eight worlds, and what comes after
        world.step()
    world.quiesce()
    referee = world.referee
    assert set(referee.finished) == set(referee.planned), "a job never ended"
    ends = Counter(referee.finished.values())
    assert ends["done"] and ends["failed"] and ends["cancelled"] and ends["dropped"], "the world was too kind or unkind"
    for worker in world.workers.values():  # each says once more what it has; nothing may stay behind
        for where in list(worker.spool):
            world.tell(ev.ItemFinished(*where, result=worker.spool[where]))
        assert not worker.spool, "a spool did not empty"


# Stories that hypothesis makes up: any event with any plausible content, in any order

JOBS = tuple(f"j{number}" for number in range(3))
PEOPLE = ("a", "b", "c")
people = st.sampled_from(PEOPLE)
jobs = st.sampled_from(JOBS)
places = st.tuples(jobs, st.integers(0, 3), st.integers(1, 4), people)
specs = st.lists(st.tuples(people, st.booleans()), max_size=4)


class AnyStory(RuleBasedStateMachine):
    """No world at all: whatever is said, the books stay in order, and all jobs can still be brought to an end."""

    def __init__(self) -> None:
        super().__init__()
        self.referee = Referee(Machine(max_lost=1))
        self.now_s = 0.0
        self.todo: list[SendLease | FetchResult] = []

    def tell(self, event: ev.Event) -> None:
        for told in self.referee.handle(event, self.now_s):
            if isinstance(told, (SendLease, FetchResult)):
                self.todo.append(told)

    @rule(who=people, slots=st.integers(0, 3), takes_unpinned=st.booleans())
    def online(self, who: str, slots: int, takes_unpinned: bool) -> None:
        self.tell(ev.ParticipantOnline(who, slots, takes_unpinned))

    @rule(who=people)
    def offline(self, who: str) -> None:
        self.tell(ev.ParticipantOffline(who, "gone"))

    @rule(job_id=jobs, items=specs, out=st.sets(people, max_size=2), max_attempts=st.integers(1, 3))
    def planned(self, job_id: str, items: list[tuple[str, bool]], out: set[str], max_attempts: int) -> None:
        plan = tuple(ev.ItemSpec(index, who, pinned) for index, (who, pinned) in enumerate(items))
        left_out = dict.fromkeys(sorted(out), "not this one")
        self.tell(ev.JobPlanned(job_id, plan, PEOPLE, left_out, max_attempts))

    @rule(job_id=jobs)
    def accepted(self, job_id: str) -> None:
        self.tell(ev.JobAccepted(job_id))

    @rule(job_id=jobs, kind=st.sampled_from([ev.JobCancelled, ev.JobDropped]))
    def stopped(self, job_id: str, kind: type[ev.JobCancelled | ev.JobDropped]) -> None:
        self.tell(kind(job_id, "because"))

    @rule(job_id=jobs, kind=st.sampled_from([ev.PromptEnded, ev.JobGathered]))
    def prompt_ended(self, job_id: str, kind: type[ev.PromptEnded | ev.JobGathered]) -> None:
        self.tell(kind(job_id))

    @rule(seconds=st.sampled_from([0.5, 5.0]))
    def time_passed(self, seconds: float) -> None:
        self.now_s += seconds
        self.tell(ev.TimePassed())

    @rule(where=places, kind=st.sampled_from([ev.ItemStarted, ev.LeaseHeld, ev.ResultFetched]))
    def anything(self, where: Address, kind: type[ev.ItemStarted | ev.LeaseHeld | ev.ResultFetched]) -> None:
        self.tell(kind(*where))

    @rule(where=places)
    def any_result(self, where: Address) -> None:
        self.tell(ev.ItemFinished(*where, result=where))

    @precondition(lambda self: self.referee.leased)
    @rule(data=st.data())
    def something_leased(self, data: st.DataObject) -> None:
        """Weighted towards what is really going on, or was."""
        where = data.draw(st.sampled_from(sorted(self.referee.leased)))
        choices: list[ev.Event] = [
            ev.ItemStarted(*where),
            ev.ItemProgressed(*where, fraction=0.5, label="half"),
            ev.ItemProgressed(*where, fraction=float("nan")),
            ev.ItemFinished(*where, result=where),
            ev.ItemFailed(*where, failure=BROKEN),
            ev.ItemFailed(*where, failure=BROKEN, retry=False),
            ev.ResultFetched(*where),
            ev.FetchFailed(*where, failure=BROKEN),
            ev.LeaseRefused(*where, reason="cannot"),
        ]
        event = data.draw(st.sampled_from(choices))
        self.tell(event)

    @invariant()
    def nothing_due_is_forgotten(self) -> None:
        deadline_s = self.referee.machine.next_deadline_s()
        assert deadline_s is None or deadline_s >= self.now_s

    def teardown(self) -> None:
        """From any state on: good workers bring every job to an end."""
        for who in PEOPLE:
            self.tell(ev.ParticipantOffline(who, "starts anew"))
        for who in PEOPLE:
            self.tell(ev.ParticipantOnline(who))
        for job_id in self.referee.planned:
            self.tell(ev.JobAccepted(job_id))
        while self.todo:
            told = self.todo.pop()
            if isinstance(told, SendLease):
                self.tell(ev.ItemFinished(*address(told), result="good"))
            else:
                self.tell(ev.ResultFetched(*address(told)))
        assert set(self.referee.finished) == set(self.referee.planned)


TestAnyStory = AnyStory.TestCase
