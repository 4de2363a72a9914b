"""The older configuration: everything usable is taken over, everything else is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flotilla.utils.errors import InvalidInput
from flotilla.workers.entries import WorkerEntry
from flotilla.workers.importer import import_gpu_config, older_address, older_port
from flotilla.workers.registry import WorkerRegistry


def one(**worker: Any) -> tuple[WorkerEntry, list[str]]:
    data, remarks = import_gpu_config({"workers": [{"id": "w", "name": "W", "enabled": True, **worker}]})
    return data.workers[0], remarks


@pytest.mark.parametrize(
    ("worker", "kind", "address"),
    [
        ({"port": 8189}, "local", "http://127.0.0.1:8189"),
        ({"port": 8189, "host": None}, "local", "http://127.0.0.1:8189"),
        ({"port": 8189, "host": ""}, "local", "http://127.0.0.1:8189"),
        ({"port": 8189, "host": "localhost"}, "local", "http://localhost:8189"),
        ({"port": 8189, "host": "0.0.0.0"}, "local", "http://127.0.0.1:8189"),
        ({"port": 8189, "host": "::1"}, "local", "http://[::1]:8189"),
        ({"port": 8189, "host": "10.0.0.5"}, "remote", "http://10.0.0.5:8189"),
        ({"port": 8189, "host": "gpu.lan", "type": "local"}, "local", "http://gpu.lan:8189"),
        ({"port": 8189, "host": "gpu.lan:9000"}, "remote", "http://gpu.lan:9000"),
        ({"port": 8189, "host": "localhost:9000"}, "local", "http://localhost:9000"),
        ({"port": 443, "host": "gpu.lan"}, "remote", "https://gpu.lan"),
        ({"port": 8189, "host": "x.proxy.runpod.net"}, "remote", "https://x.proxy.runpod.net:8189"),
        ({"port": 443, "host": "x.trycloudflare.com", "type": "cloud"}, "cloud", "https://x.trycloudflare.com"),
        ({"port": 8188, "host": "my.cloud", "type": "cloud"}, "cloud", "https://my.cloud:8188"),
        ({"host": "my.cloud", "type": "cloud"}, "cloud", "https://my.cloud"),
        ({"port": 8189, "host": "http://gpu.lan:7000"}, "remote", "http://gpu.lan:7000"),
        ({"port": 8189, "host": "https://gpu.lan/comfy/"}, "remote", "https://gpu.lan/comfy"),
        ({"port": "8190"}, "local", "http://127.0.0.1:8190"),
        ({"port": "many"}, "local", "http://127.0.0.1:8188"),
        ({"port": True}, "local", "http://127.0.0.1:8188"),
        ({"port": 70000}, "local", "http://127.0.0.1:8188"),
        ({}, "local", "http://127.0.0.1:8188"),
        ({"listen_port": 8191}, "local", "http://127.0.0.1:8191"),
        ({"port": 8189, "type": "nonsense", "host": "10.0.0.5"}, "remote", "http://10.0.0.5:8189"),
        ({"port": 8189, "type": "remote", "host": ""}, "remote", "http://127.0.0.1:8189"),
    ],
)
def test_kind_and_address(worker: dict[str, Any], kind: str, address: str) -> None:
    entry, remarks = one(**worker)
    assert (entry.kind, entry.address, entry.enabled) == (kind, address, True)
    assert remarks == []


def test_a_placeholder_stays_disabled() -> None:
    entry, remarks = one(type="remote", host="", port=8188, enabled=False)
    assert (entry.address, entry.enabled) == ("", False)
    assert "placeholder" in remarks[0]


def test_an_unusable_host_disables_the_worker_and_is_said() -> None:
    entry, remarks = one(type="remote", host="http://u:secret@gpu", port=8188)
    assert (entry.address, entry.enabled) == ("", False)
    assert "user name" in remarks[0]
    assert "secret" not in remarks[0]


def test_ids_become_text_and_order_is_kept() -> None:
    workers: list[Any] = [
        {"id": number, "name": f"W{number}", "port": 8189 + at, "enabled": True}
        for at, number in enumerate([7, "b", 3])
    ]
    workers += [{"id": "7", "port": 9000, "enabled": True}, "rubbish", {"port": 9001, "enabled": True}]
    data, remarks = import_gpu_config({"workers": workers})
    assert [entry.id for entry in data.workers[:4]] == ["7", "b", "3", "7-2"]
    assert data.workers[3].name == "Worker 4"
    assert len(data.workers) == 5
    assert data.workers[4].id
    assert len(remarks) == 3


def test_two_workers_at_one_address_keep_the_first() -> None:
    data, remarks = import_gpu_config(
        {"workers": [{"id": worker_id, "port": 8189, "enabled": True} for worker_id in ("a", "b")]}
    )
    assert [entry.enabled for entry in data.workers] == [True, False]
    assert "same address" in remarks[0]


def test_fields_are_kept() -> None:
    entry, _ = one(port="8189", host="localhost", cuda_device=1, extra_args="--lowvram", colour="red", tags="odd")
    stored = entry.to_json()
    assert (stored["cuda_device"], stored["extra_args"], stored["colour"]) == (1, "--lowvram", "red")
    assert (stored["host"], stored["port"]) == ("localhost", 8189)
    assert "type" not in stored
    assert entry.tags == []


def test_settings_and_sections() -> None:
    data, remarks = import_gpu_config(
        {
            "master": {"name": "Big", "host": "old.trycloudflare.com", "cuda_device": 0},
            "settings": {
                "debug": True,
                "worker_timeout_seconds": "90",
                "master_delegate_only": True,
                "worker_probe_concurrency": 4,
                "has_auto_populated_workers": None,
            },
            "tunnel": {"pid": 5},
            "managed_processes": {"a": {"pid": 6}},
        }
    )
    assert data.settings.debug
    assert data.settings.master_delegate_only
    assert data.settings.worker_timeout_seconds == 60
    assert data.settings.master_name == "Big"
    assert data.settings.model_dump()["worker_probe_concurrency"] == 4
    assert data.master["cuda_device"] == 0
    assert data.tunnel == {}
    assert data.managed_processes == {}
    assert len(remarks) == 2


@pytest.mark.parametrize("odd", [{}, {"workers": None}, {"workers": {}}, {"settings": []}, {"master": 3}])
def test_odd_files_give_defaults(odd: dict[str, Any]) -> None:
    data, _ = import_gpu_config(odd)
    assert data.workers == []


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidInput):
        import_gpu_config([])  # type: ignore[arg-type]


def test_ports_and_addresses_for_the_old_routes() -> None:
    assert [older_port(port) for port in (1, "443", " 8189 ", 0, -1, None, 1.5, "٣", [])] == [
        1, 443, 8189, 8188, 8188, 8188, 8188, 8188, 8188,
    ]  # fmt: skip
    with pytest.raises(InvalidInput):
        older_address("bad host", 8188, "remote")


def test_the_first_start_imports_once(tmp_path: Path) -> None:
    old, new = tmp_path / "gpu_config.json", tmp_path / "user" / "workers.json"
    old.write_text(
        json.dumps({"workers": [{"id": 1, "name": "A", "port": 8189, "enabled": True}], "settings": {"debug": 1}})
    )
    first = WorkerRegistry(new, import_from=old)
    assert first.get("1").address == "http://127.0.0.1:8189"
    assert len(first.import_remarks) == 1
    first.remove("1")
    again = WorkerRegistry(new, import_from=old)
    assert again.entries() == []
    assert again.import_remarks == []


def test_a_damaged_old_file_is_left_alone_and_said(tmp_path: Path) -> None:
    old = tmp_path / "gpu_config.json"
    old.write_text("{")
    registry = WorkerRegistry(tmp_path / "workers.json", import_from=old)
    assert registry.entries() == []
    assert "could not be imported" in registry.import_remarks[0]
    assert old.read_text() == "{"
