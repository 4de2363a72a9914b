"""Workers of ``/distributed/v2`` on a real server, with a real registry behind them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from fakes.api import SECRET, Instance
from fakes.v2 import SETTINGS, WORKERS, call
from flotilla.transport.samehost import write_nonce
from flotilla.workers import messages as m
from flotilla.workers.connection import WorkerHealth
from flotilla.workers.handshake import PeerInfo
from flotilla.workers.key import FleetKey

PATCHES = 50
CREDENTIALS = "http://user:hunter2@10.0.0.5:8188"


@pytest.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    made = Instance(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def client(instance: Instance, aiohttp_client: Any) -> TestClient[Any, Any]:
    made: TestClient[Any, Any] = await aiohttp_client(instance.app(FleetKey(SECRET.encode())))
    return made


async def test_a_worker_is_added_with_little(instance: Instance, client: TestClient[Any, Any]) -> None:
    worker = await call(client, "POST", WORKERS, 201, json={"address": "http://10.0.0.5:8188"})
    assert worker == {
        "id": worker["id"],
        "name": "http://10.0.0.5:8188",
        "address": "http://10.0.0.5:8188",
        "enabled": True,
        "kind": "remote",
        "tags": [],
        "precision": "exact",
        "state": "online",
        "reason": "",
        "message": "",
        "cure": "",
        "since_s": None,
        "rtt_ms": None,
        "version": None,
        "same_host": False,
        "queue": None,
    }
    assert await call(client, "GET", f"{WORKERS}/{worker['id']}") == worker
    assert await call(client, "GET", WORKERS) == {"workers": [worker]}
    assert [entry.id for entry in instance.registry.entries()] == [worker["id"]]


@pytest.mark.parametrize(
    ("address", "kind", "stored"),
    [
        ("127.0.0.1:8189", "local", "http://127.0.0.1:8189"),
        ("localhost", "local", "http://localhost:8188"),
        ("abc-8188.proxy.runpod.net", "cloud", "https://abc-8188.proxy.runpod.net"),
        ("gpu.lan:9000", "remote", "http://gpu.lan:9000"),
    ],
)
async def test_the_kind_follows_from_the_address(
    client: TestClient[Any, Any], address: str, kind: str, stored: str
) -> None:
    worker = await call(client, "POST", WORKERS, 201, json={"address": address})
    assert (worker["kind"], worker["address"]) == (kind, stored)


async def test_a_worker_is_added_with_everything(instance: Instance, client: TestClient[Any, Any]) -> None:
    given = {"id": "g", "name": "G", "address": "http://10.0.0.5", "enabled": False, "kind": "cloud", "tags": ["fast"]}
    given |= {"precision": "half", "cuda_device": 1, "extra_args": "--lowvram", "note": {"mine": [1, 2]}}
    worker = await call(client, "POST", WORKERS, 201, json=given)
    assert {key: worker[key] for key in worker if key in given} == {
        key: given[key] for key in given if key not in ("cuda_device", "extra_args", "note")
    }
    assert worker["state"] == "disabled"
    entry = instance.registry.get("g").to_json()
    assert {key: entry[key] for key in given} == given


async def test_health_is_shown(instance: Instance, client: TestClient[Any, Any], tmp_path: Path) -> None:
    instance.add_worker("w1", 8189)
    instance.add_worker("w2", 8190)
    peer = PeerInfo("id", "name", "0.9.0", 2, True, "home")
    instance.pool.healths["w1"] = WorkerHealth("online", since_s=instance.clock.now_s(), rtt_ms=1.5, peer=peer)
    instance.pool.healths["w2"] = WorkerHealth("refused", "wrong_key", "It has another key.", "Copy fleet.key.")
    await instance.coordinator.inbox.on_message("w1", m.Status(running=1, pending=4, ours=2))
    nonce = write_nonce(tmp_path)
    place = m.SpoolPlace(folder=str(tmp_path), nonce_path=nonce.path, digest=nonce.digest)
    await instance.fetcher.note_spool("w1", m.SpoolOffer(places=[place]))
    instance.clock.advance(7.5)
    first, second = (await call(client, "GET", WORKERS))["workers"]
    assert (first["state"], first["since_s"], first["rtt_ms"]) == ("online", 7.5, 1.5)
    assert (first["version"], first["same_host"]) == ("0.9.0", True)
    assert first["queue"] == {"running": 1, "pending": 4, "ours": 2}
    assert (second["state"], second["reason"]) == ("refused", "wrong_key")
    assert (second["message"], second["cure"]) == ("It has another key.", "Copy fleet.key.")
    assert (second["queue"], second["same_host"], second["version"]) == (None, False, None)


async def test_a_patch_changes_what_is_given_and_nothing_else(instance: Instance, client: TestClient[Any, Any]) -> None:
    instance.add_worker("w1", 8189, tags=["a"], note="kept")
    worker = await call(client, "PATCH", f"{WORKERS}/w1", json={"name": "New", "colour": "red"})
    assert (worker["name"], worker["tags"], worker["enabled"]) == ("New", ["a"], True)
    stored = instance.registry.get("w1").to_json()
    assert (stored["note"], stored["colour"], stored["address"]) == ("kept", "red", "http://127.0.0.1:8189")
    worker = await call(client, "PATCH", f"{WORKERS}/w1", json={"enabled": False})
    assert (worker["state"], worker["name"]) == ("disabled", "New")
    assert await call(client, "PATCH", f"{WORKERS}/w1", json={}) == worker


async def test_a_worker_is_removed_with_and_without_a_body(instance: Instance, client: TestClient[Any, Any]) -> None:
    instance.add_worker("w1", 8189)
    instance.add_worker("w2", 8190)
    assert await call(client, "DELETE", f"{WORKERS}/w1") == {"removed": "w1"}
    assert await call(client, "DELETE", f"{WORKERS}/w2", json={}) == {"removed": "w2"}
    assert instance.registry.entries() == []
    await call(client, "DELETE", f"{WORKERS}/w1", 404)


async def test_connect_tries_at_once(instance: Instance, client: TestClient[Any, Any]) -> None:
    instance.add_worker("w1", 8189)
    instance.add_worker("w2", 8190, enabled=False)
    worker = await call(client, "POST", f"{WORKERS}/w1/connect", json={})
    assert (worker["id"], instance.pool.kicked) == ("w1", ["w1"])
    await call(client, "POST", f"{WORKERS}/w2/connect", 409, json={})
    await call(client, "POST", f"{WORKERS}/w3/connect", 404, json={})
    assert instance.pool.kicked == ["w1"]


WRONG_FIELDS = [
    ("id", 7),
    ("id", ""),
    ("id", " x"),
    ("id", None),
    ("id", "master"),
    ("name", 1),
    ("name", None),
    ("name", "n" * 201),
    ("address", 5),
    ("address", None),
    ("address", ""),
    ("address", "ftp://10.0.0.5"),
    ("address", "http://"),
    ("address", "http://10.0.0.5:99999"),
    ("address", "http://10.0.0.5/?a=b"),
    ("address", "http://0.0.0.0:8188"),
    ("address", "http://a b"),
    ("address", CREDENTIALS),
    ("enabled", 1),
    ("enabled", "true"),
    ("enabled", None),
    ("kind", "moon"),
    ("kind", 1),
    ("tags", "fast"),
    ("tags", [1]),
    ("tags", [""]),
    ("tags", ["t"] * 101),
    ("precision", "double"),
    ("precision", None),
    ("cuda_device", "0"),
    ("cuda_device", True),
    ("cuda_device", 1.0),
    ("extra_args", ["--lowvram"]),
]


@pytest.mark.parametrize(("field", "value"), WRONG_FIELDS)
async def test_a_wrong_value_is_named_and_nothing_is_stored(
    instance: Instance, client: TestClient[Any, Any], field: str, value: Any
) -> None:
    body = {"id": "new", "name": "New", "address": "http://10.0.0.9", field: value}
    error = await call(client, "POST", WORKERS, 400, json=body)
    assert field in error["error"]["message"]
    assert "hunter2" not in json.dumps(error)
    instance.add_worker("w1", 8189)
    before = instance.registry.data()
    error = await call(client, "PATCH", f"{WORKERS}/w1", 400, json={field: value})
    assert "hunter2" not in json.dumps(error)
    assert instance.registry.data() == before


async def test_twins_are_a_conflict(instance: Instance, client: TestClient[Any, Any]) -> None:
    instance.add_worker("w1", 8189)
    instance.add_worker("w2", 8190)
    await call(client, "POST", WORKERS, 409, json={"id": "w1", "address": "http://10.0.0.5"})
    await call(client, "POST", WORKERS, 409, json={"id": "w3", "address": "http://localhost:8189"})
    await call(client, "PATCH", f"{WORKERS}/w2", 409, json={"address": "http://127.0.0.1:8189"})
    assert [entry.address for entry in instance.registry.entries()] == [
        "http://127.0.0.1:8189",
        "http://127.0.0.1:8190",
    ]


async def test_the_id_of_a_worker_stays(instance: Instance, client: TestClient[Any, Any]) -> None:
    instance.add_worker("w1", 8189)
    await call(client, "PATCH", f"{WORKERS}/w1", 400, json={"id": "w9"})
    assert (await call(client, "PATCH", f"{WORKERS}/w1", json={"id": "w1", "name": "N"}))["name"] == "N"


@pytest.mark.parametrize("worker_id", ["w9", "%20", "..", "a/../b", "x" * 3_000])
async def test_unknown_workers(client: TestClient[Any, Any], worker_id: str) -> None:
    await call(client, "GET", f"{WORKERS}/{worker_id}", 404)
    await call(client, "PATCH", f"{WORKERS}/{worker_id}", 404, json={"name": "N"})
    await call(client, "DELETE", f"{WORKERS}/{worker_id}", 404)


async def test_ids_may_be_odd(instance: Instance, client: TestClient[Any, Any]) -> None:
    worker_id = "größe 1/2 ü%"
    worker = await call(client, "POST", WORKERS, 201, json={"id": worker_id, "address": "http://10.0.0.5"})
    assert worker["id"] == worker_id
    shown = await call(client, "GET", f"{WORKERS}/gr%C3%B6%C3%9Fe%201%2F2%20%C3%BC%25")
    assert shown["id"] == worker_id


async def test_fifty_patches_at_once_all_survive(instance: Instance, client: TestClient[Any, Any]) -> None:
    instance.add_worker("w1", 8189)
    await asyncio.gather(
        *(call(client, "PATCH", f"{WORKERS}/w1", json={f"field_{n}": n}) for n in range(PATCHES)),
        call(client, "PATCH", SETTINGS, json={"queue_ahead": 9}),
    )
    stored = instance.registry.get("w1").to_json()
    assert [stored.get(f"field_{n}") for n in range(PATCHES)] == list(range(PATCHES))
    assert instance.registry.settings().queue_ahead == 9


async def test_fifty_workers_at_once_are_all_added(instance: Instance, client: TestClient[Any, Any]) -> None:
    bodies = [{"id": f"w{n}", "address": f"http://10.0.0.{n + 1}"} for n in range(PATCHES)]
    await asyncio.gather(*(call(client, "POST", WORKERS, 201, json=body) for body in bodies))
    assert {entry.id for entry in instance.registry.entries()} == {body["id"] for body in bodies}
