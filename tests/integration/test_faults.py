"""Must be true 2: whatever breaks, alone or together, all items arrive, and are what a single server makes."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import pytest
from fleetkit.client import Client
from fleetkit.faulty import WORKERS, FaultyFleet
from fleetkit.fleets import executions, rows_alone, tensor
from fleetkit.graphs import pulled
from fleetkit.waiting import eventually

from devtools.instances import Instance

ITEMS = 24
ITEM_S = 1.0
FROZEN_S = 20.0
CUT_S = 5.0
FAULTS = ("kill", "stop", "cut")
COMBINATIONS = [chosen for count in (1, 2, 3) for chosen in combinations(FAULTS, count)]

LOST_WITHIN_S = 2.0
"""A dead process's leases are back in the queue by then."""
SILENCE_S = 10.0
"""A silent link is given up by then."""
BACK_WITHIN_S = 2.0
"""A link that was cut for `CUT_S` stands again so long after it was mended."""
SLACK_S = 4.0
"""For a busy test machine, and the beginning and the end of a job."""
EXTRA_RUNS_PER_FAULT = 3
"""A fault may cost duplicate work: what the participant held (two items), and one more."""

EARLIEST_S, LATEST_S = 0.5, 4.0
"""When a fault strikes, after the first item has begun."""


class Strikes:
    """Faults that happen, and end, while a job runs. Times are wall seconds.

    Attributes:
        killed: Who was killed.
        killed_s: When.
    """

    def __init__(self, faulty: FaultyFleet, faults: tuple[str, ...]) -> None:
        self._faulty = faulty
        chance = random.Random(" ".join(faults))
        victims = chance.sample(WORKERS, len(faults))
        self._plan = [
            (fault, victim, chance.uniform(EARLIEST_S, LATEST_S)) for fault, victim in zip(faults, victims, strict=True)
        ]
        self._timers: list[threading.Timer] = []
        self.killed = ""
        self.killed_s = 0.0

    def begin(self) -> None:
        for fault, victim, at_s in self._plan:
            print(f"{fault} {victim} after {at_s:.2f} s")
            for moment_s, act in self._acts(fault, victim, at_s):
                self._timers.append(threading.Timer(moment_s, act))
        for timer in self._timers:
            timer.start()

    def end(self) -> None:
        """What has not happened yet will not."""
        for timer in self._timers:
            timer.cancel()
            timer.join()

    def _acts(self, fault: str, victim: str, at_s: float) -> list[tuple[float, Callable[[], None]]]:
        instance, cable = self._faulty.instance(victim), self._faulty.cables[victim]
        if fault == "stop":
            return [(at_s, instance.freeze), (at_s + FROZEN_S, instance.thaw)]
        if fault == "cut":
            return [(at_s, cable.cut), (at_s + CUT_S, cable.mend)]

        def kill() -> None:
            self.killed, self.killed_s = victim, time.time()
            instance.kill()

        return [(at_s, kill)]


@pytest.fixture(scope="module")
def expected(bare: Client, bare_instance: Instance) -> list[str]:
    """The rows of the single server."""
    return rows_alone(bare, bare_instance, ITEMS)


@pytest.fixture(scope="module")
def warm_up() -> Callable[[FaultyFleet], None]:
    """Runs, once, a job that nothing happens to: a process's first item takes longer than all others."""
    done: list[str] = []

    def run(faulty: FaultyFleet) -> None:
        if not done:
            done.append(faulty.master.run(pulled("warm-up", 2 * len(WORKERS))))

    return run


@pytest.fixture
def strikes(faulty: FaultyFleet, faults: tuple[str, ...]) -> Iterator[Strikes]:
    made = Strikes(faulty, faults)
    yield made
    made.end()


def bound_s(faults: tuple[str, ...], *, master_pulls: bool) -> float:
    """How long the job may last: those who are well do all the work, and each fault costs no more than is stated."""
    well = max(1, len(WORKERS) - len(faults) + master_pulls)
    cost_s = {"kill": LOST_WITHIN_S, "stop": SILENCE_S, "cut": CUT_S + BACK_WITHIN_S}
    return ITEMS * ITEM_S / well + sum(cost_s[fault] for fault in faults) + 2 * ITEM_S + SLACK_S


@pytest.mark.parametrize("faults", COMBINATIONS, ids="+".join)
def test_mbt2_all_items_arrive_and_are_the_same(
    faults: tuple[str, ...],
    strikes: Strikes,
    faulty: FaultyFleet,
    expected: list[str],
    warm_up: Callable[[FaultyFleet], None],
) -> None:
    """The master coordinates in one half of the cases, and pulls in the other."""
    master_pulls = COMBINATIONS.index(faults) % 2 == 1
    faulty.master.change_settings(master_delegate_only=not master_pulls)
    warm_up(faulty)
    prefix = "faults-" + "-".join(faults)
    began_s = time.monotonic()
    job = faulty.master.queue(pulled(prefix, ITEMS, delay_s=ITEM_S))
    eventually(lambda: any(item["state"] == "running" for item in faulty.master.job(job)["items"]), "an item runs")
    strikes.begin()
    faulty.master.succeeded(job, timeout_s=bound_s(faults, master_pulls=master_pulls))
    strikes.end()

    told = faulty.master.job(job)
    runs = executions(faulty.instances, prefix)
    print(f"{time.monotonic() - began_s:.1f} s, {sum(runs.values())} runs, {len(told['items'])} items")
    assert told["state"] == "done"
    assert {item["state"] for item in told["items"]} == {"done"}
    assert tensor(faulty.fleet.master, prefix)["rows"] == expected
    assert set(runs) == set(range(ITEMS))
    assert sum(runs.values()) <= ITEMS + EXTRA_RUNS_PER_FAULT * len(faults)
    if "kill" in faults:
        check_the_killed(told, strikes, alone=faults == ("kill",))


def check_the_killed(told: dict[str, Any], strikes: Strikes, *, alone: bool) -> None:
    """What the killed worker had is back in the queue at once and, if nothing else is wrong, at work elsewhere."""
    held = [
        (item, attempt)
        for item in told["items"]
        for attempt in item["attempts"]
        if attempt["participant"] == strikes.killed and attempt["state"] == "lost"
    ]
    assert held, "the killed worker had nothing: the test does not test anything"
    for item, attempt in held:
        assert attempt["ended_s"] - strikes.killed_s <= LOST_WITHIN_S
        if alone:
            later_s = [
                other["started_s"] - strikes.killed_s
                for other in item["attempts"]
                if other["number"] > attempt["number"] and other["started_s"] is not None
            ]
            print(f"item {item['index']} was running elsewhere after {min(later_s):.2f} s")
            assert min(later_s) <= LOST_WITHIN_S
