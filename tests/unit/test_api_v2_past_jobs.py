"""``/distributed/v2/jobs`` for jobs that are no longer in memory: the journal of an earlier process of this server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from fakes.api import Instance
from flotilla.api import wire
from flotilla.utils.errors import JournalUnavailable
from flotilla.utils.ids import new_id
from flotilla.workers import messages as m

JOBS = "/distributed/v2/jobs"


@pytest.fixture
async def past_job(tmp_path: Path) -> str:
    """A job that was cut short: one item failed once, nothing else was done."""
    before = Instance(tmp_path)
    before.add_worker("w1", 8189)
    before.add_worker("w2", 8190)
    run = before.add_job()
    failed = m.ItemFailed(
        job_id=run.job_id, index=1, attempt=1, kind="exception", message="boom", exception_type="ValueError", retry=True
    )
    await before.coordinator.inbox.on_message("w1", failed)
    await before.journal.flush()
    await before.close()
    return run.job_id


@pytest.fixture
async def instance(tmp_path: Path, past_job: str) -> AsyncIterator[Instance]:
    made = Instance(tmp_path)
    await made.journal.flush()
    yield made
    await made.close()


@pytest.fixture
async def client(instance: Instance, aiohttp_client: Any) -> TestClient[Any, Any]:
    made: TestClient[Any, Any] = await aiohttp_client(instance.app())
    return made


async def get(client: TestClient[Any, Any], path: str, status: int = 200) -> Any:
    response = await client.get(path)
    assert response.status == status, await response.text()
    return await response.json()


async def post(client: TestClient[Any, Any], path: str, status: int = 200) -> Any:
    response = await client.post(path, json={})
    assert response.status == status, await response.text()
    return await response.json()


async def test_what_was_cut_short_is_listed_as_interrupted(client: TestClient[Any, Any], past_job: str) -> None:
    page = wire.JobsPage.model_validate(await get(client, f"{JOBS}?state=interrupted"))
    assert [(job.id, job.items_total, job.items_done, job.lives) for job in page.jobs] == [(past_job, 3, 0, 1)]
    assert [one.name for one in page.jobs[0].participants] == ["Master", "W1", "W2"]
    assert (await get(client, f"{JOBS}?state=running"))["total"] == 0


async def test_it_is_shown_with_items_attempts_and_values(client: TestClient[Any, Any], past_job: str) -> None:
    job = wire.JobDetail.model_validate(await get(client, f"{JOBS}/{past_job}"))
    assert [(stage.node_id, stage.way, stage.count) for stage in job.stages] == [("3", "one_each", 3)]
    assert [item.values for item in job.items] == [{"2": 40}, {"2": 41}, {"2": 42}]
    attempts = job.items[1].attempts
    assert (attempts[0].number, attempts[0].participant, attempts[0].state) == (1, "w1", "failed")
    error = attempts[0].error
    assert error is not None
    assert (error.message, error.attempt) == ("ValueError: boom", 1)
    assert attempts[0].ended_s is not None
    page = await get(client, f"{JOBS}/{past_job}/items?limit=1&offset=2")
    assert ([item["index"] for item in page["items"]], page["total"]) == ([2], 3)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("participant=w1", True),
        ("participant=w9", False),
        ("since_s=0", True),
        ("until_s=1", False),
        ("since_s=99999999999", False),
        ("text=nothing-like-it", False),
    ],
)
async def test_filters(client: TestClient[Any, Any], query: str, found: bool) -> None:
    assert (await get(client, f"{JOBS}?{query}"))["total"] == int(found)


async def test_text_finds_the_id(client: TestClient[Any, Any], past_job: str) -> None:
    assert (await get(client, f"{JOBS}?text={past_job[:8].upper()}"))["total"] == 1


async def test_resume_queues_it_again_under_its_id(
    instance: Instance, client: TestClient[Any, Any], past_job: str
) -> None:
    job = wire.JobOut.model_validate(await post(client, f"{JOBS}/{past_job}/resume"))
    assert (job.id, job.lives) == (past_job, 2)
    assert [taken[0] for taken in instance.queue.taken] == [past_job]
    detail = wire.JobDetail.model_validate(await get(client, f"{JOBS}/{past_job}"))
    numbers = [attempt.number for attempt in detail.items[1].attempts]
    assert numbers[0] == 1  # the earlier life's attempt is still shown
    await post(client, f"{JOBS}/{past_job}/resume", status=409)


async def test_only_failed_jobs_are_retried(client: TestClient[Any, Any], past_job: str) -> None:
    body = await post(client, f"{JOBS}/{past_job}/retry_failed", status=409)
    assert "interrupted" in body["error"]["message"]


async def test_cancelling_an_interrupted_job_gives_it_up(client: TestClient[Any, Any], past_job: str) -> None:
    assert (await post(client, f"{JOBS}/{past_job}/cancel"))["state"] == "cancelled"
    await post(client, f"{JOBS}/{past_job}/resume", status=409)


async def test_forgetting(client: TestClient[Any, Any], past_job: str) -> None:
    response = await client.delete(f"{JOBS}/{past_job}")
    assert (response.status, await response.json()) == (200, {"forgotten": past_job})
    await get(client, f"{JOBS}/{past_job}", 404)
    response = await client.delete(f"{JOBS}/{past_job}")
    assert response.status == 404


async def test_a_job_that_runs_is_not_forgotten(instance: Instance, client: TestClient[Any, Any]) -> None:
    instance.add_worker("w3", 8191)
    run = instance.add_job()
    response = await client.delete(f"{JOBS}/{run.job_id}")
    assert response.status == 409
    assert (await get(client, f"{JOBS}/{run.job_id}"))["id"] == run.job_id


@pytest.mark.parametrize("action", ["resume", "retry_failed"])
async def test_an_unknown_job_cannot_be_taken_up(client: TestClient[Any, Any], action: str) -> None:
    await post(client, f"{JOBS}/{new_id()}/{action}", status=404)


async def test_without_a_journal_the_memory_answers(
    instance: Instance, client: TestClient[Any, Any], past_job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_args: object) -> None:
        raise JournalUnavailable("the disk is gone")

    instance.add_worker("w3", 8191)
    run = instance.add_job()
    for method in ("jobs", "job", "items", "attempts"):
        monkeypatch.setattr(instance.journal, method, broken)
    assert [job["id"] for job in (await get(client, JOBS))["jobs"]] == [run.job_id]
    assert (await get(client, f"{JOBS}/{run.job_id}"))["id"] == run.job_id
    body = await get(client, f"{JOBS}/{past_job}", 503)
    assert body["error"]["code"] == "journal_unavailable"
