"""A referee for the state machine: books of its own on all that was said and ordered, and no foul goes unseen."""

from __future__ import annotations

from collections import Counter

from flotilla.jobs import events as ev
from flotilla.jobs.instructions import (
    FetchResult,
    FinishJob,
    Instruction,
    ItemChanged,
    KeepResult,
    ParticipantChanged,
    ReleaseResult,
    SendLease,
)
from flotilla.jobs.machine import Machine

Address = tuple[str, int, int, str]  # job, index, attempt, participant
NOT_SEEN = ("offline", "it has not been seen")
OPEN = ("held", "waiting", "leased", "running", "fetching")


def address(thing: object) -> Address:
    return (thing.job_id, thing.index, thing.attempt, thing.participant_id)  # type: ignore[attr-defined]


class Referee:
    """Stands between a world and the machine, and calls every foul: in the books and in what is ordered."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.events = 0
        self.leased: set[Address] = set()
        self.attempts: Counter[tuple[str, int]] = Counter()  # of all lives of a job
        self.offered: dict[Address, object] = {}
        self.kept: set[Address] = set()  # results that the machine said have arrived, and has not released
        self.delivered: Counter[tuple[str, int]] = Counter()
        self.planned: dict[str, ev.JobPlanned] = {}
        self.specs: dict[str, dict[int, ev.ItemSpec]] = {}
        self.ready: set[tuple[str, int]] = set()
        self.finished: dict[str, str] = {}
        self.online: set[str] = set()
        self.named: set[str] = set()
        self.takes_unpinned: dict[str, bool] = {}
        self.asks: set[tuple[str, int, str]] = set()
        self.seen: Counter[str] = Counter()  # rare things that happened, to see whether the world is rich enough

    def handle(self, event: ev.Event, now_s: float, *, look: bool = True) -> list[Instruction]:
        self.events += 1
        self._note(event)
        self._note_addition(event)
        before = self._views() if look else {}
        people = self._people() if look else {}
        open_before = self._is_open(event)
        instructions = self.machine.handle(event, now_s)
        self.machine.validate()
        if isinstance(event, ev.ResultFetched) and open_before and not self._is_open(event):
            self.delivered[event.job_id, event.index] += 1
        for instruction in instructions:
            self._judge(instruction, event)
        if look:
            after = self._views()
            changed = [(told.job_id, told.index) for told in instructions if isinstance(told, ItemChanged)]
            assert len(set(changed)) == len(changed)
            fresh = {key for key in after if key not in before}
            assert set(changed) - fresh == {key for key in after if key in before and before[key] != after[key]}
            moved = {told.participant_id for told in instructions if isinstance(told, ParticipantChanged)}
            others = {who for who, seen in self._people().items() if seen != people.get(who, NOT_SEEN)}
            assert moved == others, "a participant is different, and nobody was told"
        return instructions

    def _note(self, event: ev.Event) -> None:
        if isinstance(event, ev.ParticipantOnline):
            self.online.add(event.participant_id)
            self.named.add(event.participant_id)
            self.takes_unpinned[event.participant_id] = event.takes_unpinned
        elif isinstance(event, ev.ParticipantOffline):
            self.online.discard(event.participant_id)
            self.asks = {ask for ask in self.asks if ask[2] != event.participant_id}
        elif isinstance(event, ev.JobPlanned):
            if event.job_id not in self.planned:
                self.planned[event.job_id] = event
                self.specs[event.job_id] = {spec.index: spec for spec in event.items}
            self.named.update([*event.participants, *(spec.planned_for for spec in event.items)])
        elif isinstance(event, ev.ItemFinished):
            self.offered[address(event)] = event.result
            self.named.add(event.participant_id)
        elif isinstance(event, ev.ItemAsked):
            self.asks.add((event.job_id, event.group, event.participant_id))

    def _note_addition(self, event: ev.Event) -> None:
        job_id = getattr(event, "job_id", "")
        if job_id not in self.planned or job_id in self.finished:
            return
        if isinstance(event, ev.ItemsAdded):
            for spec in event.items:
                self.specs[job_id].setdefault(spec.index, spec)
                self.named.add(spec.planned_for)
        elif isinstance(event, ev.ItemsReady):
            self.ready.update((job_id, index) for index in event.indices if index in self.specs[job_id])
        elif isinstance(event, ev.ParticipantJoined):
            self.named.add(event.participant_id)

    def new_life(self, job_id: str) -> None:
        """The job is forgotten and will be planned again."""
        self.finished.pop(job_id, None)
        self.planned.pop(job_id, None)
        self.specs.pop(job_id, None)
        self.ready = {key for key in self.ready if key[0] != job_id}
        self.asks = {ask for ask in self.asks if ask[0] != job_id}
        for key in [key for key in self.delivered if key[0] == job_id]:
            del self.delivered[key]

    def restarted(self, machine: Machine) -> None:
        """The master is a new process, which knows nothing and nobody."""
        self.machine = machine
        self.online.clear()
        self.asks.clear()
        self.kept.clear()

    def _is_open(self, event: ev.Event) -> bool:
        view = self.machine.item(event.job_id, event.index) if isinstance(event, ev.ResultFetched) else None
        return view is not None and view.state in OPEN

    def _views(self) -> dict[tuple[str, int], object]:
        jobs = [self.machine.job(job_id) for job_id in self.machine.job_ids()]
        return {(job.job_id, item.index): item for job in jobs if job for item in job.items}

    def _people(self) -> dict[str, tuple[str, str]]:
        views = [self.machine.participant(who) for who in self.named]
        return {view.id: (view.state, view.reason) for view in views if view}

    def _judge(self, told: Instruction, event: ev.Event) -> None:
        if isinstance(told, FinishJob):
            self._judge_end(told, event)
        elif isinstance(told, SendLease):
            self._judge_lease(told)
        elif isinstance(told, ParticipantChanged):
            view = self.machine.participant(told.participant_id)
            self.seen["rests"] += view is not None and view.state == "resting"
        elif isinstance(told, FetchResult):
            if told.attempt <= self._spec(told.job_id, told.index).attempts_before:
                self.seen["old results"] += 1
                self.seen["kept for a held item"] += isinstance(event, ev.ItemsReady)
                self.seen["early results"] += isinstance(event, ev.ItemsAdded)
            self._judge_hold(told)
            assert self.offered[address(told)] == told.result
            assert told.participant_id in self.online
            assert told.job_id not in self.finished
        elif isinstance(told, KeepResult):
            assert address(told) in self.offered
            view = self.machine.item(told.job_id, told.index)
            assert view is not None
            assert (view.state, view.participant_id, view.attempt) == ("done", told.participant_id, told.attempt)
            self.kept.add(address(told))
        elif isinstance(told, ReleaseResult):
            assert self.offered[address(told)] == told.result
            view = self.machine.item(told.job_id, told.index)
            wanted = view is not None and view.state in OPEN
            assert not (wanted and address(told) in self.leased), "a result was given up that may be needed"
            if address(told) in self.kept:
                self.kept.discard(address(told))
                self._judge_release(told, event)

    def _judge_hold(self, told: SendLease | FetchResult) -> None:
        """What is held is left alone until it is ready."""
        spec = self._spec(told.job_id, told.index)
        assert not spec.held or (told.job_id, told.index) in self.ready, "a held item was touched"
        self.seen["ready items"] += spec.held

    def _judge_end(self, told: FinishJob, event: ev.Event) -> None:
        assert told.job_id not in self.finished, "a job finished twice"
        self.finished[told.job_id] = told.state.value
        self.seen[told.state.value] += 1
        assert (told.failure is None) == (told.state.value == "done")
        plan = self.planned[told.job_id]
        specs = self.specs[told.job_id]
        counts = {index: self.delivered[told.job_id, index] for index in specs}
        assert set(counts.values()) <= {0, 1}, "an item was delivered twice"
        if told.state.value == "done":
            assert all(counts.values()), "not every item was delivered"
        if told.state.value in ("done", "partial") and plan.late_groups:
            assert isinstance(event, ev.PromptEnded), "it ended while items could still come"
            self.seen["late " + told.state.value] += 1
        if told.state.value == "partial":
            view = self.machine.job(told.job_id)
            assert view is not None
            assert set(view.missing) == {index for index, count in counts.items() if not count} != set()
            assert all(specs[index].group in plan.partial_groups for index in view.missing)

    def _spec(self, job_id: str, index: int) -> ev.ItemSpec:
        return self.specs[job_id][index]

    def _judge_lease(self, told: SendLease) -> None:
        assert address(told) not in self.leased, "a lease was sent twice"
        assert told.participant_id in self.online
        assert told.job_id not in self.finished, "an ended job goes on"
        self.leased.add(address(told))
        self.attempts[told.job_id, told.index] = max(self.attempts[told.job_id, told.index], told.attempt)
        view = self.machine.participant(told.participant_id)
        assert view is not None
        spec = self._spec(told.job_id, told.index)
        self._judge_hold(told)
        assert told.attempt > spec.attempts_before
        if spec.pinned:
            assert told.participant_id == spec.planned_for, "a pinned item was moved"
        elif not self.takes_unpinned[told.participant_id]:
            ask = (told.job_id, spec.group, told.participant_id)
            assert ask in self.asks, "a lease for one that did not ask"
            self.asks.discard(ask)
            self.seen["answered asks"] += 1
        item = self.machine.item(told.job_id, told.index)
        if item is not None:
            self.seen["copies"] += item.copies > 1

    def _judge_release(self, told: ReleaseResult, event: ev.Event) -> None:
        """A result that the job is made of stays until nobody can want it."""
        view = self.machine.job(told.job_id)
        if view is None:
            assert isinstance(event, (ev.JobForgotten, ev.ItemFinished)), "nobody said that it is not needed"
        else:
            gathered = view.state == "done" and view.gathered
            assert gathered or view.state in ("cancelled", "dropped"), "a result was given up that may be needed"
