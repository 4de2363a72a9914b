"""Connections and pools over fake links, with a clock that the test owns, and a record of all they tell."""

from __future__ import annotations

from dataclasses import dataclass, field

from fakes.link import FakeDialler, ManualSleep
from flotilla.utils.clock import ManualClock
from flotilla.workers.connection import WorkerConnection, WorkerHealth
from flotilla.workers.entries import WorkerEntry, make_entry
from flotilla.workers.messages import Message
from flotilla.workers.pool import WorkerPool
from flotilla.workers.registry import WorkerRegistry


def entry(worker_id: str, port: int = 8189, **more: object) -> WorkerEntry:
    return make_entry({"id": worker_id, "name": worker_id, "address": f"127.0.0.1:{port}", **more})


@dataclass
class World:
    """Everything around the connections."""

    clock: ManualClock = field(default_factory=ManualClock)
    messages: list[tuple[str, Message]] = field(default_factory=list)
    states: list[tuple[str, str, str]] = field(default_factory=list)
    explode: bool = False

    def __post_init__(self) -> None:
        self.sleep = ManualSleep(self.clock)
        self.dialler = FakeDialler(self.clock)

    async def on_message(self, worker_id: str, message: Message) -> None:
        if self.explode:
            raise RuntimeError("a handler's own problem")
        self.messages.append((worker_id, message))

    def on_state(self, worker_id: str, health: WorkerHealth) -> None:
        self.states.append((worker_id, health.state, health.reason))

    def connection(self, worker: WorkerEntry) -> WorkerConnection:
        return WorkerConnection(
            worker,
            self.dialler,
            self.on_message,
            self.on_state,
            clock=self.clock,
            sleep=self.sleep,
            random_unit=lambda: 1.0,
        )

    def pool(self, registry: WorkerRegistry) -> WorkerPool:
        return WorkerPool(
            registry,
            self.dialler,
            self.on_message,
            self.on_state,
            clock=self.clock,
            sleep=self.sleep,
            random_unit=lambda: 1.0,
        )
