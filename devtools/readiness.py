"""Waiting for the instances of a fleet, with reasons when they do not come."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from urllib.error import HTTPError

from .instances import Instance, request_json

START_TIMEOUT_S = 180.0
ONLINE_TIMEOUT_S = 20.0
POLL_S = 0.1

STATES_ONLINE = ("online", "busy")


class FleetError(Exception):
    """A fleet could not be started. The message carries the reason and the last log lines."""


class PortLost(Exception):
    """Somebody took a port between the probe and the instance's bind: worth another try."""


def failure(instance: Instance, what: str) -> FleetError:
    """An error about one instance, with the end of its log."""
    place = f"{instance.id} ({instance.url}, ComfyUI {instance.host.version})"
    return FleetError(f"{place} {what}. Its last lines:\n{instance.log_tail()}")


def await_ready(instances: Iterable[Instance]) -> None:
    """Waits until all instances answer and have loaded the pack.

    Raises:
        FleetError: One ended, came up without the pack, or did not answer in time.
        PortLost: One lost its port to somebody else.
    """
    waiting = list(instances)
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        waiting = [instance for instance in waiting if not instance.ready()]
        if not waiting:
            return
        for instance in waiting:
            if instance.lost_its_port():
                raise PortLost(instance.url)
            if not instance.alive():
                raise failure(instance, f"ended with status {instance.status}")
            if instance.answers_without_pack():
                raise failure(instance, "came up without Flotilla's nodes")
        if time.monotonic() > deadline_s:
            raise failure(waiting[0], f"did not answer within {START_TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)


def worker_states(master: Instance) -> dict[str, tuple[str, str]]:
    """Worker id → (state, reason), as the master sees them.

    Raises:
        OSError: The master does not answer, or has refuses (HTTPError).
    """
    answer = request_json(f"{master.url}/distributed/v2/workers")
    return {entry["id"]: (entry["state"], entry.get("reason") or "") for entry in answer["workers"]}


def await_online(master: Instance, workers: Sequence[Instance]) -> None:
    """Waits until the master has a link to every worker.

    Raises:
        FleetError: One stayed offline; with the state and reason of each such worker.
    """
    deadline_s = time.monotonic() + ONLINE_TIMEOUT_S
    while True:
        try:
            states = worker_states(master)
        except HTTPError as error:
            raise failure(master, f"answers {error.code} about its workers") from error
        offline = {
            worker.id: states.get(worker.id, ("unknown", "not in the registry"))
            for worker in workers
            if states.get(worker.id, ("", ""))[0] not in STATES_ONLINE
        }
        if not offline:
            return
        if time.monotonic() > deadline_s:
            reasons = "; ".join(f"{name} is {state}: {reason}" for name, (state, reason) in offline.items())
            raise failure(master, f"did not get all workers online within {ONLINE_TIMEOUT_S:.0f} s ({reasons})")
        time.sleep(POLL_S)
