"""The older extension's routes that change one worker, one setting or the master, with a real registry behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from fakes.api import Instance
from fakes.compat import OLDER, get_config, post

PATCHES = 50


@pytest.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    made = Instance(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def client(instance: Instance, aiohttp_client: Any) -> TestClient[Any, Any]:
    made: TestClient[Any, Any] = await aiohttp_client(instance.app())
    return made


# One worker


@pytest.mark.parametrize(
    ("patch", "changed"),
    [
        ({"name": "New"}, {"name": "New"}),
        ({"enabled": False}, {"enabled": False}),
        ({"port": 9000}, {"port": 9000}),
        ({"port": "9000"}, {"port": 9000}),
        ({"cuda_device": 3}, {"cuda_device": 3}),
        ({"extra_args": ""}, {"extra_args": ""}),
        ({"type": "remote", "host": " https://gpu.lan:9000/path "}, {"type": "remote", "host": "gpu.lan:9000"}),
        (
            {"host": None, "cuda_device": None, "extra_args": None},
            {"host": None, "cuda_device": None, "extra_args": None},
        ),
        ({"colour": "red", "id": "other"}, {}),
    ],
)
async def test_an_update_changes_what_is_given(
    instance: Instance, client: TestClient[Any, Any], patch: dict[str, Any], changed: dict[str, Any]
) -> None:
    await post(client, "", {"workers": [OLDER]})
    instance.registry.patch("w1", {"tags": ["fast"], "note": "kept"})
    assert await post(client, "update_worker", {"worker_id": "w1", **patch}) == {"status": "success"}
    wanted = {key: value for key, value in {**OLDER, **changed}.items() if value is not None}
    assert (await get_config(client))["workers"] == [wanted]
    entry = instance.registry.get("w1").to_json()
    assert (entry["tags"], entry["note"]) == (["fast"], "kept")
    assert "colour" not in entry


async def test_an_update_of_another_field_keeps_an_address_that_v2_gave(
    instance: Instance, client: TestClient[Any, Any]
) -> None:
    await post(client, "", {"workers": [OLDER]})
    instance.registry.patch("w1", {"address": "https://[2001:db8::5]:9000/comfy"})
    worker = (await get_config(client))["workers"][0]
    assert (worker["host"], worker["port"]) == ("https://[2001:db8::5]:9000/comfy", 9000)
    await post(client, "update_worker", {"worker_id": "w1", "name": "New"})
    assert instance.registry.get("w1").address == "https://[2001:db8::5]:9000/comfy"
    instance.registry.patch("w1", {"address": "http://10.0.0.7:8188"})
    worker = (await get_config(client))["workers"][0]
    assert (worker["host"], worker["port"]) == ("10.0.0.7", 8188)
    await post(client, "update_worker", {"worker_id": "w1", "port": 8190})
    assert instance.registry.get("w1").address == "http://10.0.0.7:8190"


async def test_an_unknown_worker_is_made_if_there_is_enough_to_make_it(client: TestClient[Any, Any]) -> None:
    await post(client, "update_worker", {"worker_id": "w1", "name": "N", "port": 8189}, 404)
    await post(client, "update_worker", {"worker_id": 7, "name": "N", "port": 8189, "cuda_device": None})
    await post(client, "update_worker", {"worker_id": "8", "name": None, "port": 8190, "cuda_device": 2})
    base = {"type": "local", "host": "localhost", "enabled": False, "extra_args": ""}
    assert (await get_config(client))["workers"] == [
        {**base, "id": "7", "name": "N", "port": 8189},
        {**base, "id": "8", "name": "Worker 2", "port": 8190, "cuda_device": 2},
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 1),
        ("enabled", "yes"),
        ("enabled", 1),
        ("port", "x"),
        ("port", 0),
        ("port", 65_536),
        ("port", True),
        ("port", 8189.0),
        ("host", 5),
        ("host", "user:hunter2@10.0.0.5"),
        ("host", "a b"),
        ("cuda_device", "0"),
        ("cuda_device", True),
        ("extra_args", []),
        ("type", "moon"),
        ("type", []),
    ],
)
async def test_a_wrong_field_of_a_worker(
    instance: Instance, client: TestClient[Any, Any], field: str, value: Any
) -> None:
    await post(client, "", {"workers": [OLDER]})
    before = instance.registry.data()
    answer = await post(client, "update_worker", {"worker_id": "w1", field: value}, 400)
    assert field in answer["error"] or "address" in answer["error"]
    assert instance.registry.data() == before


@pytest.mark.parametrize("name", ["update_worker", "delete_worker"])
@pytest.mark.parametrize("worker_id", [None, "", " ", True, [], {}, 1.5])
async def test_a_worker_id_of_a_wrong_type(client: TestClient[Any, Any], name: str, worker_id: Any) -> None:
    assert "worker_id" in (await post(client, name, {"worker_id": worker_id, "name": "N"}, 400))["error"]


async def test_a_worker_is_deleted_by_number_or_text(instance: Instance, client: TestClient[Any, Any]) -> None:
    instance.add_worker("7", 8189)
    answer = await post(client, "delete_worker", {"worker_id": 7})
    assert set(answer) == {"status", "message"}
    assert instance.registry.entries() == []
    await post(client, "delete_worker", {"worker_id": "7"}, 404)
    await post(client, "delete_worker", {}, 400)


async def test_two_workers_at_one_address_are_a_conflict(client: TestClient[Any, Any]) -> None:
    await post(client, "", {"workers": [OLDER, {**OLDER, "id": "w2", "port": 8190}]})
    await post(client, "update_worker", {"worker_id": "w2", "port": 8189}, 409)


async def test_fifty_updates_at_once_all_survive(instance: Instance, client: TestClient[Any, Any]) -> None:
    new = {"port": 0, "cuda_device": None}
    bodies = [{**new, "worker_id": n, "name": f"N{n}", "port": 9000 + n} for n in range(PATCHES)]
    await asyncio.gather(*(post(client, "update_worker", body) for body in bodies))
    assert {entry.name for entry in instance.registry.entries()} == {f"N{n}" for n in range(PATCHES)}


# Settings and master


async def test_one_setting(instance: Instance, client: TestClient[Any, Any]) -> None:
    answer = await post(client, "update_setting", {"key": "worker_timeout_seconds", "value": 120})
    assert set(answer) == {"status", "message"}
    await post(client, "update_setting", {"key": "debug", "value": True})
    settings = instance.registry.settings()
    assert (settings.worker_timeout_seconds, settings.debug) == (120, True)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"key": "debug"},
        {"key": "debug", "value": None},
        {"key": "debug", "value": 1},
        {"key": "worker_timeout_seconds", "value": True},
        {"key": "worker_timeout_seconds", "value": "60"},
        {"key": "worker_timeout_seconds", "value": 0},
        {"key": "max_attempts", "value": 5},
        {"key": "worker_probe_concurrency", "value": 5},
        {"key": ["debug"], "value": True},
        {"key": 1, "value": True},
    ],
)
async def test_a_bad_setting(instance: Instance, client: TestClient[Any, Any], body: dict[str, Any]) -> None:
    before = instance.registry.data()
    await post(client, "update_setting", body, 400)
    assert instance.registry.data() == before


async def test_the_master(instance: Instance, client: TestClient[Any, Any]) -> None:
    body = {"name": " Desk ", "host": "https://10.0.0.1:8188/x", "port": "8188", "cuda_device": 0, "colour": "red"}
    assert set(await post(client, "update_master", body)) == {"status", "message"}
    master = {"host": "10.0.0.1:8188", "port": 8188, "cuda_device": 0, "name": "Desk"}
    assert (await get_config(client))["master"] == master
    await post(client, "update_master", {"host": None})
    assert (await get_config(client))["master"] == {**master, "host": ""}
    await post(client, "update_master", {"name": None, "cuda_device": None})
    assert (await get_config(client))["master"] == {"host": "", "port": 8188}
    assert "colour" not in instance.registry.data().master


@pytest.mark.parametrize(
    "body",
    [{"host": 1}, {"host": "user:hunter2@h"}, {"name": []}, {"port": True}, {"cuda_device": "0"}, {"extra_args": 5}],
)
async def test_a_bad_master(instance: Instance, client: TestClient[Any, Any], body: dict[str, Any]) -> None:
    before = instance.registry.data()
    assert next(iter(body)) in (await post(client, "update_master", body, 400))["error"]
    assert instance.registry.data() == before
