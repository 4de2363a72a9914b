"""The fixtures; a suite's conftest.py imports the ones that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from devtools.fleet import Fleet
from devtools.instances import Instance

from .client import Client
from .faulty import FaultyFleet, shared_faulty_fleet
from .fleets import KIT_NODES, entry_for, forget_unfinished, odd_copy, restore, shared_fleet, spool_is_empty
from .waiting import eventually


@pytest.fixture(scope="session")
def fleet(pytestconfig: pytest.Config) -> Fleet:
    """The session's fleet (see `fleets.shared_fleet`)."""
    return shared_fleet(pytestconfig)


@pytest.fixture(scope="session")
def master(fleet: Fleet) -> Client:
    """A client of the master."""
    return Client(fleet.master.url)


@pytest.fixture(scope="session")
def w1(fleet: Fleet) -> Client:
    """A client of the first worker."""
    return Client(fleet.workers[0].url)


@pytest.fixture(scope="session")
def w2(fleet: Fleet) -> Client:
    """A client of the second worker."""
    return Client(fleet.workers[1].url)


@pytest.fixture(scope="session")
def bare_instance(fleet: Fleet) -> Instance:
    """The plain ComfyUI beside the fleet: the single server that everything is compared with."""
    return fleet.extras[0]


@pytest.fixture(scope="session")
def bare(bare_instance: Instance) -> Client:
    """A client of the plain ComfyUI."""
    return Client(bare_instance.url)


@pytest.fixture(scope="session")
def alone_instance(fleet: Fleet) -> Instance:
    """A server with the pack and no workers."""
    return fleet.add_instance("alone", workers=[])


@pytest.fixture(scope="session")
def alone(alone_instance: Instance) -> Client:
    """A client of the server that has no workers."""
    return Client(alone_instance.url)


@pytest.fixture(scope="session")
def second(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    """A second master of the same workers: one that fetches all results by HTTP, from a folder with an odd name."""
    pack = odd_copy(tmp_path_factory.mktemp("odd"))
    return fleet.add_instance(
        "second",
        pack=False,
        extra_nodes=[KIT_NODES, pack],
        env={"FLOTILLA_SAME_HOST": "0"},
        workers=[entry_for(worker) for worker in fleet.workers],
    )


@pytest.fixture
def settled(fleet: Fleet, master: Client, w1: Client, w2: Client) -> Iterator[None]:
    """After the test every instance is idle, no spool holds anything, and the master is configured as at the start."""
    yield
    try:
        for client in (master, w1, w2):
            eventually(client.idle, f"{client} is idle after the test")
        forget_unfinished(master)
        # A worker that was switched off as its job ended keeps its result until it is linked again.
        restore(master, fleet)
        for client in (master, w1, w2):
            eventually(partial(spool_is_empty, client), f"the spool of {client} is empty after the test")
    finally:
        restore(master, fleet)


@pytest.fixture
def faulty(pytestconfig: pytest.Config) -> Iterator[FaultyFleet]:
    """The fleet whose instances and cables may be broken (see `faulty.FaultyFleet`); whole again after the test."""
    faulty = shared_faulty_fleet(pytestconfig)
    yield faulty
    faulty.restore()
