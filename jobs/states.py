"""The states of jobs, items, attempts and participants. `transitions` says which may follow which."""

from __future__ import annotations

from enum import Enum


class JobState(str, Enum):
    """What has become of a job."""

    PLANNED = "planned"  # exists, but the host has not accepted its prompt yet
    RUNNING = "running"
    DONE = "done"
    PARTIAL = "partial"  # ended; items are missing, and the user allowed that
    FAILED = "failed"
    CANCELLED = "cancelled"
    DROPPED = "dropped"  # the host refused the prompt
    INTERRUPTED = "interrupted"  # the master stopped before it ended; only a journal ever says so

    @property
    def is_open(self) -> bool:
        """Whether anything can still become of it."""
        return self in _OPEN_JOB

    @property
    def wants_results(self) -> bool:
        """Whether anybody can want the results of a job in this state."""
        return self not in (JobState.CANCELLED, JobState.DROPPED)


class ItemState(str, Enum):
    """What has become of an item. With several attempts at work it is the state of the leading one."""

    HELD = "held"  # something else must happen before anybody may begin it
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
    """What has become of one lease."""

    LEASED = "leased"
    RUNNING = "running"
    FETCHING = "fetching"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"  # its participant went away
    REFUSED = "refused"  # its participant cannot run this job
    STOPPED = "stopped"  # no longer wanted
    SPARE = "spare"  # its result is at hand over there and is not being brought over


class ParticipantState(str, Enum):
    """Whether a participant can be given work."""

    OFFLINE = "offline"
    ONLINE = "online"
    RESTING = "resting"  # it keeps failing: it finishes what it has, and gets nothing new for a while


class Waits(Enum):
    """For whom a waiting item waits."""

    NOT = "not waiting"
    AIMED = "for the participant it was planned for"
    FLOATING = "for any participant that may run it"


_OPEN_JOB = frozenset({JobState.PLANNED, JobState.RUNNING})
_OPEN_ITEM = frozenset({ItemState.HELD, ItemState.WAITING, ItemState.LEASED, ItemState.RUNNING, ItemState.FETCHING})
OPEN_ATTEMPT = frozenset({AttemptState.LEASED, AttemptState.RUNNING, AttemptState.FETCHING})
AT_WORK = frozenset({AttemptState.LEASED, AttemptState.RUNNING})
"""States in which a lease takes a slot. A result on its way does not, so that transfer hides behind computation."""

LEADS = {
    AttemptState.LEASED: ItemState.LEASED,
    AttemptState.RUNNING: ItemState.RUNNING,
    AttemptState.FETCHING: ItemState.FETCHING,
}
"""The state of an item by that of its leading attempt; a later entry leads before an earlier one."""
