"""What the machine wants done. The coordinator carries them out in order; each one is safe to carry out twice.

One to a participant that cannot be reached may be dropped: when the participant comes back and speaks of the attempt,
the machine says it again.
"""

from __future__ import annotations

from dataclasses import dataclass

from .model import Failure
from .states import JobState


@dataclass(frozen=True, slots=True)
class SendLease:
    """Give the item to the participant, as this attempt."""

    participant_id: str
    job_id: str
    index: int
    attempt: int


@dataclass(frozen=True, slots=True)
class StopLease:
    """Tell the participant to stop this attempt, queued or running. It may know nothing of it (any more)."""

    participant_id: str
    job_id: str
    index: int
    attempt: int


@dataclass(frozen=True, slots=True)
class FetchResult:
    """Bring the result over; answer with `events.ResultFetched` or `events.FetchFailed`."""

    participant_id: str
    job_id: str
    index: int
    attempt: int
    result: object


@dataclass(frozen=True, slots=True)
class KeepResult:
    """Tell the participant that the result of this attempt has arrived: it is kept while there is room, until released."""

    participant_id: str
    job_id: str
    index: int
    attempt: int


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """Acknowledge the result of this attempt: the participant may delete it. It may be on its way: stop bringing it over.

    Results are told apart by attempt: two attempts may have produced equal bytes, and only this one's claim ends.
    """

    participant_id: str
    job_id: str
    index: int
    attempt: int
    result: object


@dataclass(frozen=True, slots=True)
class FinishJob:
    """The job has ended in ``state``; ``failure`` says why unless it is done. Comes exactly once per life of a job."""

    job_id: str
    state: JobState
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class ItemChanged:
    """What can be seen of the item (`view.ItemView`) is different now. At most once per item and event."""

    job_id: str
    index: int


@dataclass(frozen=True, slots=True)
class ParticipantChanged:
    """The participant's state, or the reason for it, is different now. At most once per participant and event."""

    participant_id: str


Instruction = (
    SendLease | StopLease | FetchResult | KeepResult | ReleaseResult | FinishJob | ItemChanged | ParticipantChanged
)
