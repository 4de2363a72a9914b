"""Must be true 6: who cannot be linked is refused, and GET /distributed/v2/workers says why and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fleetkit.client import Client
from fleetkit.fleets import entry_for
from fleetkit.graphs import images
from fleetkit.refusing import OTHER_PROTOCOL, OTHER_VERSION, from_the_future
from fleetkit.waiting import eventually

from devtools.fleet import Fleet
from devtools.instances import Instance
from devtools.ports import Ports

OTHER_KEY = "another-fleets-key-" + "x" * 32


def verdict(master: Client, address: str, state: str) -> dict[str, Any]:
    """Adds a worker at an address and returns what the master says of it once it is in this state."""
    fields = {"id": "suspect", "name": "Suspect", "address": address, "enabled": True}
    master.post("/distributed/v2/workers", fields)
    return eventually(
        lambda: next((one for one in [master.worker("suspect")] if one["state"] == state), {}),
        f"the suspect is {state}",
    )


def assert_told(told: dict[str, Any], reason: str, *words: str) -> None:
    """The reason is the code, and the message holds the words; there is a cure."""
    assert told["reason"] == reason
    for word in words:
        assert word in told["message"], told["message"]
    assert told["cure"]


def test_mbt6_another_protocol_version(master: Client) -> None:
    with from_the_future() as server:
        told = verdict(master, server.url, "refused")
    assert_told(told, "protocol", str(OTHER_PROTOCOL), OTHER_VERSION)


def test_mbt6_comfyui_without_flotilla(master: Client, bare: Client) -> None:
    assert_told(verdict(master, bare.url, "refused"), "not_flotilla", bare.url)


def test_mbt6_nothing_listens(master: Client) -> None:
    ports = Ports()
    try:
        address = f"http://127.0.0.1:{ports.reserve(1)[0]}"
        assert_told(verdict(master, address, "offline"), "unreachable", address, "nothing listens")
    finally:
        ports.release()


def test_mbt6_the_masters_own_address(master: Client) -> None:
    assert_told(verdict(master, master.url, "refused"), "itself", "itself")


def test_mbt6_a_worker_that_is_entered_already_under_another_name(master: Client, w1: Client) -> None:
    told = verdict(master, f"{w1.url}/api", "refused")
    assert_told(told, "twice", "Worker 1")
    assert master.states()["w1"] == "online"
    assert len(master.job(master.run(images("entered-twice")))["items"]) == 3


def test_mbt6_a_worker_that_is_refused_does_not_hold_a_job_up(master: Client, bare: Client) -> None:
    told = verdict(master, bare.url, "refused")
    job = master.job(master.run(images("with-suspect")))
    assert len(job["items"]) == 3, job["left_out"]
    assert job["left_out"]["suspect"] == told["message"]


@pytest.fixture
def rekeyed(fleet: Fleet, second: Instance) -> Iterator[Any]:
    """Restarts the second master with another key, to be looked at as a worker. It keeps that key: see conftest.py."""

    def restart(key: str) -> Instance:
        second.kill()
        second.spec.key = key
        fleet.restart(second)
        return second

    yield restart


@pytest.mark.parametrize(
    ("key", "reason"), [(OTHER_KEY, "wrong_key"), ("", "worker_has_no_key")], ids=["wrong key", "no key"]
)
def test_mbt6_key(key: str, reason: str, rekeyed: Any, master: Client) -> None:
    instance = rekeyed(key)
    told = verdict(master, instance.url, "refused")
    assert_told(told, reason, "key")
    for text in (told["message"], told["cure"], instance.log_tail(200)):
        assert OTHER_KEY not in text


def test_mbt6_a_worker_that_gets_the_right_key_is_linked(fleet: Fleet, rekeyed: Any, master: Client) -> None:
    """And then takes part in jobs, after `connect` asked for a try at once."""
    instance = rekeyed(fleet.key)
    master.post("/distributed/v2/workers", entry_for(instance, "suspect"))
    eventually(lambda: master.states()["suspect"] == "online", "the suspect is online")
    assert len(master.job(master.run(images("suspect-helps")))["items"]) == 4
