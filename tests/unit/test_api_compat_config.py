"""The older extension's configuration as a whole, with a real registry behind it; bodies that every route refuses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from fakes.api import SECRET, Instance
from fakes.compat import CONFIG, OLDER, get_config, post
from flotilla.workers.importer import import_gpu_config

TEN_MEGABYTES = 10 * 1024 * 1024
DEFAULTS = {
    "master": {"host": ""},
    "workers": [],
    "settings": {
        "worker_timeout_seconds": 60,
        "debug": False,
        "auto_launch_workers": False,
        "stop_workers_on_master_exit": True,
        "master_delegate_only": False,
        "websocket_orchestration": True,
        "has_auto_populated_workers": False,
        "worker_probe_concurrency": 8,
        "worker_prep_concurrency": 4,
        "media_sync_concurrency": 2,
        "media_sync_timeout_seconds": 120,
    },
    "tunnel": {"status": "stopped", "public_url": "", "pid": None, "log_file": "", "previous_master_host": ""},
}


@pytest.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    made = Instance(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def client(instance: Instance, aiohttp_client: Any) -> TestClient[Any, Any]:
    made: TestClient[Any, Any] = await aiohttp_client(instance.app())
    return made


# The whole


async def test_defaults_are_filled_in(client: TestClient[Any, Any]) -> None:
    assert await get_config(client) == DEFAULTS


@pytest.mark.parametrize(
    "worker",
    [
        OLDER,
        {"id": "r", "name": "R", "type": "remote", "host": "10.0.0.5", "port": 8188, "enabled": True},
        {"id": "c", "name": "C", "type": "cloud", "host": "x.trycloudflare.com", "port": 443, "enabled": True},
        {"id": "u", "name": "U", "type": "remote", "host": "https://gpu.lan/comfy", "port": 9, "enabled": True},
        {"id": "p", "name": "P", "type": "remote", "host": "", "port": 8190, "enabled": False},
        {"id": "n", "name": "N", "type": "local", "port": 8190, "enabled": False},
        {"id": "hp", "name": "HP", "type": "remote", "host": "10.0.0.5:9000", "port": 8188, "enabled": True},
    ],
    ids=lambda worker: worker["id"],
)
async def test_a_worker_reads_back_as_it_was_written(client: TestClient[Any, Any], worker: dict[str, Any]) -> None:
    answer = await post(client, "", {"workers": [worker]})
    assert answer["config"]["workers"] == [worker]
    assert (await get_config(client))["workers"] == [worker]
    await post(client, "", {"workers": [worker]})
    assert (await get_config(client))["workers"] == [worker]


@pytest.mark.parametrize(
    ("worker", "address"),
    [
        (OLDER, "http://localhost:8189"),
        ({"id": 1, "host": "10.0.0.5", "port": "8190", "enabled": True}, "http://10.0.0.5:8190"),
        ({"id": 1, "host": None, "port": 8190, "enabled": True}, "http://127.0.0.1:8190"),
        ({"id": 1, "type": "cloud", "host": "gpu.example", "port": None, "enabled": True}, "https://gpu.example"),
        ({"id": 1, "host": "a-8188.proxy.runpod.net", "port": 443}, "https://a-8188.proxy.runpod.net"),
        ({"id": 1, "type": "remote", "host": "10.0.0.5:9000", "port": 1, "enabled": True}, "http://10.0.0.5:9000"),
    ],
)
async def test_where_an_older_worker_is(
    instance: Instance, client: TestClient[Any, Any], worker: dict[str, Any], address: str
) -> None:
    await post(client, "", {"workers": [worker]})
    entry = instance.registry.entries()[0]
    assert (entry.address, entry.id) == (address, str(worker["id"]))
    assert entry.name == worker.get("name", "Worker 1")


async def test_sections_are_replaced_and_flat_settings_are_merged(
    instance: Instance, client: TestClient[Any, Any]
) -> None:
    instance.registry.patch_settings({"max_attempts": 7, "debug": True, "auto_launch_workers": True})
    tunnel = {"status": "running", "public_url": "https://x.trycloudflare.com", "pid": 5, "previous_master_host": "h"}
    body = {
        "master": {"host": "10.0.0.1:8188", "name": "Desk", "cuda_device": 0, "note": "kept"},
        "settings": {"master_delegate_only": True, "worker_probe_concurrency": 3, "odd": [1]},
        "worker_timeout_seconds": 90,
        "tunnel": tunnel,
        "managed_processes": {"w1": {"pid": 7, "started_at": 1.5, "config": {"secret": SECRET}, "launching": True}},
    }
    config = (await post(client, "", body))["config"]
    assert config["master"] == {"host": "10.0.0.1:8188", "name": "Desk", "cuda_device": 0}
    assert config["settings"] == {
        **DEFAULTS["settings"],  # type: ignore[dict-item]
        "master_delegate_only": True,
        "worker_timeout_seconds": 90,
        "worker_probe_concurrency": 3,
    }
    assert config["tunnel"] == {**tunnel, "log_file": ""}
    assert config["managed_processes"] == {"w1": {"pid": 7, "started_at": 1.5, "launching": True}}
    data = instance.registry.data()
    assert (data.settings.max_attempts, data.settings.master_name, data.master["note"]) == (7, "Desk", "kept")
    assert data.settings.model_dump()["odd"] == [1]
    config = (await post(client, "", {"master": {}}))["config"]
    assert config["master"] == {"host": "", "name": "Desk"}
    assert (await post(client, "", {"debug": True}))["config"]["settings"]["master_delegate_only"] is True


async def test_replacing_workers_keeps_what_older_clients_do_not_know(
    instance: Instance, client: TestClient[Any, Any]
) -> None:
    instance.add_worker("w1", 8189, tags=["fast"], precision="half")
    worker = (await get_config(client))["workers"][0]
    assert worker == {"id": "w1", "name": "W1", "type": "remote", "host": "127.0.0.1", "port": 8189, "enabled": True}
    await post(client, "", {"workers": [{**worker, "name": "New", "mine": {"a": 1}}]})
    entry = instance.registry.get("w1").to_json()
    assert (entry["name"], entry["tags"], entry["precision"], entry["mine"]) == ("New", ["fast"], "half", {"a": 1})
    assert entry["address"] == "http://127.0.0.1:8189"


async def test_an_imported_configuration_survives_being_read_and_written(
    instance: Instance, client: TestClient[Any, Any]
) -> None:
    workers = [
        {"id": 1, "name": "A", "host": "bad host!", "port": 8188, "enabled": False},
        {"id": 2, "name": "B", "host": "10.0.0.5", "listen_port": 8190, "enabled": True},
        {"id": 3, "name": "Twin of B", "host": "10.0.0.5", "port": 8190, "enabled": False},
        {"id": 4, "name": "Placeholder", "type": "remote", "host": "", "port": 8191, "enabled": False},
    ]
    data, _ = import_gpu_config({"workers": workers, "settings": {"debug": True}})
    instance.registry.change(lambda old: data.to_json())
    before = instance.registry.entries()
    config = await get_config(client)
    assert [worker["id"] for worker in config["workers"]] == ["1", "2", "3", "4"]
    await post(client, "", {"workers": config["workers"], "settings": config["settings"], "master": config["master"]})
    assert instance.registry.entries() == before
    assert await get_config(client) == config


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ({"colour": 1}, "colour"),
        ({"workers": {}}, "workers"),
        ({"workers": None}, "workers"),
        ({"workers": [7]}, "workers[0]"),
        ({"workers": [{"name": "N"}]}, "id"),
        ({"workers": [OLDER, {**OLDER, "port": 8190}]}, "w1"),
        ({"workers": [OLDER, {**OLDER, "id": "w2"}]}, "address"),
        ({"workers": [{**OLDER, "host": "user:hunter2@10.0.0.5"}]}, "password"),
        ({"workers": [{**OLDER, "host": "http://user:hunter2@10.0.0.5"}]}, "password"),
        ({"workers": [{**OLDER, "type": "remote", "host": ""}]}, "address"),
        ({"workers": [{**OLDER, "id": "master"}]}, "master"),
        ({"master": []}, "master"),
        ({"master": {"host": 1}}, "host"),
        ({"master": {"host": "http://user:hunter2@h"}}, "password"),
        ({"master": {"name": 1}}, "name"),
        ({"master": {"port": "x"}}, "port"),
        ({"settings": "x"}, "settings"),
        ({"settings": {"debug": 1}}, "debug"),
        ({"settings": {"worker_probe_concurrency": "8"}}, "worker_probe_concurrency"),
        ({"tunnel": 1}, "tunnel"),
        ({"managed_processes": []}, "managed_processes"),
        ({"worker_timeout_seconds": True}, "worker_timeout_seconds"),
        ({"worker_timeout_seconds": 0}, "worker_timeout_seconds"),
        ({"worker_timeout_seconds": "60"}, "worker_timeout_seconds"),
        ({"worker_timeout_seconds": None}, "worker_timeout_seconds"),
        ({"debug": "true"}, "debug"),
        ({"auto_launch_workers": 1}, "auto_launch_workers"),
        ({"stop_workers_on_master_exit": None}, "stop_workers_on_master_exit"),
        ({"master_delegate_only": 0}, "master_delegate_only"),
        ({"websocket_orchestration": []}, "websocket_orchestration"),
        ({"has_auto_populated_workers": {}}, "has_auto_populated_workers"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
async def test_a_bad_configuration_is_refused_as_a_whole(
    instance: Instance, client: TestClient[Any, Any], body: dict[str, Any], cause: str
) -> None:
    before = instance.registry.data()
    answer = await post(client, "", {"websocket_orchestration": False, **body}, 400)
    assert cause in answer["message"]
    assert instance.registry.data() == before


async def test_all_faults_are_told_at_once(client: TestClient[Any, Any]) -> None:
    body = {"workers": [{**OLDER, "port": 0}, 5], "debug": 1, "master": {"host": 1}}
    texts = (await post(client, "", body, 400))["error"]
    assert len(texts) == 4
    answer = await post(client, "", {"a": 1, "b": 2, "tunnel": 3}, 400)
    assert len(answer["error"]) == 3


# Bodies


@pytest.mark.parametrize("name", ["", "/update_worker", "/delete_worker", "/update_setting", "/update_master"])
async def test_bodies_that_are_refused_on_every_route(
    instance: Instance, client: TestClient[Any, Any], name: str
) -> None:
    before = instance.registry.data()
    as_json = {"Content-Type": "application/json"}
    cases: list[tuple[bytes, dict[str, str], int]] = [
        (b"{", as_json, 400),
        (b"[]", as_json, 400),
        (b'{"debug": true}', {"Content-Type": "text/plain"}, 400),
        (b'{"debug": true}', {**as_json, "Sec-Fetch-Site": "cross-site"}, 403),
        (b'{"debug": "' + b"x" * TEN_MEGABYTES + b'"}', as_json, 413),
    ]
    for body, headers, status in cases:
        response = await client.post(CONFIG + name, data=body, headers=headers)
        assert response.status == status
        assert set(await response.json()) == {"error"}
    assert instance.registry.data() == before


async def test_what_older_readers_do_not_know_is_never_sent(instance: Instance, client: TestClient[Any, Any]) -> None:
    instance.add_worker("w1", 8189, token=SECRET, name="W1")
    section = {"token": SECRET, "host": {"token": SECRET}, "status": [SECRET]}
    instance.registry.change(lambda old: {"master": section, "tunnel": section, "token": SECRET})
    instance.registry.patch_settings({"token": SECRET, "worker_probe_concurrency": [SECRET]})
    instance.registry.replace_section("managed_processes", {"w1": {"token": SECRET, "pid": [SECRET]}, "w2": SECRET})
    response = await client.get(CONFIG)
    assert response.status == 200
    assert SECRET not in await response.text()


async def test_a_password_in_an_old_host_is_never_sent(instance: Instance, client: TestClient[Any, Any]) -> None:
    worker = {"id": "1", "name": "A", "host": "user:hunter2@10.0.0.5", "port": 8188, "enabled": False}
    data, _ = import_gpu_config({"workers": [worker], "master": {"host": "http://user:hunter2@10.0.0.1"}})
    instance.registry.change(lambda old: data.to_json())
    config = await get_config(client)
    assert "hunter2" not in json.dumps(config)
    assert (config["master"]["host"], config["workers"][0]["port"]) == ("", 8188)
