"""The state machine under any order of events: random worlds with faults, and hypothesis's own stories."""

from __future__ import annotations

import pytest
from fakes.faulty_world import BROKEN, FaultyWorld
from fakes.referee import Address, Referee, address
from flotilla.jobs import events as ev
from flotilla.jobs.instructions import FetchResult, SendLease
from flotilla.jobs.machine import Machine
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

SEEDS = (0, 2, 3, 4, 5, 8)
LATE_SEEDS = (24, 28)  # worlds in which all jobs get items while they run
RARE = (
    *("done", "failed", "cancelled", "dropped", "partial"),
    *("copies", "answered asks", "old results", "rests"),
    *("ready items", "late done"),
)
RARE_LATE = (*RARE, "late partial", "early results", "kept for a held item")
LATE_SHARE = 0.3
EVENTS_PER_SEED = 3_000  # 24,000 in all worlds, and what comes after


@pytest.mark.parametrize("seed", [*SEEDS, *LATE_SEEDS])
def test_every_job_of_a_faulty_world_ends_and_delivers_each_item_once(seed: int) -> None:
    is_late = seed in LATE_SEEDS
    world = FaultyWorld(seed, late_share=1.0 if is_late else LATE_SHARE)
    rare = RARE_LATE if is_late else RARE
    referee = world.referee
    while referee.events < EVENTS_PER_SEED:
        world.step()
    world.quiesce()
    assert set(referee.finished) == set(referee.planned), "a job never ended"
    assert all(referee.seen[thing] for thing in rare), f"the world was too kind, unkind or dull: {referee.seen}"
    world.forget_ended(keep=0)
    assert not list(referee.machine.job_ids())
    assert not referee.kept, "a result is kept of which nobody knows any more"
    for worker in world.workers.values():  # each says once more what it has; nothing may stay behind
        for where in list(worker.spool):
            world.tell(ev.ItemFinished(*where, result=worker.spool[where]))
        assert not worker.spool, "a spool did not empty"


# Stories that hypothesis makes up: any event with any plausible content, in any order

JOBS = tuple(f"j{number}" for number in range(3))
PEOPLE = ("a", "b", "c")
people = st.sampled_from(PEOPLE)
jobs = st.sampled_from(JOBS)
places = st.tuples(jobs, st.integers(0, 6), st.integers(1, 4), people)
groups = st.integers(0, 1)
added = st.lists(
    st.builds(
        ev.ItemSpec,
        st.integers(2, 6),
        people,
        pinned=st.booleans(),
        group=groups,
        pulled=st.booleans(),
        attempts_before=st.integers(0, 2),
        held=st.booleans(),
    ),
    max_size=4,
)
specs = st.lists(
    st.builds(
        lambda who, pinned, group, pulled, before, held: (who, pinned, group, pulled, before, held),
        people,
        st.booleans(),
        groups,
        st.booleans(),
        st.integers(0, 2),
        st.booleans(),
    ),
    max_size=4,
)


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

    @rule(
        job_id=jobs,
        items=specs,
        out=st.sets(people, max_size=2),
        max_attempts=st.integers(1, 3),
        fallback=st.sampled_from([None, *PEOPLE]),
        partial=st.sets(groups),
        late=st.sets(groups),
        listed=st.sampled_from([PEOPLE, PEOPLE, ("a", "b"), ("c",)]),
    )
    def planned(
        self,
        job_id: str,
        items: list[tuple[str, bool, int, bool, int, bool]],
        out: set[str],
        max_attempts: int,
        fallback: str | None,
        partial: set[int],
        late: set[int],
        listed: tuple[str, ...],
    ) -> None:
        plan = tuple(ev.ItemSpec(index, *item) for index, item in enumerate(items))
        left_out = dict.fromkeys(sorted(out), "not this one")
        some, more = frozenset(partial), frozenset(late)
        self.tell(
            ev.JobPlanned(job_id, plan, listed, left_out, max_attempts, fallback, partial_groups=some, late_groups=more)
        )

    @rule(job_id=jobs, items=added)
    def items_added(self, job_id: str, items: list[ev.ItemSpec]) -> None:
        plan = self.referee.planned.get(job_id)
        late = frozenset() if plan is None else plan.late_groups
        self.tell(ev.ItemsAdded(job_id, tuple(item for item in items if item.group in late)))

    @rule(job_id=jobs, who=people)
    def joined(self, job_id: str, who: str) -> None:
        self.tell(ev.ParticipantJoined(job_id, who))

    @rule(job_id=jobs, indices=st.lists(st.integers(0, 7), max_size=4))
    def items_ready(self, job_id: str, indices: list[int]) -> None:
        self.tell(ev.ItemsReady(job_id, tuple(indices)))

    @rule(job_id=jobs, group=groups, who=people)
    def asked(self, job_id: str, group: int, who: str) -> None:
        self.tell(ev.ItemAsked(job_id, group, who))

    @rule(job_id=jobs)
    def gathered(self, job_id: str) -> None:
        self.tell(ev.JobGathered(job_id))

    @rule(job_id=jobs)
    def forgotten(self, job_id: str) -> None:
        if job_id in self.referee.finished:
            self.tell(ev.JobForgotten(job_id))
            assert not any(where[0] == job_id for where in self.referee.kept), "a result is kept for nobody"
            self.referee.new_life(job_id)
            self.referee.leased = {where for where in self.referee.leased if where[0] != job_id}

    @rule(job_id=jobs)
    def accepted(self, job_id: str) -> None:
        self.tell(ev.JobAccepted(job_id))

    @rule(job_id=jobs, kind=st.sampled_from([ev.JobCancelled, ev.JobDropped]))
    def stopped(self, job_id: str, kind: type[ev.JobCancelled | ev.JobDropped]) -> None:
        self.tell(kind(job_id, "because"))

    @rule(job_id=jobs, kind=st.sampled_from([ev.PromptEnded, ev.JobGathered]))
    def prompt_ended(self, job_id: str, kind: type[ev.PromptEnded | ev.JobGathered]) -> None:
        self.tell(kind(job_id))

    @rule(seconds=st.sampled_from([0.5, 5.0, 150.0]))
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

    def ask_all(self) -> None:
        for job_id in self.referee.planned:
            for group in (0, 1):
                for who in PEOPLE:
                    self.tell(ev.ItemAsked(job_id, group, who))

    def end_prompts(self) -> bool:
        """Of jobs that are only open because items could still come. False if there are none."""
        views = [view for job_id in self.referee.planned if (view := self.referee.machine.job(job_id))]
        complete = [view.job_id for view in views if view.state == "running" and not view.unfinished]
        for job_id in complete:
            self.tell(ev.PromptEnded(job_id))
            assert job_id in self.referee.finished
        return bool(complete)

    def teardown(self) -> None:
        """From any state on: good workers bring every job to an end."""
        for who in PEOPLE:
            self.tell(ev.ParticipantOffline(who, "starts anew"))
        for who in PEOPLE:
            self.tell(ev.ParticipantOnline(who))
        for job_id in self.referee.planned:
            self.tell(ev.JobAccepted(job_id))
            self.tell(ev.ItemsReady(job_id, tuple(range(8))))
        self.ask_all()
        while set(self.referee.finished) != set(self.referee.planned):
            if not self.todo:
                if self.end_prompts():
                    continue
                deadline_s = self.referee.machine.next_deadline_s()
                assert deadline_s is not None, "it waits for nothing"
                self.now_s = deadline_s
                self.tell(ev.TimePassed())
                self.ask_all()
                continue
            told = self.todo.pop()
            if isinstance(told, SendLease):
                self.tell(ev.ItemFinished(*address(told), result="good"))
            else:
                self.tell(ev.ResultFetched(*address(told)))
        for job_id in list(self.referee.planned):
            self.tell(ev.JobForgotten(job_id))
        assert not self.referee.kept


TestAnyStory = AnyStory.TestCase
