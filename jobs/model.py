"""The things that the state machine knows: jobs, groups of items, items, attempts, participants, failures.

Plain records. Nothing here changes itself: every change of a state goes through `ledger.Ledger`, which checks it
against the tables of `transitions` and keeps all indexes in step.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

from .pace import Pace
from .queues import ItemQueue
from .states import LEADS, AttemptState, ItemState, JobState, ParticipantState, Waits

__all__ = [
    "Attempt",
    "AttemptState",
    "Failure",
    "FailureKind",
    "Group",
    "Item",
    "ItemState",
    "Job",
    "JobState",
    "Participant",
    "ParticipantState",
    "Waits",
]

DEFAULT_SLOTS = 2
"""Leases that one participant holds at a time: one running, one prefetched behind it."""

DEFAULT_MAX_ATTEMPTS = 3
"""Counted failures of one item after which it has failed for good."""

DEFAULT_STALL_FACTOR = 3.0
"""An item that runs this many times as long as expected is thought to be stuck."""

MAX_COPIES = 2
"""Participants that work on one item at the same time, at most; those that are stuck do not count."""

STORY_LENGTH = 100
"""Recent events that a job or a participant remembers, for error messages."""

_RANK = {state: place for place, state in enumerate(LEADS)}


class FailureKind:
    """The kinds of failure that the machine itself makes or looks at. Others may come from a participant."""

    ERROR = "error"  # the work raised
    TRANSFER = "transfer"  # the result could not be brought over
    LOST = "lost"  # the participant went away
    REFUSED = "refused"  # the participant cannot run the job
    NOBODY = "nobody"  # no participant is left
    PARTIAL = "partial"  # the job ended with items missing, which the user allowed
    CANCELLED = "cancelled"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something ended badly. Shown to people and clients, so it must never hold a secret.

    ``kind`` is one of `FailureKind` or a participant's own word; ``traceback`` is the remote one as text;
    ``node_id`` and ``node_type`` name the node that raised, ``participant_id`` who ran it, ``attempt`` the number of that
    attempt. Empty or 0 = not known.
    """

    kind: str
    message: str
    traceback: str = ""
    node_id: str = ""
    node_type: str = ""
    participant_id: str = ""
    attempt: int = 0

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return asdict(self)


@dataclass(slots=True, eq=False)
class Attempt:
    """One lease of an item to one participant. Numbers count from 1 within the item; times are the machine's clock.

    The number of an attempt of an earlier life of the job is at most `Item.attempts_before`; only those are recorded
    that have offered a result in this life.
    """

    item: Item
    number: int
    participant_id: str
    state: AttemptState
    leased_s: float
    asked: bool = False  # it answers an ask, so it takes no slot
    started_s: float | None = None
    heard_s: float | None = None  # when its participant last said something about it
    ended_s: float | None = None
    error: Failure | None = None
    result: object = None  # the offered result, opaque here; meaningful while `holds_result`
    holds_result: bool = False  # its participant keeps a result that nobody has told it to delete
    was_sent_for: bool = False  # it was told, in this life of the job, to bring the result over
    fraction: float = 0.0  # 0..1
    told_s: float | None = None  # when the fraction last grew
    label: str = ""

    @property
    def is_old(self) -> bool:
        """Whether it is of an earlier life of the job."""
        return self.number <= self.item.attempts_before


@dataclass(slots=True, eq=False)
class Item:
    """The smallest unit of work; identity (job, index)."""

    group: Group
    index: int
    planned_for: str
    pinned: bool = False
    pulled: bool = False  # it was not aimed at anybody: `planned_for` only fixed its values
    attempts_before: int = 0
    state: ItemState = ItemState.WAITING
    waits: Waits = Waits.NOT
    attempts: list[Attempt] = field(default_factory=list)
    last_number: int = 0  # of the youngest attempt of this life, else `attempts_before`
    live: tuple[Attempt, ...] = ()  # those in an open state, oldest first
    failures: int = 0  # failures that count against the job's `max_attempts`
    losses: int = 0  # times that its last live attempt was lost
    failed_by: frozenset[str] = frozenset()
    winner: Attempt | None = None  # the attempt whose result was taken
    error: Failure | None = None  # what failed the item

    @property
    def job(self) -> Job:
        """The job that it belongs to."""
        return self.group.job

    @property
    def key(self) -> tuple[int, int]:
        """Place in the order in which items are leased: acceptance of the job, then index."""
        return (self.group.job.seq, self.index)

    @property
    def leading(self) -> Attempt | None:
        """The live attempt that is furthest; None when nobody is at it."""
        return max(self.live, key=lambda attempt: _RANK[attempt.state], default=None)

    def attempt(self, number: int) -> Attempt | None:
        """The attempt of this number."""
        for attempt in reversed(self.attempts):
            if attempt.number == number:
                return attempt
        return None


@dataclass(slots=True, eq=False)
class Group:
    """The items of one stage of a job: alike, so that one pace holds for all of them."""

    job: Job
    number: int
    partial: bool = False  # its items may be missing in the end
    late: bool = False  # its items come while the job runs; who asks for them sees to their failures
    items: int = 0
    unfinished: int = 0
    done: int = 0
    pace: Pace = field(default_factory=Pace)
    floating: dict[frozenset[str], ItemQueue] = field(default_factory=dict)  # floating items by who has failed them
    waiting: int = 0  # floating items
    asks: dict[str, None] = field(default_factory=dict)  # who would take one more item now
    askers: dict[str, None] = field(default_factory=dict)  # who has ever asked
    at_work: dict[Attempt, None] = field(default_factory=dict)  # unpinned attempts, leased or running
    left_s: float | None = None  # since when somebody leaves items to others, and none of them takes one
    drained: tuple[float, float] | None = None  # until when it holds, and when all that waits will be done
    looked_s: float | None = None  # when it was last looked whether idle participants can help

    @property
    def key(self) -> tuple[int, int]:
        """Place in the order in which groups are served."""
        return (self.job.seq, self.number)


@dataclass(slots=True, eq=False)
class Job:
    """One distributed run. ``participants`` maps each eligible id to its position, ``left_out`` to a reason.

    ``early`` are results, by index, attempt and participant, that were offered for items still to be added.
    """

    id: str
    participants: dict[str, int]
    left_out: dict[str, str]
    max_attempts: int
    planned_s: float
    stall_factor: float = DEFAULT_STALL_FACTOR
    fallback_id: str | None = None  # who takes waiting items when nobody else is left
    state: JobState = JobState.PLANNED
    groups: dict[int, Group] = field(default_factory=dict)
    items: dict[int, Item] = field(default_factory=dict)
    early: dict[int, dict[tuple[int, str], object]] = field(default_factory=dict)
    unfinished: int = 0
    seq: int = 0  # place in the order of acceptance, from 1; 0 = not accepted
    accepted_s: float | None = None
    ended_s: float | None = None
    failure: Failure | None = None
    gathered: bool = False
    usable: set[str] = field(default_factory=set)  # who may take its unpinned items now
    waits_for_return: bool = False  # a timer runs: it fails unless somebody usable comes back
    story: deque[tuple[float, Any]] = field(default_factory=lambda: deque(maxlen=STORY_LENGTH))

    @property
    def has_fallback(self) -> bool:
        """Whether somebody takes the job's items when nobody else is left."""
        return self.fallback_id is not None and self.fallback_id not in self.left_out

    @property
    def is_late(self) -> bool:
        """Whether items may still come, so that it is not over before its prompt."""
        return any(group.late for group in self.groups.values())

    @property
    def floats(self) -> bool:
        """Whether any of its items waits for anybody."""
        return any(group.waiting for group in self.groups.values())


@dataclass(slots=True, eq=False)
class Participant:
    """The master or a worker, as far as leasing is concerned."""

    id: str
    state: ParticipantState = ParticipantState.OFFLINE
    slots: int = 0
    takes_unpinned: bool = True
    reason: str = "it has not been seen"  # why it is offline or rests
    offline_since_s: float | None = None  # None = never was online, or is online now
    busy: int = 0  # slots that are taken
    overhang: int = 0  # leases it held when it last announced its slots: more than `slots` after shrinking
    reserved: int = 0  # items of jobs not yet accepted that are planned for it
    held: dict[Attempt, None] = field(default_factory=dict)  # live attempts that are with it, oldest first
    free_since_s: float = 0.0  # when an attempt last stopped being at work here
    aimed: ItemQueue = field(default_factory=ItemQueue)  # items that wait for it
    jobs: dict[str, Job] = field(default_factory=dict)  # open jobs that list it
    strikes: dict[tuple[str, int], str] = field(default_factory=dict)  # items that failed here in a row, and how
    rests: int = 0  # in a row
    resting_until_s: float | None = None
    story: deque[tuple[float, Any]] = field(default_factory=lambda: deque(maxlen=STORY_LENGTH))

    @property
    def is_reachable(self) -> bool:
        """Whether it can be spoken to."""
        return self.state is not ParticipantState.OFFLINE

    @property
    def takes_work(self) -> bool:
        """Whether it can be given work."""
        return self.state is ParticipantState.ONLINE
