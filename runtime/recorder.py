"""Writes what becomes of jobs into the journal: states and attempts, never progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..graph.saved_plan import save_plan
from ..jobs.model import ItemState
from ..jobs.view import AttemptView, ItemView, JobView
from ..storage.journal import Journal
from ..storage.records import AttemptRecord, ItemRecord, JobRecord
from ..storage.scrub import scrub
from .jobrun import JobRun


class Recorder:
    """Turns the machine's views into records. Everything here is cheap: the journal writes in a thread of its own."""

    def __init__(self, journal: Journal, home_id: str, name_of: Callable[[str], str]) -> None:
        self._journal = journal
        self._home_id = home_id
        self._name_of = name_of

    def accepted(self, run: JobRun, view: JobView) -> None:
        """The host has queued the job's prompt: from now on the job is in the journal."""
        plan = run.plan
        self._journal.put(
            JobRecord(
                id=run.job_id,
                home=self._home_id,
                state=view.state,
                created_s=run.created_s,
                accepted_s=run.accepted_s,
                ended_s=None,
                client_id=run.client_id,
                prompt=plan.prompt,
                extra_data=scrub(run.extra_data),
                wishes=run.wishes.to_json(),
                plan=save_plan(plan),
                participants=self._names(run),
                left_out=dict(plan.left_out),
                failure=None,
                lives=run.lives,
                items_total=len(view.items),
                items_done=sum(item.state == ItemState.DONE.value for item in view.items),
                missing={},
            ),
            *(self._item_record(run, item) for item in view.items),
        )

    def joined(self, run: JobRun) -> None:
        """One more worker takes part."""
        self._journal.patch_job(run.job_id, participants=self._names(run), left_out=dict(run.plan.left_out))

    def items_added(self, run: JobRun, view: JobView, indices: Sequence[int]) -> None:
        """The job has these items too."""
        self._journal.put(*(self._item_record(run, view.items[index]) for index in indices))
        self._journal.patch_job(run.job_id, items_total=len(view.items))

    def item_changed(self, run: JobRun, item: ItemView, done: int) -> None:
        """An item is in another state or with somebody else; ``done`` items of the job are finished now."""
        seen = (item.state, *((attempt.number, attempt.state) for attempt in item.attempts))
        before = run.recorded.get(item.index, ())
        if before == seen:
            return
        run.recorded[item.index] = seen
        changed = [attempt for attempt in item.attempts if (attempt.number, attempt.state) not in before]
        self._journal.put(
            self._item_record(run, item),
            *(_attempt_record(run, item.index, attempt) for attempt in changed),
        )
        if item.state == ItemState.DONE.value:
            self._journal.patch_job(run.job_id, items_done=done)

    def started(self, run: JobRun, view: JobView) -> None:
        """Work on the job may begin."""
        self._journal.patch_job(run.job_id, state=view.state)

    def ended(self, run: JobRun, view: JobView, missing: Mapping[int, str]) -> None:
        """The job is over; ``missing`` says of the items that it lacks why."""
        self._journal.patch_job(
            run.job_id,
            state=view.state,
            ended_s=run.ended_s,
            failure=view.failure.to_json() if view.failure is not None else None,
            left_out=dict(view.left_out),
            items_done=sum(item.state == ItemState.DONE.value for item in view.items),
            missing={str(index): reason for index, reason in missing.items()},
        )

    def _names(self, run: JobRun) -> dict[str, str]:
        return {one: self._name_of(one) for one in (*run.plan.participants, *run.plan.left_out)}

    def _item_record(self, run: JobRun, item: ItemView) -> ItemRecord:
        plan = run.item(item.index)
        last = item.attempts[-1].number if item.attempts else run.attempts_before.get(item.index, 0)
        return ItemRecord(
            job_id=run.job_id,
            index=item.index,
            node_id=plan.node_id,
            k=plan.k,
            state=item.state,
            planned_for=item.planned_for,
            participant_id=item.participant_id,
            attempt=item.attempt,
            attempts=max(last, run.attempts_before.get(item.index, 0)),
            seconds=run.seconds.get(item.index),
            size_bytes=run.sizes.get(item.index),
            error=_json_of(item.error),
            ended_s=_wall(run, item.ended_s),
        )


def _attempt_record(run: JobRun, index: int, attempt: AttemptView) -> AttemptRecord:
    return AttemptRecord(
        job_id=run.job_id,
        index=index,
        number=attempt.number,
        participant_id=attempt.participant_id,
        state=attempt.state,
        leased_s=run.wall_s(attempt.leased_s),
        started_s=_wall(run, attempt.started_s),
        ended_s=_wall(run, attempt.ended_s),
        error=_json_of(attempt.error),
    )


def _wall(run: JobRun, moment_s: float | None) -> float | None:
    return None if moment_s is None else run.wall_s(moment_s)


def _json_of(failure: Any) -> dict[str, Any] | None:
    return None if failure is None else dict(failure.to_json())
