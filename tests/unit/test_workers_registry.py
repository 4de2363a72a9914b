"""The registry: nothing is lost, nothing half-written, nothing silently overwritten."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from flotilla.utils.errors import Conflict, InvalidInput, NotFound
from flotilla.workers.entries import make_entry
from flotilla.workers.registry import WorkerRegistry


def entry(worker_id: str, port: int = 8189, **more: Any) -> Any:
    return make_entry({"id": worker_id, "name": worker_id, "address": f"127.0.0.1:{port}", **more})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "user" / "workers.json"


@pytest.fixture
def registry(path: Path) -> WorkerRegistry:
    registry = WorkerRegistry(path)
    registry.replace_all([entry("a", 8189), entry("b", 8190), entry("c", 8191)])
    return registry


def ids(registry: WorkerRegistry) -> list[str]:
    return [entry.id for entry in registry.entries()]


def test_a_first_start_has_defaults_and_writes_nothing(path: Path) -> None:
    registry = WorkerRegistry(path)
    assert registry.entries() == []
    settings = registry.settings()
    assert (settings.master_name, settings.max_attempts, settings.queue_ahead) == ("Master", 3, 2)
    assert (settings.worker_slots, settings.worker_timeout_seconds) == (2, 60)
    assert settings.stop_workers_on_master_exit
    assert settings.websocket_orchestration
    assert not settings.master_delegate_only
    assert not path.exists()


def test_what_is_stored_comes_back(path: Path, registry: WorkerRegistry) -> None:
    registry.patch("b", {"tags": ["fast"], "precision": "half", "enabled": False})
    registry.patch_settings({"max_attempts": 5})
    again = WorkerRegistry(path)
    assert again.entries() == registry.entries()
    assert again.get("b").tags == ["fast"]
    assert again.get("b").precision == "half"
    assert again.settings().max_attempts == 5
    assert again.get("a").address == "http://127.0.0.1:8189"


def test_order_is_kept_and_can_be_changed(registry: WorkerRegistry) -> None:
    registry.add(entry("d", 9000))
    registry.remove("b")
    assert ids(registry) == ["a", "c", "d"]
    registry.reorder(["d", "a", "c"])
    assert ids(registry) == ["d", "a", "c"]
    for bad in (["d", "a"], ["d", "a", "c", "c"], ["d", "a", "x"]):
        with pytest.raises(InvalidInput):
            registry.reorder(bad)
    assert ids(registry) == ["d", "a", "c"]


def test_a_patch_changes_only_the_given_fields(path: Path) -> None:
    raw = {
        "version": 1,
        "later": {"x": None},
        "workers": [
            {"id": "a", "name": "A", "address": "127.0.0.1:8189", "tags": ["t"], "colour": "red", "nothing": None,
             "cuda_device": 1, "extra_args": "--lowvram"},
        ],
        "settings": {"worker_probe_concurrency": 8, "debug": True},
        "master": {"host": "10.0.0.1"},
        "tunnel": {"status": "stopped"},
        "managed_processes": {"a": {"pid": 1}},
    }  # fmt: skip
    path.parent.mkdir()
    path.write_text(json.dumps(raw))
    registry = WorkerRegistry(path)
    registry.patch("a", {"name": "B"})
    registry.patch_settings({"debug": False})
    stored = json.loads(path.read_text())
    worker = stored["workers"][0]
    assert worker["name"] == "B"
    assert (worker["tags"], worker["colour"], worker["nothing"]) == (["t"], "red", None)
    assert (worker["cuda_device"], worker["extra_args"]) == (1, "--lowvram")
    assert "host" not in worker
    assert stored["settings"]["worker_probe_concurrency"] == 8
    assert stored["settings"]["debug"] is False
    assert stored["later"] == {"x": None}
    for section in ("master", "tunnel", "managed_processes"):
        assert stored[section] == raw[section]


@pytest.mark.parametrize(
    "fields",
    [
        {"address": "http://u:p@host"},
        {"address": "nope nope"},
        {"address": 7},
        {"enabled": 1},
        {"enabled": None},
        {"kind": "cluster"},
        {"precision": "4bit"},
        {"tags": "fast"},
        {"tags": [1]},
        {"name": None},
        {"cuda_device": True},
        {"id": "z"},
        {"address": ""},
    ],
)
def test_a_bad_patch_is_refused_whole(path: Path, registry: WorkerRegistry, fields: dict[str, Any]) -> None:
    before = (path.read_text(), registry.entries())
    with pytest.raises(InvalidInput) as caught:
        registry.patch("a", {"name": "changed", **fields})
    assert caught.value.message
    assert (path.read_text(), registry.entries()) == before


@pytest.mark.parametrize(
    "fields",
    [
        {"worker_timeout_seconds": True},
        {"worker_timeout_seconds": 0},
        {"worker_timeout_seconds": "60"},
        {"debug": 1},
        {"debug": None},
        {"master_delegate_only": "yes"},
        {"max_attempts": 0},
        {"queue_ahead": -1},
        {"worker_slots": 1.0},
        {"master_name": 5},
    ],
)
def test_settings_are_typed(registry: WorkerRegistry, fields: dict[str, Any]) -> None:
    before = registry.settings()
    with pytest.raises(InvalidInput):
        registry.patch_settings({"auto_launch_workers": True, **fields})
    assert registry.settings() == before


def test_errors_name_the_field_and_not_the_value(registry: WorkerRegistry) -> None:
    with pytest.raises(InvalidInput) as caught:
        registry.patch("a", {"precision": "s3cret"})
    assert caught.value.details["faults"][0]["field"] == "precision"
    assert "s3cret" not in str(caught.value) + str(caught.value.details)


def test_two_equal_workers_are_refused(registry: WorkerRegistry) -> None:
    with pytest.raises(Conflict):
        registry.add(entry("a", 9000))
    with pytest.raises(Conflict):
        registry.add(make_entry({"id": "d", "name": "d", "address": "http://localhost:8189/"}))
    with pytest.raises(Conflict):
        registry.patch("b", {"address": "127.0.0.1:8189"})
    assert ids(registry) == ["a", "b", "c"]


def test_bad_ids_are_refused() -> None:
    for bad in ("", " a", "a\n", 7, None, "x" * 200):
        with pytest.raises(InvalidInput):
            make_entry({"id": bad, "name": "n", "address": "h:1"})


def test_placeholders_without_address_must_be_disabled(registry: WorkerRegistry) -> None:
    for worker_id in ("x", "y"):
        registry.add(make_entry({"id": worker_id, "name": "later", "address": "", "enabled": False}))
    with pytest.raises(InvalidInput):
        registry.patch("x", {"enabled": True})


def test_unknown_ids(registry: WorkerRegistry) -> None:
    for call in (
        lambda: registry.get("x"),
        lambda: registry.patch("x", {"name": "n"}),
        lambda: registry.remove("x"),
    ):
        with pytest.raises(NotFound):
            call()


def test_numbers_as_ids_become_text_once(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({"version": 1, "workers": [{"id": 7, "name": "n", "address": "h:1"}]}))
    registry = WorkerRegistry(path)
    assert ids(registry) == ["7"]
    assert registry.patch("7", {"name": "m"}).name == "m"


def test_several_parts_change_together_or_not_at_all(registry: WorkerRegistry) -> None:
    with pytest.raises(InvalidInput):
        registry.change(lambda old: {"workers": [], "settings": {"debug": "no"}})
    assert ids(registry) == ["a", "b", "c"]
    registry.change(lambda old: {"workers": [], "settings": {"debug": True}, "master": {"host": "x"}})
    assert ids(registry) == []
    assert registry.settings().debug
    registry.replace_section("tunnel", {"status": "running"})
    assert registry.data().tunnel == {"status": "running"}
    with pytest.raises(InvalidInput):
        registry.replace_section("workers", {})


def test_listeners_hear_of_changes_only(registry: WorkerRegistry) -> None:
    heard: list[list[str]] = []

    def broken() -> None:
        raise RuntimeError("a listener's own problem")

    registry.subscribe(broken)
    unsubscribe = registry.subscribe(lambda: heard.append(ids(registry)))
    registry.remove("a")
    registry.patch("b", {"name": registry.get("b").name})
    with pytest.raises(NotFound):
        registry.remove("a")
    assert heard == [["b", "c"]]
    unsubscribe()
    unsubscribe()
    registry.remove("b")
    assert heard == [["b", "c"]]


def test_fifty_patches_at_once_all_survive(path: Path, registry: WorkerRegistry) -> None:
    start = threading.Barrier(50)

    def patch(number: int) -> None:
        start.wait()
        registry.patch("abc"[number % 3], {f"field_{number}": number})

    threads = [threading.Thread(target=patch, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = {worker["id"]: worker for worker in json.loads(path.read_text())["workers"]}
    assert all(stored["abc"[number % 3]][f"field_{number}"] == number for number in range(50))


@pytest.mark.parametrize(
    "damage",
    [
        b"", b"{", b"[]", b"\xff\xfe", b'{"version": 2}', b'{"version": 1, "workers": [{"id": "a"}]}', b"[" * 100_000,
        b'{"version": 1, "settings": {"debug": "yes"}}',
        b'{"workers": [{"id":"a","name":"","address":"h:1"},{"id":"a","name":"","address":"h:2"}]}',
        b'{"workers": [{"id":"a","name":"","address":"http://u:p@h"}]}',
    ],
)  # fmt: skip
def test_a_damaged_file_is_kept_aside(path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.with_name("workers.json.broken-1").write_bytes(b"an earlier one")
    path.write_bytes(damage)
    registry = WorkerRegistry(path)
    assert registry.entries() == []
    assert not path.exists()
    assert path.with_name("workers.json.broken-2").read_bytes() == damage
    assert path.with_name("workers.json.broken-1").read_bytes() == b"an earlier one"
    assert any(record.levelname == "ERROR" for record in caplog.records)
    registry.add(entry("a"))
    assert ids(WorkerRegistry(path)) == ["a"]


def test_a_file_that_cannot_be_read_is_not_overwritten(path: Path) -> None:
    path.mkdir(parents=True)  # a folder in its place fails to open, also for root
    registry = WorkerRegistry(path)
    with pytest.raises(Conflict):
        registry.add(entry("a"))
    assert registry.entries() == []
    assert path.is_dir()


def test_a_failing_write_changes_nothing(path: Path, registry: WorkerRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device")

    before = path.read_text()
    monkeypatch.setattr("flotilla.workers.registry.write_json_atomic", full)
    with pytest.raises(OSError, match="space"):
        registry.patch("a", {"name": "B"})
    monkeypatch.undo()
    assert path.read_text() == before
    assert registry.get("a").name == "a"
    assert registry.patch("a", {"name": "B"}).name == "B"


def test_a_kill_during_a_write_leaves_the_old_file(path: Path, registry: WorkerRegistry) -> None:
    before = path.read_text()
    script = (
        "import os, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from loader import load_package\n"
        "load_package()\n"
        "from pathlib import Path\n"
        "from flotilla.workers.registry import WorkerRegistry\n"
        "os.fsync = lambda fd: os._exit(9)  # dies with the new text written and not yet in place\n"
        f"WorkerRegistry(Path({str(path)!r})).patch('a', {{'name': 'B'}})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert done.returncode == 9
    assert path.read_text() == before
    assert WorkerRegistry(path).get("a").name == "a"
