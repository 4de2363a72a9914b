"""The pool of connections, over fake links and a clock that the test owns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes.link import settle
from fakes.world import World, entry
from flotilla.utils.errors import LinkLost, LinkRefused
from flotilla.workers.connection import WorkerHealth
from flotilla.workers.messages import AskCapabilities, Bye
from flotilla.workers.registry import WorkerRegistry


@pytest.fixture
async def world() -> AsyncIterator[World]:
    yield World()
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}, "a task survived"


@pytest.fixture
def registry(tmp_path: Path) -> WorkerRegistry:
    registry = WorkerRegistry(tmp_path / "workers.json")
    registry.replace_all([entry("a", 1), entry("b", 2), entry("c", 3, enabled=False)])
    return registry


async def test_the_pool_links_what_is_enabled(world: World, registry: WorkerRegistry) -> None:
    pool = world.pool(registry)
    assert {worker_id: health.state for worker_id, health in pool.health().items()} == {
        "a": "connecting", "b": "connecting", "c": "disabled",
    }  # fmt: skip
    pool.start()
    pool.start()
    await settle()
    assert [health.state for health in pool.health().values()] == ["online", "online", "disabled"]
    assert list(pool.health()) == ["a", "b", "c"]
    await pool.send("a", AskCapabilities())
    assert await world.dialler.workers["a"][0].receive() == AskCapabilities()
    assert pool.link("b") is not None
    assert pool.link("c") is None
    for worker_id in ("c", "nobody"):
        with pytest.raises(LinkLost):
            await pool.send(worker_id, AskCapabilities())
    await pool.stop()
    await pool.stop()
    assert world.dialler.closed >= 1


async def test_only_what_changed_is_touched(world: World, registry: WorkerRegistry) -> None:
    pool = world.pool(registry)
    pool.start()
    await settle()
    registry.patch("a", {"name": "other name", "precision": "half", "tags": ["x"]})
    await settle()
    assert world.dialler.dialled == ["a", "b"]
    registry.patch("a", {"address": "127.0.0.1:99"})
    await settle()
    assert world.dialler.dialled == ["a", "b", "a"]
    assert [state for worker_id, state, _ in world.states if worker_id == "a"] == ["online", "connecting", "online"]
    assert isinstance(await world.dialler.workers["a"][0].receive(), Bye)
    registry.patch("b", {"enabled": False})
    await settle()
    assert ("b", "disabled", "") in world.states
    assert isinstance(await world.dialler.workers["b"][0].receive(), Bye)
    registry.patch("c", {"enabled": True})
    registry.add(entry("d", 4))
    registry.remove("a")
    await settle()
    assert [(worker_id, health.state) for worker_id, health in pool.health().items()] == [
        ("b", "disabled"), ("c", "online"), ("d", "online"),
    ]  # fmt: skip
    await pool.stop()
    registry.patch("b", {"enabled": True})
    await settle()
    assert "b" not in world.dialler.dialled[3:]


async def test_a_listener_that_fails_stops_nothing(world: World, registry: WorkerRegistry) -> None:
    def broken(worker_id: str, health: WorkerHealth) -> None:
        raise RuntimeError("a listener's own problem")

    world.on_state = broken  # type: ignore[method-assign]
    pool = world.pool(registry)
    pool.start()
    await settle()
    registry.change(lambda old: {"workers": [entry("b", 9).to_json(), entry("e", 5).to_json()]})
    await settle()
    assert [(worker_id, health.state) for worker_id, health in pool.health().items()] == [
        ("b", "online"),
        ("e", "online"),
    ]
    await pool.stop()


async def test_a_change_from_another_thread_arrives(world: World, registry: WorkerRegistry) -> None:
    pool = world.pool(registry)
    pool.start()
    await settle()
    asyncio.get_running_loop().set_debug(True)  # objects to being called from a foreign thread
    await asyncio.to_thread(registry.remove, "a")
    await settle()
    assert list(pool.health()) == ["b", "c"]
    assert pool.link("a") is None
    await pool.stop()


async def test_one_server_under_two_entries_is_linked_once(world: World, registry: WorkerRegistry) -> None:
    world.dialler.instance_of = {"a": "same", "b": "same"}
    pool = world.pool(registry)
    pool.start()
    await settle()
    states = {worker_id: (health.state, health.reason) for worker_id, health in pool.health().items()}
    assert sorted(states.values()) == [("disabled", ""), ("online", ""), ("refused", "twice")]
    await pool.stop()


async def test_a_kick_reaches_one_or_all(world: World, registry: WorkerRegistry) -> None:
    for worker_id in ("a", "b"):
        world.dialler.then(worker_id, *(LinkRefused("wrong_key", "different") for _ in range(2)))
    pool = world.pool(registry)
    pool.start()
    await settle()
    pool.kick("a")
    await settle()
    assert world.dialler.dialled == ["a", "b", "a"]
    pool.kick()
    await settle()
    assert sorted(world.dialler.dialled) == ["a", "a", "a", "b", "b"]
    await pool.stop()


async def test_a_stop_before_a_start_is_fine(world: World, registry: WorkerRegistry) -> None:
    pool = world.pool(registry)
    await pool.stop()
    pool.start()
    await settle()
    assert pool.health()["a"].state == "online"
    await pool.stop()
