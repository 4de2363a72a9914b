"""Settings and system of ``/distributed/v2`` on a real server; requests that every changing route refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from fakes.api import SECRET, Instance
from fakes.v2 import SETTINGS, V2, WORKERS, call
from flotilla.api import http, v2_fleet, wire
from flotilla.workers.key import FleetKey

TEN_MEGABYTES = 10 * 1024 * 1024


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


# Every route


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
    await instance.journal.flush()
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
        "journal": {"state": "ok", "message": "", "jobs": 0, "size_bytes": system["journal"]["size_bytes"]},
    }
    assert system["journal"]["size_bytes"] > 0


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
