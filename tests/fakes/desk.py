"""The state machine on a desk: a clock that the test owns, short words for events, and the books checked at each call."""

from __future__ import annotations

from flotilla.jobs import events as ev
from flotilla.jobs.instructions import FetchResult, FinishJob, Instruction, ItemChanged, ParticipantChanged, SendLease
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
        """The instructions of these events, without the notes of what has changed."""
        out: list[Instruction] = []
        for event in told:
            out += self.machine.handle(event, self.now_s)
            self.machine.validate()
        return [instruction for instruction in out if not isinstance(instruction, (ItemChanged, ParticipantChanged))]

    def plan(
        self,
        *planned_for: str,
        job_id: str = J,
        pinned: tuple[int, ...] = (),
        spec: dict[str, object] | None = None,
        groups: tuple[int, ...] = (),
        **plan: object,
    ) -> None:
        """A job with one item per name; ``spec`` holds for all of them, ``groups`` names the group of each."""
        participants = plan.pop("participants", None) or tuple(dict.fromkeys(planned_for))
        specs = tuple(
            ev.ItemSpec(index, who, index in pinned, group, **(spec or {}))  # type: ignore[arg-type]
            for index, (who, group) in enumerate(zip(planned_for, groups or [0] * len(planned_for), strict=True))
        )
        self.tell(ev.JobPlanned(job_id, specs, participants, **plan))  # type: ignore[arg-type]

    def start(self, *planned_for: str, job_id: str = J, **plan: object) -> list[Instruction]:
        self.plan(*planned_for, job_id=job_id, **plan)  # type: ignore[arg-type]
        return self.tell(ev.JobAccepted(job_id))

    def pull(self, count: int, *participants: str, **plan: object) -> list[Instruction]:
        """A job of pulled items is planned and accepted."""
        spec = {"pulled": True, **plan.pop("spec", {})}  # type: ignore[dict-item]
        return self.start(*[participants[0]] * count, participants=participants, spec=spec, **plan)

    def finish(self, index: int, attempt: int, who: str) -> list[Instruction]:
        return self.tell(finished(index, attempt, who), ev.ResultFetched(J, index, attempt, who))

    def begin(self, index: int, attempt: int, who: str) -> list[Instruction]:
        return self.tell(ev.ItemStarted(J, index, attempt, who))

    def at(self, now_s: float) -> list[Instruction]:
        """Time passes up to then; whatever is due is told on its way."""
        told: list[Instruction] = []
        while (deadline_s := self.machine.next_deadline_s()) is not None and deadline_s <= now_s:
            self.now_s = deadline_s
            told += self.tell(ev.TimePassed())
        self.now_s = now_s
        return told

    def work(self, index: int, attempt: int, who: str, seconds: float) -> list[Instruction]:
        """The participant needs so long for the item; what comes of its end and of its result."""
        self.begin(index, attempt, who)
        told = self.at(self.now_s + seconds)
        return told + self.finish(index, attempt, who)

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


def leases(told: list[Instruction]) -> list[SendLease]:
    return [one for one in told if isinstance(one, SendLease)]


def fetches(told: list[Instruction]) -> list[FetchResult]:
    return [one for one in told if isinstance(one, FetchResult)]


def end(told: list[Instruction]) -> FinishJob:
    assert isinstance(told[-1], FinishJob)
    return told[-1]
