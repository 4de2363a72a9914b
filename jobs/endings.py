"""How items and jobs end: done, failed, partial; and what is said about it."""

from __future__ import annotations

from .ledger import Ledger
from .model import Attempt, Failure, FailureKind, Item, Job
from .resting import Resting
from .states import ItemState, JobState

MAX_MISSING_TOLD = 5
"""Missing items that a failure names with their reasons; it counts the others."""

MAX_REASON = 200
"""Characters of one item's failure in that of the job."""


class Endings:
    """Works on the machine's books."""

    def __init__(self, books: Ledger, resting: Resting) -> None:
        self._books = books
        self._resting = resting

    def deliver(self, item: Item, winner: Attempt) -> None:
        """The item's result is here."""
        winner.fraction = 1.0
        self._books.close_item(item, ItemState.DONE, winner)
        self.end_if_complete(item.job)

    def fail_item(self, item: Item, failure: Failure) -> None:
        """The item has failed for good, and with it its job unless that may do without."""
        item.error = failure
        self._books.close_item(item, ItemState.FAILED)
        self._resting.forgive(item)
        group = item.group
        nothing_came = not group.unfinished and not group.done
        if item.pinned or not group.partial or nothing_came:
            self.end_job(item.job, JobState.FAILED, failure)
        else:
            self.end_if_complete(item.job)

    def end_if_complete(self, job: Job) -> None:
        """Ends a job of which nothing is open any more and to which nothing may be added."""
        if not job.unfinished and not job.is_late:
            self.complete(job)

    def end_with_prompt(self, job: Job) -> bool:
        """Ends a running job to which items may have been added, as complete. False if it is not: something of it was not
        needed."""
        is_complete = job.is_late and not job.unfinished
        if is_complete:
            self.complete(job)
        return is_complete

    def complete(self, job: Job) -> None:
        """Ends a job that has nothing open as done, or as partial."""
        missing = [item for item in job.items.values() if item.state is not ItemState.DONE]
        if missing:
            failure = Failure(FailureKind.PARTIAL, tell_missing(missing, len(job.items)))
            self.end_job(job, JobState.PARTIAL, failure)
        else:
            self.end_job(job, JobState.DONE, None)

    def end_job(self, job: Job, state: JobState, failure: Failure | None) -> None:
        """Ends the job: stops all that is going on for it. Delivered results stay unless nobody can want them."""
        for item in job.items.values():
            if item.state.is_open:
                self._books.close_item(item, ItemState.CANCELLED)
        self._books.close_job(job, state, failure)


def tell_missing(missing: list[Item], total: int) -> str:
    """Which items are missing and why, in one sentence of bounded length."""
    told = [
        f"item {item.index} ({item.error.message[:MAX_REASON] if item.error else 'not known'})"
        for item in missing[:MAX_MISSING_TOLD]
    ]
    if len(missing) > MAX_MISSING_TOLD:
        told.append(f"and {len(missing) - MAX_MISSING_TOLD} more")
    return f"{len(missing)} of {total} items are missing: {'; '.join(told)}."
