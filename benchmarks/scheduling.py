"""How well the state machine of jobs spreads work, and how fast it is: the real one, on a fake clock.

    python benchmarks/scheduling.py [--seeds 5] [--quick] [--only "4x 1x 1x"] [--check]

Per scenario, over several seeds: makespan over lower bound (least, median, most); work done in vain (stopped, or finished
and not taken) and work of failed attempts as parts of the useful work (most); events per second of `Machine.handle`
together with `Machine.next_deadline_s`, in processor time (median), and the slowest single event in milliseconds (most).
The lower bound is `sim_fleet.lower_bound_s`: whole items, no latency, everything known before. Then small fleets by
chance, and the memory per item of a large job.

``--quick`` leaves the largest scenario out; ``--check`` exits with 1 if a target (last column) is missed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import statistics
import sys
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
importlib.import_module("loader").load_package()

from flotilla.jobs import events as ev  # noqa: E402
from flotilla.jobs.instructions import FetchResult, Instruction, SendLease  # noqa: E402
from flotilla.jobs.machine import Machine  # noqa: E402
from flotilla.jobs.model import JobState  # noqa: E402

from benchmarks.sim_fleet import (  # noqa: E402
    MASTER,
    Crash,
    Freeze,
    Member,
    Setup,
    Stall,
    chance,
    equal_members,
    speeds_log_uniform,
)
from benchmarks.sim_random import random_setup  # noqa: E402
from benchmarks.sim_world import NeverEnds, Outcome, SimWorld  # noqa: E402

UNEVEN = (4.0, 1.0, 1.0)
LEAST_SPEED, MOST_SPEED = 1.0, 8.0
LARGE = 1_000
FAILURES = 0.05
MANY_ATTEMPTS = 8
"""With three attempts, one in 8,000 items would fail its job: not what is measured here."""

TARGET_UNEVEN, TARGET_LARGE, TARGET_EVENTS_PER_S, TARGET_ITEM_BYTES = 1.03, 1.05, 20_000, 1024
RANDOM_FLEETS = 500
MEMORY_PARTICIPANTS = 100
MEMORY_ITEMS = (10_000, 100_000)
NAME_CHARS = 46
STUCK_CHARS = 1_000
MS = 1000.0


@dataclass(frozen=True)
class Scenario:
    """``setup(seed)`` is what to simulate; ``target`` is for the median of makespan over lower bound."""

    name: str
    setup: Callable[[int], Setup]
    target: float | None = None


def scenarios(*, quick: bool) -> Iterator[Scenario]:
    for items in (24, 100, 300):
        target = TARGET_UNEVEN if items >= 100 else None
        yield Scenario(f"4x 1x 1x, {items} items", uneven(items), target)
    yield Scenario("4x 1x 1x, 100 items, durations +-10 %", uneven(100, jitter=0.1), TARGET_UNEVEN)
    yield Scenario("4x 1x 1x, 100 items, no progress told", uneven(100, progress_every_s=None), TARGET_UNEVEN)
    yield Scenario("4x master, 1x 1x, 100 items", uneven(100, master=4.0), TARGET_UNEVEN)
    yield Scenario("1x master, 4x 1x, 100 items", uneven(100, master=1.0), TARGET_UNEVEN)
    yield Scenario("4x 1x 1x, 24 items, first ones take 10 s more", uneven(24, warm_up_s=10.0))
    yield Scenario("8 equal, 100 items", lambda seed: Setup(equal_members(8), 100, seed=seed))
    yield Scenario("8 equal, 5 items", lambda seed: Setup(equal_members(8), 5, seed=seed))
    for count in (1, 10, 100) if quick else (1, 10, 100, LARGE):
        target = TARGET_LARGE if count == LARGE else None
        yield Scenario(f"{count:,} of 1x to 8x, {100 * count:,} items, 5 % fail", wide(count), target)
    yield Scenario("joins, crashes and silences, 200 items", troubled)
    yield Scenario("4x 1x 1x, 100 items, a 1x stalls for good", stalling(1.0))
    yield Scenario("4x 1x 1x, 100 items, the 4x stalls for good", stalling(4.0))
    yield Scenario("one each on 1x 1x 1x 1/8x", one_each)
    yield Scenario("burst of 60 routes on 4x 1x 1x", lambda seed: replace(uneven(60)(seed), way="route"))


def shuffled(speeds: tuple[float, ...], seed: int) -> list[float]:
    """In an order by chance: who is named first must not matter."""
    order = sorted(range(len(speeds)), key=lambda place: chance(seed, place))
    return [speeds[place] for place in order]


def uneven(
    items: int,
    *,
    jitter: float = 0.0,
    warm_up_s: float = 0.0,
    master: float | None = None,
    progress_every_s: float | None = 0.25,
) -> Callable[[int], Setup]:
    """4x, 1x and 1x; the master is the one of them that has the speed ``master``."""

    def setup(seed: int) -> Setup:
        speeds = shuffled(UNEVEN, seed)
        if master is not None:
            speeds.remove(master)
            speeds.insert(0, master)
        first = "w0" if master is None else MASTER
        ids = (first, *(f"w{number}" for number in range(1, len(speeds))))
        members = tuple(Member(name, speed) for name, speed in zip(ids, speeds, strict=True))
        return Setup(members, items, jitter=jitter, warm_up_s=warm_up_s, progress_every_s=progress_every_s, seed=seed)

    return setup


def wide(count: int) -> Callable[[int], Setup]:
    """Speeds 1 to 8, 100 items for each participant, one attempt in twenty raises."""

    def setup(seed: int) -> Setup:
        speeds = speeds_log_uniform(count, LEAST_SPEED, MOST_SPEED, seed)
        members = tuple(Member(f"w{number}", speed) for number, speed in enumerate(speeds))
        return Setup(
            members,
            100 * count,
            base_s=8.0,
            failures=FAILURES,
            max_attempts=MANY_ATTEMPTS,
            progress_every_s=None,
            seed=seed,
        )

    return setup


def troubled(seed: int) -> Setup:
    """Two come late, one goes for good, one comes back, one is silent for long and one shortly, two only work."""

    def at_s(what: int) -> float:
        return 5.0 + 30.0 * chance(seed, what)

    speeds = speeds_log_uniform(8, 1.0, 4.0, seed)
    return Setup(
        (
            Member("steady", speeds[0]),
            Member("steady too", speeds[1]),
            Member("late", speeds[2], joins_s=at_s(1)),
            Member("later", speeds[3], joins_s=at_s(2) + 10.0),
            Member("gone", speeds[4], faults=(Crash(at_s(3)),)),
            Member("back", speeds[5], faults=(Crash(at_s(4), back_after_s=8.0),)),
            Member("silent", speeds[6], faults=(Freeze(at_s(5), for_s=20.0),)),
            Member("slow to answer", speeds[7], faults=(Freeze(at_s(6), for_s=5.0),)),
        ),
        200,
        seed=seed,
    )


def stalling(speed: float) -> Callable[[int], Setup]:
    """A participant of this speed stands still from some moment on while its heart beats on."""

    def setup(seed: int) -> Setup:
        plain = uneven(100)(seed)
        stalls_s = 60.0 * chance(seed, 1)
        who = next(member for member in plain.members if member.speed == speed)
        stalled = replace(who, faults=(Stall(stalls_s),))
        return replace(plain, members=tuple(stalled if member is who else member for member in plain.members))

    return setup


def one_each(seed: int) -> Setup:
    speeds = shuffled((1.0, 1.0, 1.0, 0.125), seed)
    members = tuple(Member(f"w{number}", speed) for number, speed in enumerate(speeds))
    return Setup(members, len(members), way="one_each", seed=seed)


def measure(scenario: Scenario, seeds: int) -> bool:
    """Runs the scenario with each seed and prints its row. False if a target was missed, or a job not done."""
    try:
        outcomes = [SimWorld(scenario.setup(seed)).run() for seed in range(seeds)]
    except NeverEnds as stuck:
        print(f"{scenario.name:<{NAME_CHARS}} NEVER ENDS: {str(stuck)[:STUCK_CHARS]}", flush=True)
        return False
    ratios = [outcome.ratio for outcome in outcomes]
    rate = statistics.median(outcome.events_per_s for outcome in outcomes)
    undone = [state.value for outcome in outcomes for state in outcome.states if state is not JobState.DONE]
    kept = sum(outcome.kept for outcome in outcomes)
    median = statistics.median(ratios)
    met = (scenario.target is None or median <= scenario.target) and not undone and not kept
    print(
        f"{scenario.name:<{NAME_CHARS}} {min(ratios):7.3f} {median:7.3f} {max(ratios):7.3f}"
        f" {most(outcomes, lambda one: one.vain):8.2%} {most(outcomes, lambda one: one.failed_s / one.useful_s):8.2%}"
        f" {rate:10,.0f} {most(outcomes, lambda one: one.slowest_s) * MS:9.2f}"
        f"  {'' if scenario.target is None else f'<= {scenario.target}'}{'' if met else ' MISSED'}"
        f"{f' not done: {undone[0]}' if undone else ''}{f' {kept} results never released' if kept else ''}",
        flush=True,
    )
    enough = len(outcomes[0].taken) < LARGE or rate >= TARGET_EVENTS_PER_S
    return met and enough


def measure_random(count: int) -> bool:
    """Prints how late small fleets by chance are, in items of their slowest participant. False if a job did not end well."""
    late, vain, bad = [], [], []
    for seed in range(count):
        setup = random_setup(seed)
        try:
            outcome = SimWorld(setup).run()
        except NeverEnds:
            bad.append(seed)
            continue
        if outcome.kept or any(state is not JobState.DONE for state in outcome.states):
            bad.append(seed)
        slowest_s = setup.base_s / min(member.speed for member in setup.members) + setup.warm_up_s
        late.append((outcome.makespan_s - outcome.bound_s) / slowest_s)
        vain.append(outcome.vain)
    late.sort()
    title = f"{count} fleets by chance: late by"
    shares = ", ".join(f"{late[int(share * (len(late) - 1))]:.3f} ({share:.0%})" for share in (0.5, 0.9, 0.99))
    print(
        f"{title:<{NAME_CHARS}} {shares} times their slowest item; {statistics.mean(vain):.1%} in vain"
        f"{f'; BAD: seeds {bad}' if bad else ''}",
        flush=True,
    )
    return not bad


def most(outcomes: list[Outcome], of: Callable[[Outcome], float]) -> float:
    return max(of(outcome) for outcome in outcomes)


class Memory:
    """What the machine's records of one large job take, in bytes per item, by tracemalloc. The job is worked off at once."""

    def __init__(self, items: int) -> None:
        self._items = items
        self._now_s = 0.0
        self._todo: deque[Instruction] = deque()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            self._machine = Machine()
            ids = tuple(f"w{number}" for number in range(MEMORY_PARTICIPANTS))
            for participant_id in ids:
                self._tell(ev.ParticipantOnline(participant_id))
            specs = tuple(ev.ItemSpec(index, ids[index % len(ids)], pulled=True) for index in range(items))
            self._tell(ev.JobPlanned("job", specs, ids))
            del specs
            self._tell(ev.JobAccepted("job"))
            self.open = self._per_item(before)
            self._work()
            self.done = self._per_item(before)
        finally:
            tracemalloc.stop()

    def _per_item(self, before: int) -> float:
        return (tracemalloc.get_traced_memory()[0] - before) / self._items

    def _tell(self, event: ev.Event) -> None:
        self._todo.extend(self._machine.handle(event, self._now_s))

    def _work(self) -> None:
        while self._todo:
            told = self._todo.popleft()
            self._now_s += 0.01
            if isinstance(told, SendLease):
                where = (told.job_id, told.index, told.attempt, told.participant_id)
                self._tell(ev.ItemStarted(*where))
                self._tell(ev.ItemFinished(*where, f"blob{told.index}"))
            elif isinstance(told, FetchResult):
                self._tell(ev.ResultFetched(told.job_id, told.index, told.attempt, told.participant_id))


def measure_memory() -> bool:
    """Prints the memory per item of jobs of two sizes, which shows that it is linear. False if it is too much."""
    worst = 0.0
    for items in MEMORY_ITEMS:
        memory = Memory(items)
        worst = max(worst, memory.open)
        print(
            f"{f'memory of a job of {items:,} items':<{NAME_CHARS}} {memory.open:7,.0f} B per item while open,"
            f" {memory.done:,.0f} B when done  < {TARGET_ITEM_BYTES} B open{'' if memory.open < TARGET_ITEM_BYTES else ' MISSED'}",
            flush=True,
        )
    return worst < TARGET_ITEM_BYTES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="scenarios whose name holds this text")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    print(
        f"{f'makespan / lower bound, {options.seeds} seeds':<{NAME_CHARS}} {'min':>7} {'median':>7} {'max':>7}"
        f" {'in vain':>8} {'failed':>8} {'events/s':>10} {'slowest':>9}  target"
    )
    met = [
        measure(scenario, options.seeds) for scenario in scenarios(quick=options.quick) if options.only in scenario.name
    ]
    if not options.only:
        met.append(measure_random(RANDOM_FLEETS))
        met.append(measure_memory())
    return int(options.check and not all(met))


if __name__ == "__main__":
    raise SystemExit(main())
