"""Tells everybody who looks at a job how it goes: its nodes, the journal, the screens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..graph.plan import ItemPlan
from ..jobs.instructions import FinishJob
from ..jobs.model import ItemState, JobState
from ..jobs.view import ItemView, JobView, ParticipantView
from ..relay.news import JobNews, ParticipantNews, PreviewNews, item_news
from ..relay.relay import Relay
from ..utils.log import get_logger
from ..workers import messages as m
from .bridge import NodeBridge
from .jobrun import JobRun
from .participants import ParticipantBook
from .recorder import Recorder
from .wording import ending_error, why_missing

log = get_logger("display")

DONE, FAILED = ItemState.DONE.value, ItemState.FAILED.value


class Display:
    """Use from the server's loop."""

    def __init__(self, recorder: Recorder, relay: Relay, participants: ParticipantBook) -> None:
        self._recorder = recorder
        self._relay = relay
        self._name_of = participants.name

    def accepted(self, run: JobRun, view: JobView) -> None:
        """The host has queued the job's prompt."""
        self._recorder.accepted(run, view)
        self._relay.job_changed(_news(run, view))

    def started(self, run: JobRun, view: JobView) -> None:
        """Work on the job may begin."""
        self._recorder.started(run, view)
        self._relay.job_changed(_news(run, view))

    def item_changed(self, run: JobRun, item: ItemView) -> None:
        """Something that can be seen of an item is different."""
        plan = run.item(item.index)
        if item.state in (DONE, FAILED):
            run.note_ended(item.index, done=item.state == DONE)
        if item.state == FAILED:
            run.missing[item.index] = why_missing(item, self._name_of)
        self._recorder.item_changed(run, item, run.done)
        self._relay.item_changed(run.job_id, item_news(item, plan.node_id, plan.k, _tile(run, plan)))
        stage = run.stages.get(plan.node_id)
        if stage is None:
            return
        stage.show(plan.k, item.fraction, done=item.state == DONE)
        if item.state == FAILED and stage.plan.on_failure == "partial":
            stage.lost(plan.k, run.missing[item.index])
            missing = _missing_of(run, stage)
            if stage.gathers and _is_over(run, stage, missing):
                stage.finish(None, missing)

    def joined(self, run: JobRun, view: JobView) -> None:
        """One more worker takes part."""
        self._recorder.joined(run)
        self._relay.job_changed(_news(run, view))

    def items_added(self, run: JobRun, view: JobView, indices: Sequence[int]) -> None:
        """The job has these items too."""
        self._recorder.items_added(run, view, indices)
        self._relay.job_changed(_news(run, view))

    def preview(self, run: JobRun, worker_id: str, message: m.ItemPreview) -> None:
        """A picture of an item that a worker is at."""
        if 0 <= message.index < len(run.plan.items):
            node_id = run.item(message.index).node_id
            # On an upscale people see the whole picture instead.
            stage = run.stages.get(node_id)
            on_node = stage is None or stage.gathers
            self._relay.preview(PreviewNews(run.job_id, message.index, node_id, worker_id, message.data, on_node))

    def participant_changed(self, participant: ParticipantView) -> None:
        """A participant works, rests or is gone."""
        self._relay.participant_changed(ParticipantNews(participant.id, participant.state, participant.reason))

    def participant_removed(self, participant_id: str) -> None:
        """There is no such worker any more."""
        self._relay.participant_gone(participant_id)

    def ended(self, run: JobRun, order: FinishJob, view: JobView) -> None:
        """The job is over: its nodes go on, or raise what ended it."""
        error = ending_error(order, self._name_of, _which(run, order, view))
        for stage in run.stages.values():
            stage.finish(error, _missing_of(run, stage))
        self._recorder.ended(run, view, run.missing)
        self._relay.job_changed(_news(run, view))
        state, count = order.state.value, len(view.items)
        if order.state == JobState.PARTIAL:
            log.warning("job ended without all its items", job=run.job_id, items=count, missing=dict(run.missing))
        else:
            reason = error.message if error is not None else "complete"
            log.info("job ended", job=run.job_id, state=state, items=count, reason=reason)

    async def close(self) -> None:
        """Tells nothing any more."""
        await self._relay.close()


def _news(run: JobRun, view: JobView) -> JobNews:
    return JobNews(
        job_id=run.job_id,
        state=view.state,
        items_total=len(view.items),
        client_id=run.client_id,
        participants=view.participants,
        missing=dict(run.missing),
        failure=view.failure,
    )


def _which(run: JobRun, order: FinishJob, view: JobView) -> str:
    """What the item is called that ended the job; "" if none did."""
    for item in view.items:
        if item.state == FAILED and order.state == JobState.FAILED and item.error == order.failure:
            plan = run.item(item.index)
            stage = run.stages.get(plan.node_id)
            return stage.name_of(plan.k) if stage is not None else ""
    return ""


def _tile(run: JobRun, plan: ItemPlan) -> Mapping[str, Any] | None:
    """Where in a picture an item is; None for one that is no tile."""
    return plan.values[plan.node_id] if run.plan.stages[plan.stage].way == "tiles" else None


def _missing_of(run: JobRun, stage: NodeBridge) -> dict[int, str]:
    """By place, why items of the stage are missing."""
    if not run.missing:
        return {}
    return {item.k: run.missing[item.index] for item in stage.plan.items if item.index in run.missing}


def _is_over(run: JobRun, stage: NodeBridge, missing: dict[int, str]) -> bool:
    """Whether a stage can go on with what there is. If there is nothing, its job fails."""
    return len(missing) < stage.count and all(item.index in run.ended_items for item in stage.plan.items)
