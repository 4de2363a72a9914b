"""A fleet that tests may break: its workers hang on cables, and every instance may be killed, frozen and restarted."""

from __future__ import annotations

import contextlib
from functools import partial

import pytest

from devtools.fleet import Fleet
from devtools.instances import Instance

from .client import Client
from .fleets import DEFAULT_SETTINGS, KIT_NODES, entry_for, forget_unfinished, spool_is_empty
from .proxy import Cable
from .waiting import eventually

WORKERS = ("w1", "w2", "w3")
SMALL_SPOOL = "w3"
SMALL_SPOOL_BYTES = 16 * 1024 * 1024
"""How much the spool of `SMALL_SPOOL` holds: less than one image of 1,200 pixels squared."""

SETTLE_S = 30.0
"""Longer than the longest pause between two tries of a lost link."""

_shared: FaultyFleet | None = None


class FaultyFleet:
    """A master that fetches all results by HTTP, and three workers, each at the end of a cable.

    Attributes:
        fleet: Its instances.
        master: A client of the master.
        cables: By worker id, the master's only way to that worker.
    """

    def __init__(self) -> None:
        self.fleet = Fleet(
            workers=len(WORKERS),
            extra_nodes=[KIT_NODES],
            master_env={"FLOTILLA_SAME_HOST": "0"},
            worker_env={SMALL_SPOOL: {"FLOTILLA_SPOOL_CAP_BYTES": str(SMALL_SPOOL_BYTES)}},
            register=False,
        )
        self.cables: dict[str, Cable] = {}
        self._open = contextlib.ExitStack()

    def start(self) -> None:
        """Starts it and waits until the workers are online."""
        with contextlib.ExitStack() as undo:
            undo.enter_context(self.fleet)
            self.master = Client(self.fleet.master.url)
            for worker in self.fleet.workers:
                cable = undo.enter_context(Cable(worker.url))
                self.cables[worker.id] = cable
                self.master.post("/distributed/v2/workers", entry_for(worker, address=cable.url))
            self.await_online()
            self._open = undo.pop_all()

    def stop(self) -> None:
        """Ends it."""
        self._open.close()

    @property
    def instances(self) -> list[Instance]:
        """The master and the workers."""
        return [self.fleet.master, *self.fleet.workers]

    def instance(self, name: str) -> Instance:
        """One of them, by id."""
        return next(instance for instance in self.instances if instance.id == name)

    def client(self, name: str) -> Client:
        """A client that reaches an instance directly, past its cable."""
        return Client(self.instance(name).url)

    def await_online(self) -> None:
        """Waits until the master has links to all workers."""
        eventually(lambda: set(self.master.states().values()) == {"online"}, "all workers are online", SETTLE_S)

    def restore(self) -> None:
        """Makes everything whole: cables, processes, links, settings. Nothing is at work and nothing kept afterwards."""
        for cable in self.cables.values():
            cable.mend()
        for instance in self.instances:
            if instance.alive():
                with contextlib.suppress(NotImplementedError):
                    instance.thaw()
            else:
                self.fleet.restart(instance)
        clients = [Client(instance.url) for instance in self.instances]
        for client in clients:
            client.post("/queue", {"clear": True})
            client.post("/interrupt", {})
        self.master.change_settings(**DEFAULT_SETTINGS)
        for name in self.cables:
            if not self.master.worker(name)["enabled"]:
                self.master.change_worker(name, enabled=True)
        self.await_online()
        for client in clients:
            eventually(client.idle, f"{client} is idle after the test")
        forget_unfinished(self.master)
        for client in clients:
            eventually(partial(spool_is_empty, client), f"the spool of {client} is empty after the test", SETTLE_S)


def shared_faulty_fleet(config: pytest.Config) -> FaultyFleet:
    """The one fleet of this kind of this test run, started at the first call and stopped when pytest ends."""
    global _shared
    if _shared is None:
        faulty = FaultyFleet()
        faulty.start()
        config.add_cleanup(faulty.stop)
        _shared = faulty
    return _shared
