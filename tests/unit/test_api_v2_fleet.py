"""Workers, settings and system of ``/distributed/v2`` on a real server, with a real registry behind them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from fakes.api import SECRET, Instance
from flotilla.api import http, v2_fleet, wire
from flotilla.transport.samehost import write_nonce
from flotilla.workers import messages as m
from flotilla.workers.connection import WorkerHealth
from flotilla.workers.handshake import PeerInfo
from flotilla.workers.key import FleetKey

V2 = "/distributed/v2"
WORKERS = f"{V2}/workers"
SETTINGS = f"{V2}/settings"
TEN_MEGABYTES = 10 * 1024 * 1024
PATCHES = 50
CREDENTIALS = "http://user:hunter2@10.0.0.5:8188"


@pytest.fixture
async def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Instance]:
    monkeypatch.setattr(v2_fleet, "host_facts", lambda: {"host_version": "0.30.0", "device": "cpu"})
    made = Instance(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def client(instance: Instance, aiohttp_client: Any) -> TestClient[Any, Any]:
    made: TestClient[Any, Any] = await aiohttp_client(instance.app(FleetKey(SECRET.encode())))
    return made


async def call(client: TestClient[Any, Any], method: str, path: str, status: int = 200, **kwargs: Any) -> Any:
    response = await client.request(method, path, **kwargs)
    body = await response.text()
    assert response.status == status, body
    assert response.content_type == "application/json"
    assert SECRET not in body
    value = json.loads(body)
    if status >= 400:
        assert set(value) == {"error"}
        assert set(value["error"]) == {"code", "message", "cure", "details"}
        assert value["error"]["code"] and value["error"]["message"]
    return value


# Workers


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
    peer = PeerInfo("id", "name", "0.9.0", 1, True)
    instance.pool.healths["w1"] = WorkerHealth("online", since_s=instance.clock.now_s(), rtt_ms=1.5, peer=peer)
    instance.pool.healths["w2"] = WorkerHealth("refused", "wrong_key", "It has another key.", "Copy fleet.key.")
    await instance.coordinator.on_message("w1", m.Status(running=1, pending=4, ours=2))
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


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"null", "object"),
        (b"[]", "object"),
        (b'"text"', "object"),
        (b'{"name": NaN}', "NaN"),
        (b'{"name": Infinity}', "Infinity"),
        (b'{"n": ' + b"9" * 5_000 + b"}", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", ""),
        (b'{"x": ' + b"[" * 150 + b"]" * 150 + b"}", "levels"),
        (b'{"x": {"y": ["\\udc00"]}}', "character"),
    ],
    ids=lambda value: repr(value[:20]),
)
async def test_a_body_that_is_no_json_object(
    instance: Instance, client: TestClient[Any, Any], body: bytes, cause: str
) -> None:
    instance.add_worker("w1", 8189)
    headers = {"Content-Type": "application/json"}
    for method, path in (("POST", WORKERS), ("PATCH", f"{WORKERS}/w1"), ("PATCH", SETTINGS)):
        error = await call(client, method, path, 400, data=body, headers=headers)
        assert error["error"]["code"] == "invalid_input"
        assert cause in error["error"]["message"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_content_type_that_a_foreign_page_could_send(client: TestClient[Any, Any], content_type: str) -> None:
    body = json.dumps({"address": "http://10.0.0.5"})
    error = await call(client, "POST", WORKERS, 400, data=body, headers={"Content-Type": content_type})
    assert content_type in error["error"]["message"]


async def test_pages_of_other_sites_change_nothing(instance: Instance, client: TestClient[Any, Any]) -> None:
    instance.add_worker("w1", 8189)
    before = instance.registry.data()
    headers = {"Sec-Fetch-Site": "cross-site"}
    for method, path, body in (
        ("POST", WORKERS, {"address": "http://10.0.0.5"}),
        ("PATCH", f"{WORKERS}/w1", {"enabled": False}),
        ("DELETE", f"{WORKERS}/w1", None),
        ("POST", f"{WORKERS}/w1/connect", {}),
        ("PATCH", SETTINGS, {"debug": True}),
    ):
        error = await call(client, method, path, 403, json=body, headers=headers)
        assert error["error"]["code"] == "not_allowed"
    assert instance.registry.data() == before


async def test_ten_megabytes_are_too_much(instance: Instance, client: TestClient[Any, Any]) -> None:
    body = json.dumps({"address": "http://10.0.0.5", "name": "n" * TEN_MEGABYTES})
    headers = {"Content-Type": "application/json"}
    for method, path in (("POST", WORKERS), ("PATCH", SETTINGS)):
        error = await call(client, method, path, 413, data=body, headers=headers)
        assert error["error"]["code"] == "too_large"
    assert instance.registry.entries() == []


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


# Settings


async def test_settings_are_shown_and_changed(instance: Instance, client: TestClient[Any, Any]) -> None:
    settings = await call(client, "GET", SETTINGS)
    assert settings["worker_timeout_seconds"] == 60
    assert settings["master_name"] == "Master"
    changed = await call(client, "PATCH", SETTINGS, json={"master_name": "Desk", "max_attempts": 5})
    assert changed == {**settings, "master_name": "Desk", "max_attempts": 5}
    assert await call(client, "GET", SETTINGS) == changed


async def test_unknown_settings_in_the_file_are_kept_but_not_sent(
    instance: Instance, client: TestClient[Any, Any]
) -> None:
    instance.registry.patch_settings({"api_token": SECRET})
    assert "api_token" not in await call(client, "GET", SETTINGS)
    assert "api_token" not in await call(client, "PATCH", SETTINGS, json={"debug": True})
    assert instance.registry.settings().model_dump()["api_token"] == SECRET


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("debug", 1),
        ("debug", "true"),
        ("debug", None),
        ("auto_launch_workers", 0),
        ("stop_workers_on_master_exit", "no"),
        ("master_delegate_only", []),
        ("websocket_orchestration", {}),
        ("has_auto_populated_workers", 1.0),
        ("master_name", 7),
        ("worker_timeout_seconds", True),
        ("worker_timeout_seconds", 0),
        ("worker_timeout_seconds", 1.5),
        ("worker_timeout_seconds", "60"),
        ("worker_timeout_seconds", 10**30),
        ("max_attempts", 0),
        ("queue_ahead", -1),
        ("worker_slots", 65),
        ("no_such_setting", 1),
    ],
)
async def test_a_wrong_setting_is_named(
    instance: Instance, client: TestClient[Any, Any], field: str, value: Any
) -> None:
    error = await call(client, "PATCH", SETTINGS, 400, json={field: value, "queue_ahead": 9} | {field: value})
    assert field in error["error"]["message"]
    assert error["error"]["details"]["faults"][0]["field"] == field
    assert instance.registry.settings().queue_ahead == 2


# The instance


async def test_the_system(instance: Instance, client: TestClient[Any, Any]) -> None:
    system = await call(client, "GET", f"{V2}/system")
    assert system == {
        "version": v2_fleet.VERSION,
        "host_version": "0.30.0",
        "instance_id": "instance-1",
        "name": "desk",
        "key_fingerprint": FleetKey(SECRET.encode()).fingerprint,
        "device": "cpu",
        "spool": {
            "blobs": 0,
            "memory_bytes": 0,
            "memory_cap_bytes": 0,
            "recycled_bytes": 0,
            "disk_bytes": 0,
            "disk_cap_bytes": 1_000,
        },
    }


async def test_the_system_without_a_key(instance: Instance, aiohttp_client: Any) -> None:
    client = await aiohttp_client(instance.app(None))
    system = wire.SystemOut.model_validate(await call(client, "GET", f"{V2}/system"))
    assert system.key_fingerprint is None


async def test_the_document_is_served(client: TestClient[Any, Any]) -> None:
    document = await call(client, "GET", f"{V2}/openapi.json")
    assert document["openapi"] == "3.1.0"
    assert WORKERS in document["paths"]


async def test_unknown_routes_and_methods_have_the_one_shape(client: TestClient[Any, Any]) -> None:
    for prefix in ("", "/api"):
        await call(client, "GET", f"{prefix}{V2}/nonsense", 404)
        await call(client, "POST", f"{prefix}{V2}/", 404, json={})
        error = await call(client, "PUT", f"{prefix}{WORKERS}/w1", 405, json={})
        assert error["error"]["details"] == {"allowed": ["DELETE", "GET", "PATCH"]}
    response = await client.post(f"{V2}/system", json={})
    assert (response.status, response.headers["Allow"]) == (405, "GET")
    assert (await client.head(WORKERS)).status == 200


async def test_a_body_that_never_ends_is_not_awaited_for_ever(
    client: TestClient[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BODY_TIMEOUT_S", 0.01)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    head = f"POST {WORKERS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{{"
    writer.write(head.encode())
    assert await reader.readuntil(b"\r\n") == b"HTTP/1.1 400 Bad Request\r\n"
    writer.close()
