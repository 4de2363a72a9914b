"""The state machine on a desk: a clock that the test owns, short words for events, and the books checked at each call."""

from __future__ import annotations

from flotilla.jobs import events as ev
from flotilla.jobs.instructions import FinishJob, Instruction, ItemChanged, SendLease
from flotilla.jobs.machine import Machine
from flotilla.jobs.model import Failure

BROKEN = Failure("error", "it broke", traceback="Traceback ...", node_id="7", node_type="Breaker")
J = "job"


class Desk:
    """A machine with its clock; every call checks the books."""

    def __init__(self, *online: str, slots: int = 2, **settings: float) -> None:
        self.machine = Machine(**settings)  # type: ignore[arg-type]
        self.now_s = 100.0
        for participant_id in online:
            self.tell(ev.ParticipantOnline(participant_id, slots))

    def tell(self, *told: ev.Event) -> list[Instruction]:
        """The instructions of these events, without the notes of changed items."""
        out: list[Instruction] = []
        for event in told:
            out += self.machine.handle(event, self.now_s)
            self.machine.validate()
        return [instruction for instruction in out if not isinstance(instruction, ItemChanged)]

    def plan(self, *planned_for: str, job_id: str = J, pinned: tuple[int, ...] = (), **plan: object) -> None:
        participants = plan.pop("participants", None) or tuple(dict.fromkeys(planned_for))
        specs = tuple(ev.ItemSpec(index, who, index in pinned) for index, who in enumerate(planned_for))
        self.tell(ev.JobPlanned(job_id, specs, participants, **plan))  # type: ignore[arg-type]

    def start(self, *planned_for: str, job_id: str = J, **plan: object) -> list[Instruction]:
        self.plan(*planned_for, job_id=job_id, **plan)  # type: ignore[arg-type]
        return self.tell(ev.JobAccepted(job_id))

    def finish(self, index: int, attempt: int, who: str) -> list[Instruction]:
        return self.tell(finished(index, attempt, who), ev.ResultFetched(J, index, attempt, who))

    def state(self, job_id: str = J) -> str:
        job = self.machine.job(job_id)
        assert job is not None
        return job.state


def finished(index: int, attempt: int, who: str, job_id: str = J) -> ev.ItemFinished:
    return ev.ItemFinished(job_id, index, attempt, who, result=f"blob {index}.{attempt}")


def failed(index: int, attempt: int, who: str, *, retry: bool = True) -> ev.ItemFailed:
    return ev.ItemFailed(J, index, attempt, who, failure=BROKEN, retry=retry)


def lease(who: str, index: int = 0, attempt: int = 1, job_id: str = J) -> SendLease:
    return SendLease(who, job_id, index, attempt)


def end(told: list[Instruction]) -> FinishJob:
    assert isinstance(told[-1], FinishJob)
    return told[-1]
