"""``/distributed/v2/jobs`` on a real server, with a real coordinator behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from fakes.api import Instance
from flotilla.api import wire
from flotilla.runtime.wishes import Wishes
from flotilla.utils.ids import new_id
from flotilla.workers import messages as m

JOBS = "/distributed/v2/jobs"
NO_JOB = new_id()


@pytest.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    made = Instance(tmp_path)
    made.add_worker("w1", 8189)
    made.add_worker("w2", 8190)
    yield made
    await made.close()


@pytest.fixture
async def client(instance: Instance, aiohttp_client: Any) -> TestClient[Any, Any]:
    made: TestClient[Any, Any] = await aiohttp_client(instance.app())
    return made


async def get(client: TestClient[Any, Any], path: str, status: int = 200) -> Any:
    response = await client.get(path)
    assert response.status == status, await response.text()
    assert response.content_type == "application/json"
    return await response.json()


def assert_error(body: Any, code: str) -> str:
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "cure", "details"}
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    return str(body["error"]["message"])


async def test_without_jobs_the_list_is_empty(client: TestClient[Any, Any]) -> None:
    assert await get(client, JOBS) == {"jobs": [], "total": 0, "limit": 50, "offset": 0}


async def test_a_job_tells_who_does_what(instance: Instance, client: TestClient[Any, Any]) -> None:
    run = instance.add_job()
    job = await get(client, f"{JOBS}/{run.job_id}")
    items = job.pop("items")
    assert job == {
        "id": run.job_id,
        "state": "running",
        "created_s": instance.clock.wall_s(),
        "accepted_s": instance.clock.wall_s(),
        "ended_s": None,
        "items_total": 3,
        "items_done": 0,
        "left_out": {},
        "participants": [
            {"id": "master", "name": "Master"},
            {"id": "w1", "name": "W1"},
            {"id": "w2", "name": "W2"},
        ],
        "error": None,
        "missing": {},
        "lives": 1,
        "stages": [{"node_id": "3", "class_type": "DistributedCollector", "way": "one_each", "count": 3}],
    }
    assert [item["index"] for item in items] == [0, 1, 2]
    assert [item["participant"] for item in items] == ["master", "w1", "w2"]
    assert items[1] == {
        "index": 1,
        "node_id": "3",
        "k": 1,
        "state": "leased",
        "participant": "w1",
        "planned_for": "w1",
        "attempts": [
            {
                "number": 1,
                "participant": "w1",
                "state": "leased",
                "leased_s": instance.clock.wall_s(),
                "started_s": None,
                "ended_s": None,
                "error": None,
            }
        ],
        "fraction": 0.0,
        "label": "",
        "copies": 1,
        "seconds": None,
        "size_bytes": None,
        "values": {"2": 41},
        "error": None,
    }


async def test_answers_are_what_the_models_say(instance: Instance, client: TestClient[Any, Any]) -> None:
    run = instance.add_job()
    job = wire.JobDetail.model_validate(await get(client, f"{JOBS}/{run.job_id}"))
    assert (job.items_total, job.items_done, len(job.items)) == (3, 0, 3)
    listed = wire.JobsPage.model_validate(await get(client, JOBS))
    assert listed.jobs == [wire.JobOut(**{name: getattr(job, name) for name in wire.JobOut.model_fields})]


async def test_progress_and_failures_of_items_show(instance: Instance, client: TestClient[Any, Any]) -> None:
    run = instance.add_job()
    about: dict[str, Any] = {"job_id": run.job_id, "index": 1, "attempt": 1}
    await instance.coordinator.inbox.on_message("w1", m.ItemStarted(**about))
    await instance.coordinator.inbox.on_message(
        "w1", m.ItemProgress(**about, fraction=0.25, node_id="1", label="KSampler")
    )
    item = (await get(client, f"{JOBS}/{run.job_id}"))["items"][1]
    assert (item["state"], item["fraction"], item["label"]) == ("running", 0.25, "KSampler")
    run.seconds[1], run.sizes[1] = 1.5, 4096
    failed = m.ItemFailed(
        **about,
        kind="error",
        message="no such file",
        exception_type="OSError",
        traceback=["line 1\n", "line 2\n"],
        node_id="1",
        node_type="KitImage",
        retry=True,
    )
    await instance.coordinator.inbox.on_message("w1", failed)
    item = (await get(client, f"{JOBS}/{run.job_id}"))["items"][1]
    error = {
        "kind": "error",
        "message": "OSError: no such file",
        "traceback": "line 1\nline 2\n",
        "participant": "w1",
        "attempt": 1,
        "node_id": "1",
        "node_type": "KitImage",
    }
    attempt = item["attempts"][0]
    assert (attempt["number"], attempt["participant"], attempt["state"]) == (1, "w1", "failed")
    assert attempt["error"] == error
    assert (item["seconds"], item["size_bytes"], item["attempts"][1]["number"]) == (1.5, 4096, 2)


async def test_a_failed_job_says_why(instance: Instance, client: TestClient[Any, Any]) -> None:
    run = instance.add_job()
    failed = m.ItemFailed(
        job_id=run.job_id,
        index=2,
        attempt=1,
        kind="error",
        message="boom",
        exception_type="ValueError",
        traceback=["where\n"],
        node_id="1",
        node_type="KitImage",
        retry=False,
    )
    await instance.coordinator.inbox.on_message("w2", failed)
    job = await get(client, f"{JOBS}/{run.job_id}")
    assert job["state"] == "failed"
    assert job["ended_s"] == instance.clock.wall_s()
    assert job["error"] == {
        "kind": "error",
        "message": "ValueError: boom",
        "traceback": "where\n",
        "participant": "w2",
        "attempt": 1,
        "node_id": "1",
        "node_type": "KitImage",
    }


async def test_jobs_are_listed_newest_first_in_pages(instance: Instance, client: TestClient[Any, Any]) -> None:
    made = [instance.add_job().job_id for _ in range(5)]
    page = await get(client, f"{JOBS}?limit=2&offset=1")
    assert (page["total"], page["limit"], page["offset"]) == (5, 2, 1)
    assert [job["id"] for job in page["jobs"]] == [made[3], made[2]]
    assert "items" not in page["jobs"][0]
    assert (await get(client, f"{JOBS}?offset=9"))["jobs"] == []


async def test_jobs_are_listed_by_state(instance: Instance, client: TestClient[Any, Any]) -> None:
    first, second = instance.add_job().job_id, instance.add_job().job_id
    instance.coordinator.cancel(first, "for a test")
    page = await get(client, f"{JOBS}?state=cancelled")
    assert ([job["id"] for job in page["jobs"]], page["total"]) == ([first], 1)
    page = await get(client, f"{JOBS}?state=running")
    assert ([job["id"] for job in page["jobs"]], page["total"]) == ([second], 1)
    assert (await get(client, f"{JOBS}?state=done"))["total"] == 0


async def test_items_come_in_pages(instance: Instance, client: TestClient[Any, Any]) -> None:
    run = instance.add_job()
    page = await get(client, f"{JOBS}/{run.job_id}/items?limit=1&offset=2")
    assert (page["total"], page["limit"], page["offset"]) == (3, 1, 2)
    assert [item["index"] for item in page["items"]] == [2]
    whole = await get(client, f"{JOBS}/{run.job_id}")
    assert (await get(client, f"{JOBS}/{run.job_id}/items"))["items"] == whole["items"]


async def test_who_is_left_out_and_why(instance: Instance, client: TestClient[Any, Any]) -> None:
    missing = m.Capabilities(data={"classes": ["PreviewImage"], "lists": [], "options": {}})
    await instance.coordinator.inbox.on_message("w2", missing)
    job = await get(client, f"{JOBS}/{instance.add_job().job_id}")
    assert list(job["left_out"]) == ["w2"]
    assert "KitImage" in job["left_out"]["w2"]
    assert [one["id"] for one in job["participants"]] == ["master", "w1"]


async def test_cancel_stops_the_job_and_the_masters_prompt(instance: Instance, client: TestClient[Any, Any]) -> None:
    run = instance.add_job()
    response = await client.post(f"{JOBS}/{run.job_id}/cancel", json={})
    assert response.status == 200
    assert (await response.json())["state"] == "cancelled"
    assert instance.queue.cancelled == [run.job_id]


async def test_cancelling_a_job_that_has_ended_changes_nothing(
    instance: Instance, client: TestClient[Any, Any]
) -> None:
    run = instance.add_job()
    for _ in range(3):
        response = await client.post(f"{JOBS}/{run.job_id}/cancel", json={})
        assert (response.status, (await response.json())["state"]) == (200, "cancelled")
    # The prompt's id may run on the host again by then: it is interrupted once.
    assert instance.queue.cancelled == [run.job_id]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=-1",
        "limit=x",
        "limit=1.5",
        "limit=",
        "offset=-1",
        "offset=99999999999",
        "state=busy",
        "state=",
        "limit=1&limit=2",
        "unknown=1",
    ],
)
async def test_a_bad_query_names_the_parameter(client: TestClient[Any, Any], query: str) -> None:
    message = assert_error(await get(client, f"{JOBS}?{query}", 400), "invalid_input")
    assert query.partition("=")[0] in message or "twice" in message


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "offset=-1", "state=done"])
async def test_a_bad_query_for_items(instance: Instance, client: TestClient[Any, Any], query: str) -> None:
    assert_error(await get(client, f"{JOBS}/{instance.add_job().job_id}/items?{query}", 400), "invalid_input")


@pytest.mark.parametrize("job_id", [NO_JOB, "x", "..", "%2e%2e%2fetc", "null", "a" * 5_000])
async def test_an_unknown_job_is_not_found(client: TestClient[Any, Any], job_id: str) -> None:
    assert_error(await get(client, f"{JOBS}/{job_id}", 404), "not_found")


async def test_items_and_cancel_of_an_unknown_job(client: TestClient[Any, Any]) -> None:
    assert_error(await get(client, f"{JOBS}/{NO_JOB}/items", 404), "not_found")
    response = await client.post(f"{JOBS}/{NO_JOB}/cancel", json={})
    assert response.status == 404
    assert_error(await response.json(), "not_found")


async def test_cancel_wants_an_empty_json_object(instance: Instance, client: TestClient[Any, Any]) -> None:
    path = f"{JOBS}/{instance.add_job().job_id}/cancel"
    for kwargs in ({"data": b"{}"}, {"json": []}, {"json": {"why": "not"}}, {"data": {"a": "form"}}, {}):
        response = await client.post(path, **kwargs)  # type: ignore[arg-type]
        assert response.status == 400, kwargs
        assert_error(await response.json(), "invalid_input")
    response = await client.post(path, json={}, headers={"Sec-Fetch-Site": "cross-site"})
    assert response.status == 403
    assert_error(await response.json(), "not_allowed")
    assert instance.queue.cancelled == []


async def test_the_same_routes_below_api(instance: Instance, client: TestClient[Any, Any]) -> None:
    run = instance.add_job()
    assert (await get(client, f"/api{JOBS}/{run.job_id}"))["id"] == run.job_id


async def test_a_dropped_job_is_not_known(instance: Instance, client: TestClient[Any, Any]) -> None:
    json_data = {"prompt": instance.add_job().plan.prompt}
    run = instance.coordinator.plan(json_data, Wishes())
    assert run is not None
    assert (await get(client, f"{JOBS}/{run.job_id}"))["state"] == "planned"
    instance.coordinator.drop(run.job_id, "refused")
    assert_error(await get(client, f"{JOBS}/{run.job_id}", 404), "not_found")


async def test_a_defect_of_ours_is_one_shape_too_and_tells_nothing(
    instance: Instance, client: TestClient[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("inner workings")

    monkeypatch.setattr(instance.coordinator, "runs", broken)
    body = await get(client, JOBS, 500)
    assert_error(body, "internal")
    assert "inner workings" not in str(body)
