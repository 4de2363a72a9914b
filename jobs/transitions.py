"""Which state may follow which, and when. The tables are the law: `ledger.Ledger` makes no change that they lack."""

from __future__ import annotations

from collections.abc import Iterable

from ..utils.errors import FlotillaError
from .states import AttemptState as At
from .states import ItemState as It
from .states import JobState as Jb
from .states import ParticipantState as Pt
from .story import Entry, told

JOB_TRANSITIONS: dict[tuple[Jb, Jb], str] = {
    (Jb.PLANNED, Jb.RUNNING): "the host accepted the prompt",
    (Jb.PLANNED, Jb.DROPPED): "the host refused the prompt",
    (Jb.PLANNED, Jb.CANCELLED): "somebody stopped it, or its prompt ended",
    (Jb.RUNNING, Jb.DONE): "the last result is here",
    (Jb.RUNNING, Jb.PARTIAL): "nothing is open any more, and what is missing may be missing",
    (Jb.RUNNING, Jb.FAILED): "an item failed too often, nobody can run it, or the master's prompt failed",
    (Jb.RUNNING, Jb.CANCELLED): "somebody stopped it, or its prompt ended without needing it",
    (Jb.RUNNING, Jb.DROPPED): "the host refused the prompt after all",
    (Jb.PLANNED, Jb.INTERRUPTED): "the master stopped; its journal says so when it starts again",
    (Jb.RUNNING, Jb.INTERRUPTED): "the master stopped; its journal says so when it starts again",
}

ITEM_TRANSITIONS: dict[tuple[It, It], str] = {
    (It.HELD, It.WAITING): "what must come before it has happened",
    (It.HELD, It.CANCELLED): "the job ended",
    (It.WAITING, It.LEASED): "a participant was chosen",
    (It.WAITING, It.FETCHING): "an earlier attempt offered its result after all",
    (It.WAITING, It.DONE): "the result of an earlier attempt is here after all",
    (It.WAITING, It.FAILED): "nobody can run it",
    (It.WAITING, It.CANCELLED): "the job ended",
    (It.LEASED, It.RUNNING): "the participant began",
    (It.LEASED, It.FETCHING): "a result was offered, by this attempt or an earlier one",
    (It.LEASED, It.DONE): "the result of an earlier attempt is here after all",
    (It.LEASED, It.WAITING): "its participant refused it, failed it or went away, or an idle one takes it over",
    (It.LEASED, It.FAILED): "it failed too often, or it is pinned and its participant refused it or went away",
    (It.LEASED, It.CANCELLED): "the job ended",
    (It.RUNNING, It.LEASED): "the participant failed it or went away, and its copy has not begun yet",
    (It.RUNNING, It.FETCHING): "a result was offered, by this attempt or an earlier one",
    (It.RUNNING, It.DONE): "the result of an earlier attempt is here after all",
    (It.RUNNING, It.WAITING): "the participant refused it, failed it or went away",
    (It.RUNNING, It.FAILED): "it failed too often, or it is pinned and its participant refused it or went away",
    (It.RUNNING, It.CANCELLED): "the job ended",
    (It.FETCHING, It.DONE): "the result is here",
    (It.FETCHING, It.LEASED): "the result could not be brought over, and a copy has not begun yet",
    (It.FETCHING, It.RUNNING): "the result could not be brought over, and a copy is at it",
    (It.FETCHING, It.WAITING): "the result could not be brought over, or the participant went away",
    (It.FETCHING, It.FAILED): "it failed too often, or it is pinned and its participant went away",
    (It.FETCHING, It.CANCELLED): "the job ended",
}

ATTEMPT_TRANSITIONS: dict[tuple[At, At], str] = {
    (At.LEASED, At.RUNNING): "the participant began",
    (At.LEASED, At.FETCHING): "it offered its result",
    (At.LEASED, At.SPARE): "it offered its result, while another is being brought over",
    (At.LEASED, At.FAILED): "the work failed",
    (At.LEASED, At.LOST): "the participant went away",
    (At.LEASED, At.REFUSED): "the participant cannot run the job",
    (At.LEASED, At.STOPPED): "no longer needed, or an idle participant takes the item over",
    (At.RUNNING, At.FETCHING): "it offered its result",
    (At.RUNNING, At.SPARE): "it offered its result, while another is being brought over",
    (At.RUNNING, At.FAILED): "the work failed",
    (At.RUNNING, At.LOST): "the participant went away",
    (At.RUNNING, At.REFUSED): "the participant cannot run the job",
    (At.RUNNING, At.STOPPED): "no longer needed",
    (At.FETCHING, At.DONE): "its result is here",
    (At.FETCHING, At.FAILED): "its result could not be brought over",
    (At.FETCHING, At.LOST): "the participant went away",
    (At.FETCHING, At.STOPPED): "no longer needed",
    (At.LOST, At.FETCHING): "it offered its result late, and the item still needs one",
    (At.LOST, At.SPARE): "it offered its result late, while another is being brought over",
    (At.LOST, At.DONE): "its result arrived although the participant seemed gone",
    (At.LOST, At.STOPPED): "the participant is back, and the item is no longer needed",
    (At.STOPPED, At.FETCHING): "it offered its result late, and the item still needs one",
    (At.STOPPED, At.SPARE): "it offered its result late, while another is being brought over",
    (At.REFUSED, At.FETCHING): "it offered a result after all, and the item still needs one",
    (At.REFUSED, At.SPARE): "it offered a result after all, while another is being brought over",
    (At.FAILED, At.FETCHING): "it offered its result again, and nobody else has the item",
    (At.FAILED, At.SPARE): "it offered its result again, while somebody else has the item",
    (At.FAILED, At.DONE): "its result arrived although bringing it over seemed to have failed",
    (At.SPARE, At.FETCHING): "its result is needed after all",
    (At.SPARE, At.DONE): "its result arrived although nobody waited for it any more",
    (At.SPARE, At.STOPPED): "no longer needed",
}

PARTICIPANT_TRANSITIONS: dict[tuple[Pt, Pt], str] = {
    (Pt.OFFLINE, Pt.ONLINE): "its link is up",
    (Pt.ONLINE, Pt.OFFLINE): "it cannot be reached",
    (Pt.ONLINE, Pt.RESTING): "it failed several items in a row",
    (Pt.RESTING, Pt.ONLINE): "its rest is over, or the failures turned out not to be its own",
    (Pt.RESTING, Pt.OFFLINE): "it cannot be reached",
}


class MachineBroken(FlotillaError):
    """A mistake in the machine itself. ``story`` holds the recent events of the subject, oldest first, as text."""

    def __init__(self, message: str, *, story: Iterable[Entry] = ()) -> None:
        self.story = told(story)
        super().__init__(message, details={"story": list(self.story)})

    def __str__(self) -> str:
        return "\n  ".join([self.message, *self.story])


class InvalidTransition(MachineBroken):
    """A change that the tables do not allow."""


class InvariantBroken(MachineBroken):
    """`Machine.validate` found two records that contradict each other."""
