"""What the machine is told. Every event may come late, twice, out of order or for something long gone: none does harm.

``attempt`` is the number that came with `instructions.SendLease`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .model import DEFAULT_MAX_ATTEMPTS, DEFAULT_SLOTS, DEFAULT_STALL_FACTOR, Failure


@dataclass(frozen=True, slots=True)
class ParticipantOnline:
    """A participant can be given work: at most ``slots`` leases at a time, over all jobs.

    ``takes_unpinned`` = False for one that runs only what is pinned to it. Told again, it updates both. A participant
    that has lost its memory (a new process) must be reported offline first: what it held is otherwise thought to go on.
    """

    participant_id: str
    slots: int = DEFAULT_SLOTS
    takes_unpinned: bool = True


@dataclass(frozen=True, slots=True)
class ParticipantOffline:
    """A participant cannot be reached; whatever it held may go elsewhere."""

    participant_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ItemSpec:
    """An item as planned. A ``pinned`` one runs on ``planned_for`` or not at all.

    A ``pulled`` one is not aimed at ``planned_for``, which only fixed its values: it goes to whoever is expected to
    deliver it first. ``group`` is the number of its stage. ``attempts_before`` are attempts of earlier lives of the job:
    new ones count on from there, and a result that one of those offers is taken instead of running the item. A ``held``
    one goes to nobody before `ItemsReady` says so.
    """

    index: int
    planned_for: str
    pinned: bool = False
    group: int = 0
    pulled: bool = False
    attempts_before: int = 0
    held: bool = False


@dataclass(frozen=True, slots=True)
class JobPlanned:
    """A job exists. ``participants`` may take its items; ``left_out`` says who may not, and why.

    ``fallback`` takes what nobody else is left for, whenever it asks (`ItemAsked`): until then the job waits for it
    instead of failing. Items of ``partial_groups`` may be missing in the end. One that runs ``stall_factor`` times as long
    as expected is thought to be stuck. The items of ``late_groups`` come with `ItemsAdded`, some or all of them: such a job
    is not over before its prompt has ended, and who asks for items of these groups answers for their failures itself.

    The id of a known job is ignored: to begin one anew, forget it first.
    """

    job_id: str
    items: tuple[ItemSpec, ...]
    participants: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    fallback: str | None = None
    stall_factor: float = DEFAULT_STALL_FACTOR
    partial_groups: frozenset[int] = frozenset()
    late_groups: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class ItemsAdded:
    """The job has these items too, all of late groups. May come any number of times; known indexes are ignored."""

    job_id: str
    items: tuple[ItemSpec, ...]


@dataclass(frozen=True, slots=True)
class ItemsReady:
    """These items are held no longer. Those that are not held, or not known, are ignored."""

    job_id: str
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ParticipantJoined:
    """The job has one more participant, named after all others. It may have been left out before; it is not any more.

    From now on it takes waiting items as if it had been planned with. Ignored if it is, or was, a participant of the job.
    """

    job_id: str
    participant_id: str


@dataclass(frozen=True, slots=True)
class JobAccepted:
    """The host took the job's prompt: work may start."""

    job_id: str


@dataclass(frozen=True, slots=True)
class JobDropped:
    """The host refused the job's prompt."""

    job_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class JobCancelled:
    """Somebody stopped the job."""

    job_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class PromptEnded:
    """The master's prompt of this job ended. A job still open then fails if the prompt did, and is needed by nobody else.

    A job with late groups of which nothing is open is over now: done, or partial.
    """

    job_id: str
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class JobGathered:
    """The node has taken the results. Those of a job that is done are needed no more."""

    job_id: str


@dataclass(frozen=True, slots=True)
class JobForgotten:
    """The job is to be dropped from memory. Ignored while it is open.

    ``release`` = False leaves kept results where they are: the caller has noted them for another life of the job.
    """

    job_id: str
    release: bool = True


@dataclass(frozen=True, slots=True)
class ItemAsked:
    """This participant would take one more item of that group now, beside its slots.

    There is one open ask per job, group and participant; the `instructions.SendLease` that answers it ends it. A
    participant of the job is served like anybody with a free slot, the mere fallback only when nobody else is left.

    Neither gets an item that has failed while anybody else is left for it, nor at all if its group may be partial: if the
    item is to blame it fails alone elsewhere, while one that fails in the master's own prompt ends that. In late groups
    that is the asker's own care: there it is served like anybody, and gets what others have failed.
    """

    job_id: str
    group: int
    participant_id: str


@dataclass(frozen=True, slots=True)
class AttemptEvent:
    """Something that a participant, or the way to it, says about one attempt."""

    job_id: str
    index: int
    attempt: int
    participant_id: str


@dataclass(frozen=True, slots=True)
class LeaseRefused(AttemptEvent):
    """The participant cannot run this job (a node or model is missing): it is left out of it. Not a counted failure."""

    reason: str


@dataclass(frozen=True, slots=True)
class LeaseHeld(AttemptEvent):
    """The participant has the attempt in its queue and has not begun. It is to drop one that is no longer open."""


@dataclass(frozen=True, slots=True)
class ItemStarted(AttemptEvent):
    """The participant began to work on the item."""


@dataclass(frozen=True, slots=True)
class ItemProgressed(AttemptEvent):
    """``fraction`` of the item that is done, 0..1, and what is being done (``label``, for people)."""

    fraction: float
    label: str = ""


@dataclass(frozen=True, slots=True)
class ItemFinished(AttemptEvent):
    """The participant offers a result. ``result`` tells the coordinator how to get it and is opaque to the machine."""

    result: object


@dataclass(frozen=True, slots=True)
class ItemFailed(AttemptEvent):
    """The work failed. ``retry`` = False when trying again, anywhere, cannot help."""

    failure: Failure
    retry: bool = True


@dataclass(frozen=True, slots=True)
class ResultFetched(AttemptEvent):
    """The result is here, verified."""


@dataclass(frozen=True, slots=True)
class FetchFailed(AttemptEvent):
    """The result could not be brought over. Counts as a failure of kind "transfer", whatever ``failure`` says."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing happened, but it is later: send one when `machine.Machine.next_deadline_s` says so."""


Event = (
    ParticipantOnline
    | ParticipantOffline
    | JobPlanned
    | ItemsAdded
    | ItemsReady
    | ParticipantJoined
    | JobAccepted
    | JobDropped
    | JobCancelled
    | PromptEnded
    | JobGathered
    | JobForgotten
    | ItemAsked
    | LeaseRefused
    | LeaseHeld
    | ItemStarted
    | ItemProgressed
    | ItemFinished
    | ItemFailed
    | ResultFetched
    | FetchFailed
    | TimePassed
)
