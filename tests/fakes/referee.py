"""A referee for the state machine: books of its own on all that was said and ordered, and no foul goes unseen."""

from __future__ import annotations

from collections import Counter

from flotilla.jobs import events as ev
from flotilla.jobs.instructions import (
    FetchResult,
    FinishJob,
    Instruction,
    ItemChanged,
    ReleaseResult,
    SendLease,
)
from flotilla.jobs.machine import Machine

Address = tuple[str, int, int, str]  # job, index, attempt, participant


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
