"""``/distributed/v2/jobs``: what runs, what ran, how to stop it, and how to take it up again.

A job that is held in memory is shown as it stands; the others come from the journal. Should the journal be out of order,
what is in memory is all there is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from ..jobs.model import JobState
from ..runtime.jobrun import JobRun
from ..runtime.revival import RETRYABLE
from ..runtime.strangers import RESUMABLE
from ..storage.records import AttemptRecord, JobFilter, JobRecord
from ..utils.errors import Conflict, InvalidPrompt, JournalUnavailable, NobodyCanRun, NotFound
from . import jobs_out, openapi, wire
from .openapi import Call, Route
from .services import Services

JOBS = openapi.PREFIX + "/jobs"
MAX_DETAIL_ITEMS = 1_000
"""Items in the answer about one job; the others are at ``/items``."""


def register(services: Services, routes: web.RouteTableDef) -> None:
    """Adds the routes."""
    openapi.add_routes(services, ROUTES, routes)


async def list_jobs(services: Services, call: Call) -> wire.JobsPage:
    """Answers ``GET /jobs``."""
    wanted: wire.JobsQuery = call.query
    live = {run.job_id: run for run in services.coordinator.runs() if run.accepted_s is not None}
    try:
        page = await services.journal.jobs(
            JobFilter(
                state=wanted.state.value if wanted.state is not None else "",
                participant=wanted.participant,
                since_s=wanted.since_s,
                until_s=wanted.until_s,
                text=wanted.text,
                limit=wanted.limit,
                offset=wanted.offset,
            )
        )
    except JournalUnavailable:
        return _list_memory(services, wanted, list(live.values()))
    jobs = [
        _live(services, live[record.id]) if record.id in live else jobs_out.past_job(record) for record in page.records
    ]
    return wire.JobsPage(jobs=jobs, total=page.total, limit=wanted.limit, offset=wanted.offset)


def _list_memory(services: Services, wanted: wire.JobsQuery, runs: list[JobRun]) -> wire.JobsPage:
    """The list without the journal: filtered by state alone."""
    jobs = [_live(services, run) for run in runs]
    if wanted.state is not None:
        jobs = [job for job in jobs if job.state is wanted.state]
    page = jobs[wanted.offset : wanted.offset + wanted.limit]
    return wire.JobsPage(jobs=page, total=len(jobs), limit=wanted.limit, offset=wanted.offset)


async def get_job(services: Services, call: Call) -> wire.JobDetail:
    """Answers ``GET /jobs/{id}``."""
    job_id = call.path["id"]
    run = _find(services, job_id)
    if run is not None:
        job, stages = _live(services, run), jobs_out.live_stages(run)
    else:
        record = await _record(services, job_id)
        job, stages = jobs_out.past_job(record), jobs_out.past_stages(record.plan)
    items = await _items(services, job_id, MAX_DETAIL_ITEMS, 0)
    return wire.JobDetail(**dict(job), stages=stages, items=items.items)


async def list_items(services: Services, call: Call) -> wire.ItemsPage:
    """Answers ``GET /jobs/{id}/items``."""
    wanted: wire.ItemsQuery = call.query
    return await _items(services, call.path["id"], wanted.limit, wanted.offset)


async def cancel_job(services: Services, call: Call) -> wire.JobOut:
    """Answers ``POST /jobs/{id}/cancel``. A job that has ended stays as it ended; one that was interrupted is given up."""
    job_id = call.path["id"]
    run = _find(services, job_id)
    if run is None:
        record = await _record(services, job_id)
        if record.state == JobState.INTERRUPTED.value:
            services.coordinator.revival.give_up(job_id)
            record = await _record(services, job_id)
        return jobs_out.past_job(record)
    if run.ended_s is None:
        services.coordinator.cancel_by_user(run.job_id)
    return _live(services, run)


async def resume_job(services: Services, call: Call) -> wire.JobOut:
    """Answers ``POST /jobs/{id}/resume``."""
    return _live(services, await services.coordinator.revival.resume(call.path["id"], RESUMABLE))


async def retry_failed(services: Services, call: Call) -> wire.JobOut:
    """Answers ``POST /jobs/{id}/retry_failed``."""
    return _live(services, await services.coordinator.revival.resume(call.path["id"], RETRYABLE))


async def forget_job(services: Services, call: Call) -> wire.JobForgotten:
    """Answers ``DELETE /jobs/{id}``."""
    job_id = call.path["id"]
    await _record(services, job_id)
    await services.coordinator.revival.forget(job_id)
    return wire.JobForgotten(forgotten=job_id)


# Jobs in memory


def _find(services: Services, job_id: str) -> JobRun | None:
    try:
        return services.coordinator.run(job_id)
    except NotFound:
        return None


def _live(services: Services, run: JobRun) -> wire.JobOut:
    coordinator = services.coordinator
    return jobs_out.live_job(run, coordinator.view(run.job_id), coordinator.participants.name)


async def _items(services: Services, job_id: str, limit: int, offset: int) -> wire.ItemsPage:
    run = _find(services, job_id)
    if run is None:
        return await _past_items(services, job_id, limit, offset)
    views = services.coordinator.view(job_id).items
    page = views[offset : offset + limit]
    earlier: Mapping[int, Sequence[wire.AttemptOut]] = {}
    if run.lives > 1:
        earlier = await _earlier_attempts(services, run, [view.index for view in page])
    items = []
    for view in page:
        item = jobs_out.live_item(run, view)
        known = {attempt.number for attempt in item.attempts}
        before = [attempt for attempt in earlier.get(view.index, ()) if attempt.number not in known]
        items.append(item.model_copy(update={"attempts": [*before, *item.attempts]}))
    return wire.ItemsPage(items=items, total=len(views), limit=limit, offset=offset)


# Jobs of the journal


async def _record(services: Services, job_id: str) -> JobRecord:
    record = await services.journal.job(job_id)
    if record is None:
        raise NotFound(f"There is no job {job_id}.", cure="Jobs are listed at /distributed/v2/jobs.")
    return record


async def _past_items(services: Services, job_id: str, limit: int, offset: int) -> wire.ItemsPage:
    record = await _record(services, job_id)
    page = await services.journal.items(job_id, limit, offset)
    attempts = _by_item(await services.journal.attempts(job_id, [item.index for item in page.records]))
    values = jobs_out.past_values(record.plan, [item.index for item in page.records])
    items = [jobs_out.past_item(item, attempts[item.index], values[item.index]) for item in page.records]
    return wire.ItemsPage(items=items, total=page.total, limit=limit, offset=offset)


async def _earlier_attempts(services: Services, run: JobRun, indexes: list[int]) -> dict[int, list[wire.AttemptOut]]:
    try:
        known = _by_item(await services.journal.attempts(run.job_id, indexes))
    except JournalUnavailable:
        return {}
    return {index: jobs_out.past_attempts(attempts) for index, attempts in known.items()}


def _by_item(attempts: Sequence[AttemptRecord]) -> defaultdict[int, list[AttemptRecord]]:
    found: defaultdict[int, list[AttemptRecord]] = defaultdict(list)
    for attempt in attempts:
        found[attempt.index].append(attempt)
    return found


def _post(path: str, summary: str, handler: Any, *errors: Any) -> Route:
    return Route(
        "POST", JOBS + path, summary, handler, wire.JobOut, body=wire.Nothing, errors=(NotFound, *errors), tag="jobs"
    )


AGAIN = (Conflict, NobodyCanRun, InvalidPrompt, JournalUnavailable)

ROUTES = (
    Route("GET", JOBS, "Lists jobs, the newest first", list_jobs, wire.JobsPage, query=wire.JobsQuery, tag="jobs"),
    Route(
        "GET",
        JOBS + "/{id}",
        "Shows a job with its items and their attempts",
        get_job,
        wire.JobDetail,
        errors=(NotFound, JournalUnavailable),
        tag="jobs",
    ),
    Route(
        "GET",
        JOBS + "/{id}/items",
        "Lists the items of a job",
        list_items,
        wire.ItemsPage,
        query=wire.ItemsQuery,
        errors=(NotFound, JournalUnavailable),
        tag="jobs",
    ),
    Route(
        "DELETE",
        JOBS + "/{id}",
        "Forgets a job that has ended, and what is kept for taking it up again",
        forget_job,
        wire.JobForgotten,
        errors=(NotFound, Conflict, JournalUnavailable),
        tag="jobs",
    ),
    _post("/{id}/cancel", "Stops a job everywhere, and the master's own prompt", cancel_job, JournalUnavailable),
    _post("/{id}/resume", "Takes up a job again that did not end well; what is finished is reused", resume_job, *AGAIN),
    _post("/{id}/retry_failed", "Repeats the failed items of a job that has ended", retry_failed, *AGAIN),
)
