"""``/distributed/v2/jobs``: what runs, what ran, and how to stop it."""

from __future__ import annotations

from aiohttp import web

from ..jobs.model import Failure, ItemState, JobState
from ..jobs.view import AttemptView, ItemView, JobView
from ..runtime.jobrun import JobRun
from ..utils.errors import NotFound
from . import openapi, wire
from .openapi import Call, Route
from .services import Services

JOBS = openapi.PREFIX + "/jobs"


def register(services: Services, routes: web.RouteTableDef) -> None:
    """Adds the routes."""
    openapi.add_routes(services, ROUTES, routes)


async def list_jobs(services: Services, call: Call) -> wire.JobsPage:
    """Answers ``GET /jobs``."""
    wanted: wire.JobsQuery = call.query
    runs = services.coordinator.runs()
    if wanted.state is not None:
        state = wanted.state.value
        runs = [run for run in runs if services.coordinator.view(run.job_id).state == state]
    page = runs[wanted.offset : wanted.offset + wanted.limit]
    jobs = [_job_out(services, run, services.coordinator.view(run.job_id)) for run in page]
    return wire.JobsPage(jobs=jobs, total=len(runs), limit=wanted.limit, offset=wanted.offset)


async def get_job(services: Services, call: Call) -> wire.JobDetail:
    """Answers ``GET /jobs/{id}``."""
    run = services.coordinator.run(call.path["id"])
    view = services.coordinator.view(run.job_id)
    job = _job_out(services, run, view)
    items = [_item_out(run, item) for item in view.items]
    return wire.JobDetail(**dict(job), items=items)


async def list_items(services: Services, call: Call) -> wire.ItemsPage:
    """Answers ``GET /jobs/{id}/items``."""
    wanted: wire.ItemsQuery = call.query
    run = services.coordinator.run(call.path["id"])
    items = services.coordinator.view(run.job_id).items
    page = [_item_out(run, item) for item in items[wanted.offset : wanted.offset + wanted.limit]]
    return wire.ItemsPage(items=page, total=len(items), limit=wanted.limit, offset=wanted.offset)


async def cancel_job(services: Services, call: Call) -> wire.JobOut:
    """Answers ``POST /jobs/{id}/cancel``. A job that has ended stays as it ended."""
    run = services.coordinator.run(call.path["id"])
    if run.ended_s is None:
        services.coordinator.cancel_by_user(run.job_id)
    return _job_out(services, run, services.coordinator.view(run.job_id))


def _job_out(services: Services, run: JobRun, view: JobView) -> wire.JobOut:
    name = services.coordinator.participants.name
    return wire.JobOut(
        id=run.job_id,
        state=JobState(view.state),
        created_s=run.created_s,
        ended_s=run.ended_s,
        items_total=len(view.items),
        items_done=sum(1 for item in view.items if item.state == ItemState.DONE),
        left_out=view.left_out,
        participants=[wire.ParticipantOut(id=one, name=name(one)) for one in view.participants],
        error=_failure_out(view.failure),
        stages=[
            wire.StageOut(node_id=stage.node_id, class_type=stage.class_type, way=stage.way, count=len(stage.items))
            for stage in run.plan.stages
        ],
    )


def _item_out(run: JobRun, view: ItemView) -> wire.ItemOut:
    plan = run.item(view.index)
    return wire.ItemOut(
        index=view.index,
        node_id=plan.node_id,
        k=plan.k,
        state=view.state,
        participant=view.participant_id,
        planned_for=view.planned_for,
        attempts=[_attempt_out(attempt) for attempt in view.attempts],
        fraction=view.fraction,
        label=view.label,
        seconds=run.seconds.get(view.index),
        size_bytes=run.sizes.get(view.index),
        values=dict(plan.values),
        error=_failure_out(view.error),
    )


def _attempt_out(view: AttemptView) -> wire.AttemptOut:
    return wire.AttemptOut(
        number=view.number, participant=view.participant_id, state=view.state, error=_failure_out(view.error)
    )


def _failure_out(failure: Failure | None) -> wire.FailureOut | None:
    if failure is None:
        return None
    return wire.FailureOut(
        kind=failure.kind,
        message=failure.message,
        traceback=failure.traceback,
        participant=failure.participant_id or None,
    )


ROUTES = (
    Route("GET", JOBS, "Lists jobs, the newest first", list_jobs, wire.JobsPage, query=wire.JobsQuery, tag="jobs"),
    Route(
        "GET", JOBS + "/{id}", "Shows a job with all its items", get_job, wire.JobDetail, errors=(NotFound,), tag="jobs"
    ),
    Route(
        "GET",
        JOBS + "/{id}/items",
        "Lists the items of a job",
        list_items,
        wire.ItemsPage,
        query=wire.ItemsQuery,
        errors=(NotFound,),
        tag="jobs",
    ),
    Route(
        "POST",
        JOBS + "/{id}/cancel",
        "Stops a job everywhere, and the master's own prompt",
        cancel_job,
        wire.JobOut,
        body=wire.Nothing,
        errors=(NotFound,),
        tag="jobs",
    ),
)
