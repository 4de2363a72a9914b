"""The things that the state machine knows: jobs, items, attempts, participants, failures.

Plain records. Nothing here changes itself: every change of a state goes through `ledger.Ledger`, which checks it
against the tables of `transitions` and keeps all indexes in step.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from .queues import ItemQueue

DEFAULT_SLOTS = 2
"""Leases that one participant holds at a time: one running, one prefetched behind it."""

DEFAULT_MAX_ATTEMPTS = 3
"""Counted failures of one item after which its job fails."""

STORY_LENGTH = 100
"""Recent events that a job or a participant remembers, for error messages."""


class JobState(str, Enum):
    """What has become of a job; `transitions.JOB_TRANSITIONS` says what may follow what."""

    PLANNED = "planned"  # exists, but the host has not accepted its prompt yet
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DROPPED = "dropped"  # the host refused the prompt

    @property
    def is_open(self) -> bool:
        """Whether anything can still become of it."""
        return self in _OPEN_JOB


class ItemState(str, Enum):
    """What has become of an item; `transitions.ITEM_TRANSITIONS` says what may follow what."""

    WAITING = "waiting"
    LEASED = "leased"  # sent to a participant, which has not begun yet
    RUNNING = "running"
    FETCHING = "fetching"  # finished over there, its result is on its way
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        """Whether its result is still wanted."""
        return self in _OPEN_ITEM


class AttemptState(str, Enum):
    """What has become of one lease; `transitions.ATTEMPT_TRANSITIONS` says what may follow what."""

    LEASED = "leased"
    RUNNING = "running"
    FETCHING = "fetching"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"  # its participant went away
    REFUSED = "refused"  # its participant cannot run this job
    STOPPED = "stopped"  # no longer wanted
    SPARE = "spare"  # its result is at hand over there, while the item is being brought in from elsewhere


class ParticipantState(str, Enum):
    """Whether a participant can be given work."""

    OFFLINE = "offline"
    ONLINE = "online"


class Waits(Enum):
    """For whom a waiting item waits."""

    NOT = "not waiting"
    AIMED = "for the participant it was planned for"
    FLOATING = "for any participant that may run it"


_OPEN_JOB = frozenset({JobState.PLANNED, JobState.RUNNING})
_OPEN_ITEM = frozenset({ItemState.WAITING, ItemState.LEASED, ItemState.RUNNING, ItemState.FETCHING})
OPEN_ATTEMPT = frozenset({AttemptState.LEASED, AttemptState.RUNNING, AttemptState.FETCHING})
SLOT_HOLDING = frozenset({AttemptState.LEASED, AttemptState.RUNNING})
"""States in which a lease takes a slot. A result on its way does not, so that transfer hides behind computation."""


class FailureKind:
    """The kinds of failure that the machine itself makes or looks at. Others may come from a participant."""

    ERROR = "error"  # the work raised
    TRANSFER = "transfer"  # the result could not be brought over
    LOST = "lost"  # the participant went away
    REFUSED = "refused"  # the participant cannot run the job
    NOBODY = "nobody"  # no participant is left
    CANCELLED = "cancelled"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something ended badly. Shown to people and clients, so it must never hold a secret.

    ``kind`` is one of `FailureKind` or a participant's own word; ``traceback`` is the remote one as text;
    ``node_id`` and ``node_type`` name the node that raised, ``participant_id`` who ran it. Empty = not known.
    """

    kind: str
    message: str
    traceback: str = ""
    node_id: str = ""
    node_type: str = ""
    participant_id: str = ""

    def to_json(self) -> dict[str, str]:
        """The same as plain JSON values."""
        return asdict(self)


@dataclass(slots=True, eq=False)
class Attempt:
    """One lease of an item to one participant. Numbers count from 1 within the item; times are the machine's clock."""

    number: int
    participant_id: str
    state: AttemptState
    leased_s: float
    started_s: float | None = None
    ended_s: float | None = None
    error: Failure | None = None
    result: object = None  # the offered result, opaque here; meaningful while `holds_result`
    holds_result: bool = False  # its participant keeps a result that nobody has told it to delete


@dataclass(slots=True, eq=False)
class Item:
    """The smallest unit of work; identity (job, index)."""

    job: Job
    index: int
    planned_for: str
    pinned: bool
    state: ItemState = ItemState.WAITING
    waits: Waits = Waits.NOT
    attempts: list[Attempt] = field(default_factory=list)
    live: Attempt | None = None  # the one attempt in an open state
    failures: int = 0  # failures that count against the job's `max_attempts`
    losses: int = 0  # attempts whose participant went away
    failed_by: frozenset[str] = frozenset()
    fraction: float = 0.0  # of the live attempt, 0..1
    label: str = ""
    winner: Attempt | None = None  # the attempt whose result was taken
    result: object = None  # that result, as it was offered
    error: Failure | None = None  # what failed the item

    @property
    def key(self) -> tuple[int, int]:
        """Place in the order in which items are leased: acceptance of the job, then index."""
        return (self.job.seq, self.index)


@dataclass(slots=True, eq=False)
class Job:
    """One distributed run. ``participants`` maps each eligible id to its position, ``left_out`` to a reason."""

    id: str
    participants: dict[str, int]
    left_out: dict[str, str]
    max_attempts: int
    planned_s: float
    state: JobState = JobState.PLANNED
    items: dict[int, Item] = field(default_factory=dict)
    unfinished: int = 0
    seq: int = 0  # place in the order of acceptance, from 1; 0 = not accepted
    accepted_s: float | None = None
    ended_s: float | None = None
    failure: Failure | None = None
    gathered: bool = False
    usable: set[str] = field(default_factory=set)  # who may take its unpinned items now
    floating: dict[frozenset[str], ItemQueue] = field(default_factory=dict)  # floating items by who has failed them
    deadline_s: float | None = None  # when it fails unless somebody usable comes back
    fallback_id: str | None = None  # who takes waiting items when nobody else is left
    fallback_ready: bool = False  # the fallback has nothing else to do for this job any more
    story: deque[tuple[float, Any]] = field(default_factory=lambda: deque(maxlen=STORY_LENGTH))

    @property
    def has_fallback(self) -> bool:
        """Whether somebody takes the job's items when nobody else is left."""
        return self.fallback_id is not None and self.fallback_id not in self.left_out


@dataclass(slots=True, eq=False)
class Participant:
    """The master or a worker, as far as leasing is concerned."""

    id: str
    state: ParticipantState = ParticipantState.OFFLINE
    slots: int = 0
    takes_unpinned: bool = True
    reason: str = "it has not been seen"  # why it is offline
    offline_since_s: float | None = None  # None = never was online, or is online now
    busy: int = 0  # attempts in a `SLOT_HOLDING` state
    overhang: int = 0  # leases it held when it last announced its slots: more than `slots` after shrinking
    reserved: int = 0  # items of jobs not yet accepted that are planned for it
    held: dict[Item, Attempt] = field(default_factory=dict)  # items whose live attempt is with it
    aimed: ItemQueue = field(default_factory=ItemQueue)  # items that wait for it
    jobs: dict[str, Job] = field(default_factory=dict)  # open jobs that list it
    story: deque[tuple[float, Any]] = field(default_factory=lambda: deque(maxlen=STORY_LENGTH))

    @property
    def is_online(self) -> bool:
        """Whether it can be given work."""
        return self.state is ParticipantState.ONLINE
