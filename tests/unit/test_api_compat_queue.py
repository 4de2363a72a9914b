"""The older extension's routes for queueing, on a real server with a real coordinator and interceptor behind them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from fakes.api import PLAIN_PROMPT, PROMPT, Instance
from flotilla.api import compat_queue
from flotilla.api.compat_queue import ANSWERS_KEPT_S, AnswerStore
from flotilla.host.records import Refused
from flotilla.utils.clock import ManualClock
from flotilla.utils.errors import InvalidInput
from flotilla.utils.ids import is_prompt_id

QUEUE = "/distributed/queue"
TEN_MEGABYTES = 10 * 1024 * 1024
KEPT = 4


@pytest.fixture
async def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Instance]:
    monkeypatch.setattr(compat_queue, "host_system_info", lambda: {"hostname": "here"})
    monkeypatch.setattr(compat_queue, "host_network_info", lambda: {"all_ips": ["10.0.0.1"]})
    made = Instance(tmp_path)
    made.add_worker("w1", 8189)
    made.add_worker("w2", 8190)
    made.add_worker("7", 8191, enabled=False)
    yield made
    await made.close()


@pytest.fixture
async def client(instance: Instance, aiohttp_client: Any) -> TestClient[Any, Any]:
    made: TestClient[Any, Any] = await aiohttp_client(instance.app())
    return made


async def post(client: TestClient[Any, Any], body: Any, status: int = 200, **headers: str) -> Any:
    response = await client.post(QUEUE, json=body, headers={key.replace("_", "-"): headers[key] for key in headers})
    assert response.status == status, await response.text()
    answer = await response.json()
    if status >= 400:
        assert isinstance(answer["error"], str) and answer["error"]
        assert set(answer) <= {"error", "node_errors"}
    return answer


def order(**fields: Any) -> dict[str, Any]:
    return {"prompt": PROMPT, "client_id": "c", "enabled_worker_ids": ["w1", "w2"], **fields}


async def test_a_prompt_is_queued_and_spread(instance: Instance, client: TestClient[Any, Any]) -> None:
    answer = await post(client, order(workflow={"nodes": []}, client_id=" me "))
    prompt_id = answer["prompt_id"]
    assert is_prompt_id(prompt_id)
    assert answer == {
        "prompt_id": prompt_id,
        "number": 1,
        "node_errors": {},
        "worker_count": 2,
        "auto_prepare_supported": True,
    }
    extra_data = {"extra_pnginfo": {"workflow": {"nodes": []}}, "client_id": "me"}
    assert instance.queue.taken == [(prompt_id, PROMPT, extra_data)]
    assert instance.coordinator.view(prompt_id).state == "running"


@pytest.mark.parametrize(
    ("fields", "workers"),
    [
        ({"enabled_worker_ids": ["w2"]}, ["w2"]),
        ({"enabled_worker_ids": [" w2 ", "", "w2"]}, ["w2"]),
        ({"enabled_worker_ids": ["w2", "w1"]}, ["w1", "w2"]),
        ({"enabled_worker_ids": None, "workers": ["w1"]}, ["w1"]),
        ({"enabled_worker_ids": None, "workers": [{"id": "w1", "name": "any"}, "w2"]}, ["w1", "w2"]),
        ({"enabled_worker_ids": ["w1"], "workers": ["w2"]}, ["w1"]),
        ({"enabled_worker_ids": [7, "w1"]}, ["w1"]),
    ],
)
async def test_workers_are_chosen_by_the_request(
    instance: Instance, client: TestClient[Any, Any], fields: dict[str, Any], workers: list[str]
) -> None:
    answer = await post(client, order(**fields))
    assert answer["worker_count"] == len(workers)
    items = instance.coordinator.view(answer["prompt_id"]).items
    assert [item.planned_for for item in items] == ["master", *workers]


@pytest.mark.parametrize("fields", [{"enabled_worker_ids": []}, {"prompt": PLAIN_PROMPT}])
async def test_without_workers_or_distributed_nodes_the_master_runs_it_alone(
    instance: Instance, client: TestClient[Any, Any], fields: dict[str, Any]
) -> None:
    answer = await post(client, order(**fields))
    assert answer["worker_count"] == 0
    assert is_prompt_id(answer["prompt_id"])
    assert [taken[0] for taken in instance.queue.taken] == [answer["prompt_id"]]
    assert instance.coordinator.runs() == []


async def test_the_older_form_uses_the_enabled_workers(instance: Instance, client: TestClient[Any, Any]) -> None:
    answer = await post(client, {"prompt": PROMPT})
    assert answer["worker_count"] == 2
    assert instance.queue.taken[0][2] == {}


async def test_the_prompt_may_lie_in_the_workflow(instance: Instance, client: TestClient[Any, Any]) -> None:
    workflow = {"prompt": PROMPT, "nodes": []}
    await post(client, {"workflow": workflow, "client_id": "c", "enabled_worker_ids": []})
    await post(client, {"prompt": None, "workflow": workflow, "client_id": "c", "enabled_worker_ids": []})
    assert [taken[1] for taken in instance.queue.taken] == [PROMPT, PROMPT]


@pytest.mark.parametrize(
    ("stored", "asked", "master_takes_part"),
    [(False, None, True), (True, None, False), (False, True, False), (True, False, True)],
)
async def test_the_request_decides_whether_the_master_takes_part(
    instance: Instance, client: TestClient[Any, Any], stored: bool, asked: bool | None, master_takes_part: bool
) -> None:
    instance.registry.patch_settings({"master_delegate_only": stored})
    answer = await post(client, order(delegate_master=asked, auto_prepare=True, trace_execution_id=" t "))
    planned_for = [item.planned_for for item in instance.coordinator.view(answer["prompt_id"]).items]
    assert ("master" in planned_for) == master_takes_part
    assert answer["worker_count"] == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("auto_prepare", "yes"),
        ("auto_prepare", None),
        ("prompt", []),
        ("prompt", "text"),
        ("prompt", None),
        ("workers", "w1"),
        ("workers", {"id": "w1"}),
        ("enabled_worker_ids", "w1"),
        ("enabled_worker_ids", {}),
        ("delegate_master", "true"),
        ("delegate_master", 1),
        ("client_id", 5),
        ("client_id", "  "),
        ("trace_execution_id", 5),
        ("trace_execution_id", []),
    ],
)
async def test_a_wrong_field_is_named(instance: Instance, client: TestClient[Any, Any], field: str, value: Any) -> None:
    answer = await post(client, order(**{field: value}), 400)
    assert field in answer["error"]
    assert instance.queue.taken == []


@pytest.mark.parametrize("worker_id", [None, True, 1.5, [], {}])
@pytest.mark.parametrize("field", ["enabled_worker_ids", "workers"])
async def test_a_worker_id_of_a_wrong_type(client: TestClient[Any, Any], field: str, worker_id: Any) -> None:
    body = {"prompt": PROMPT, "client_id": "c", field: [worker_id]}
    assert "worker id" in (await post(client, body, 400))["error"]


async def test_faults_are_found_in_the_order_that_clients_know(client: TestClient[Any, Any]) -> None:
    body: dict[str, Any] = dict.fromkeys(
        [
            "auto_prepare",
            "prompt",
            "workers",
            "enabled_worker_ids",
            "delegate_master",
            "client_id",
            "trace_execution_id",
        ],
        5,
    )
    for field in list(body):
        assert (await post(client, body, 400))["error"].startswith(field)
        body[field] = {"auto_prepare": True, "prompt": PROMPT, "workers": [], "enabled_worker_ids": []}.get(field)
    await post(client, body)


@pytest.mark.parametrize("prompt", [PROMPT, PLAIN_PROMPT])
async def test_unknown_workers_are_named(instance: Instance, client: TestClient[Any, Any], prompt: Any) -> None:
    answer = await post(client, order(prompt=prompt, enabled_worker_ids=["w1", "w8", "w9"]), 400)
    assert "w8" in answer["error"] and "w9" in answer["error"] and "w1" not in answer["error"]
    assert (instance.queue.taken, instance.coordinator.runs()) == ([], [])


async def test_a_prompt_that_cannot_be_planned(instance: Instance, client: TestClient[Any, Any]) -> None:
    circle = {"1": {"class_type": "DistributedCollector", "inputs": {"images": ["1", 0]}}}
    await post(client, order(prompt=circle), 400)
    nobody = {**PROMPT, "1": {"class_type": "NoSuchNode", "inputs": {}}}
    answer = await post(client, order(prompt=nobody, enabled_worker_ids=[]), 200)
    assert answer["worker_count"] == 0
    assert len(instance.queue.taken) == 1


async def test_a_prompt_that_the_host_refuses_leaves_no_job(instance: Instance, client: TestClient[Any, Any]) -> None:
    node_errors = {"1": {"errors": [{"message": "Value not in list"}], "class_type": "KitImage"}}
    instance.queue.refusal = Refused(
        {"message": "Prompt outputs failed validation", "details": "a detail"}, node_errors
    )
    answer = await post(client, order(), 400)
    assert answer == {"error": "Prompt outputs failed validation: a detail.", "node_errors": node_errors}
    assert instance.coordinator.runs() == []


async def test_a_prompt_handler_of_another_pack_may_change_everything(
    instance: Instance, client: TestClient[Any, Any]
) -> None:
    instance.queue.handler = lambda json_data: {"prompt": {"9": {}}, "client_id": "other", "extra_data": {"a": 1}}
    answer = await post(client, order())
    assert instance.queue.taken == [(answer["prompt_id"], {"9": {}}, {"a": 1, "client_id": "other"})]
    instance.queue.handler = lambda json_data: {}
    await post(client, order(), 400)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff"])
async def test_a_body_that_is_no_json_object(client: TestClient[Any, Any], body: bytes) -> None:
    response = await client.post(QUEUE, data=body, headers={"Content-Type": "application/json"})
    assert response.status == 400
    assert set(await response.json()) == {"error"}


async def test_other_types_and_other_sites(instance: Instance, client: TestClient[Any, Any]) -> None:
    response = await client.post(QUEUE, data=json.dumps(order()))
    assert (response.status, set(await response.json())) == (400, {"error"})
    await post(client, order(), 403, Sec_Fetch_Site="cross-site")
    assert instance.queue.taken == []


async def test_ten_megabytes_are_a_prompt_like_any_other(instance: Instance, client: TestClient[Any, Any]) -> None:
    big = {**PROMPT, "5": {"class_type": "KitImage", "inputs": {"text": "x" * TEN_MEGABYTES}}}
    assert (await post(client, order(prompt=big)))["worker_count"] == 2


# The same request again


async def test_the_same_key_makes_one_job(instance: Instance, client: TestClient[Any, Any]) -> None:
    first = await post(client, order(), X_Idempotency_Key="k")
    assert await post(client, order(), X_Idempotency_Key="k") == first
    other = await post(client, order(), X_Idempotency_Key="other")
    without = await post(client, order())
    assert len({first["prompt_id"], other["prompt_id"], without["prompt_id"]}) == 3
    assert len(instance.queue.taken) == len(instance.coordinator.runs()) == 3


async def test_the_same_key_twice_at_the_same_time(instance: Instance, client: TestClient[Any, Any]) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def gate() -> None:
        arrived.set()
        await go_on.wait()

    instance.queue.gate = gate
    first = asyncio.create_task(post(client, order(), X_Idempotency_Key="k"))
    await arrived.wait()
    second = asyncio.create_task(post(client, order(), X_Idempotency_Key="k"))
    # The second is on its way to the same answer once a later request has been answered.
    assert (await client.get("/distributed/system_info")).status == 200
    go_on.set()
    assert await first == await second
    assert len(instance.queue.taken) == 1


async def test_a_key_is_forgotten_in_time(instance: Instance, client: TestClient[Any, Any]) -> None:
    first = await post(client, order(), X_Idempotency_Key="k")
    instance.clock.advance(ANSWERS_KEPT_S)
    assert await post(client, order(), X_Idempotency_Key="k") == first
    instance.clock.advance(1.0)
    assert await post(client, order(), X_Idempotency_Key="k") != first


async def test_a_failed_request_can_be_tried_again(instance: Instance, client: TestClient[Any, Any]) -> None:
    instance.queue.refusal = Refused({"message": "not now"}, {})
    await post(client, order(), 400, X_Idempotency_Key="k")
    instance.queue.refusal = None
    assert (await post(client, order(), X_Idempotency_Key="k"))["worker_count"] == 2


async def test_a_key_has_a_length(client: TestClient[Any, Any]) -> None:
    assert "X-Idempotency-Key" in (await post(client, order(), 400, X_Idempotency_Key="k" * 201))["error"]


async def test_the_store_of_answers_is_bounded() -> None:
    store = AnswerStore(ManualClock(), kept=KEPT)
    made: list[int] = []

    async def make() -> dict[str, Any]:
        made.append(len(made))
        return {"n": made[-1]}

    for n in range(3 * KEPT):
        await store.once(f"key {n}", make)
        assert len(store) <= KEPT
    assert await store.once(f"key {3 * KEPT - 1}", make) == {"n": 3 * KEPT - 1}
    assert await store.once("key 0", make) == {"n": 3 * KEPT}


async def test_a_caller_that_goes_away_does_not_end_the_request_of_the_other() -> None:
    store = AnswerStore(ManualClock())
    started, go_on = asyncio.Event(), asyncio.Event()

    async def make() -> dict[str, Any]:
        started.set()
        await go_on.wait()
        return {"n": 1}

    first = asyncio.create_task(store.once("k", make))
    await started.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go_on.set()
    assert await store.once("k", make) == {"n": 1}


async def test_both_callers_hear_of_a_failure() -> None:
    store = AnswerStore(ManualClock())

    async def make() -> dict[str, Any]:
        raise InvalidInput("no")

    failed = await asyncio.gather(store.once("k", make), store.once("k", make), return_exceptions=True)
    assert [str(error) for error in failed] == ["no", "no"]
    assert len(store) == 0


# What else older scripts ask


async def test_the_status_of_a_job(instance: Instance, client: TestClient[Any, Any]) -> None:
    job_id = (await post(client, order()))["prompt_id"]

    async def status(name: str) -> Any:
        return await (await client.get(f"/distributed/queue_status/{name}")).json()

    assert await status(job_id) == {"exists": True, "job_id": job_id}
    instance.coordinator.cancel(job_id, "for a test")
    assert await status(job_id) == {"exists": False, "job_id": job_id}
    assert await status("nonsense") == {"exists": False, "job_id": "nonsense"}


async def test_facts_about_the_machine(client: TestClient[Any, Any]) -> None:
    response = await client.get("/distributed/system_info")
    assert await response.json() == {"status": "success", "hostname": "here"}
    response = await client.get("/api/distributed/network_info")
    assert await response.json() == {"status": "success", "all_ips": ["10.0.0.1"]}


async def test_a_defect_of_ours_has_the_older_shape(
    client: TestClient[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat_queue, "host_system_info", lambda: {}["inner workings"])
    response = await client.get("/distributed/system_info")
    body = await response.json()
    assert (response.status, set(body)) == (500, {"error"})
    assert "inner" not in body["error"]
