"""Tiles that need each other: how long a grid of them takes with the machine's choices, next to what is possible.

8 x 8 tiles of 0.5 s, three equal participants: two workers with one lease in hand beside the one at work, and a master that
asks when it is free. 64 tiles need at least 22 tile times. In ``linear`` tile (x, y) can be done in step x + 2 y + 1 at the
earliest, so that the first four steps have 6 tiles, the last four 6 as well, and the 52 between them need 18: 26 in all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from fakes.tile_grid import JOB, MASTER, Place, TileGrid, chess, linear, mosaic, needs_of
from flotilla.jobs import events as ev
from flotilla.jobs.pace import SteadyPace

SIDE = 8


def independent_needs() -> list[set[int]]:
    return [set() for _ in range(SIDE * SIDE)]


def grid_needs(order: Callable[[int, int], Sequence[Place]]) -> list[set[int]]:
    return needs_of(order(SIDE, SIDE))


def longest_chain(needs: list[set[int]]) -> int:
    depth: list[int] = []
    for before in needs:
        depth.append(1 + max((depth[number] for number in before), default=0))
    return max(depth)


@pytest.mark.parametrize(("order", "steps"), [(linear, 22), (chess, 10), (mosaic, 4)])
def test_the_grids_are_those_of_the_modes(order: Callable[[int, int], Sequence[Place]], steps: int) -> None:
    assert longest_chain(grid_needs(order)) == steps


def spread(seed: int) -> Callable[[int], float]:
    """Durations that differ by up to a twentieth either way; seed 0: not at all."""
    chance = random.Random(seed)
    factors = [chance.uniform(0.95, 1.05) if seed else 1.0 for _ in range(SIDE * SIDE)]
    return factors.__getitem__


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("needs", "most"),
    [(independent_needs(), 24.0), (grid_needs(mosaic), 24.0), (grid_needs(chess), 25.9), (grid_needs(linear), 27.8)],
    ids=["independent", "mosaic", "chess", "linear"],
)
def test_three_participants_take_little_longer_than_they_must(needs: list[set[int]], most: float, seed: int) -> None:
    grid = TileGrid(needs, jitter=spread(seed)).run()
    print(f"{grid.makespan:.2f} tile times, {grid.stops} taken over")
    assert grid.makespan <= most
    view = grid.machine.job(JOB)
    assert view is not None
    assert view.state == "done"
    if not seed:
        assert grid.makespan <= (27.5 if most > 26 else most)
        assert not grid.waits_behind, "a tile was put behind another while somebody had nothing to do"


@pytest.mark.parametrize(("workers", "most"), [(1, 36.0), (3, 24.0), (7, 24.0)])
def test_linear_gains_from_each_participant_until_its_own_chain_is_the_bound(workers: int, most: float) -> None:
    """22 tiles that need each other, with 0.04 s between one and the next: 23.76 tile times."""
    grid = TileGrid(grid_needs(linear), [f"w{number}" for number in range(workers)]).run()
    assert grid.makespan <= most


def test_a_first_tile_that_loads_a_model_does_not_cost_its_worker_the_rest() -> None:
    """Few tiles are ready at a time, and who is thought to be slow would be given none of them, for ever."""
    grid = TileGrid(grid_needs(linear), first_takes_s=1.0).run()
    assert grid.makespan <= 33.0
    done_by = [grid.machine.item(JOB, number) for number in range(SIDE * SIDE)]
    for who in grid.hands:
        assert sum(item is not None and item.participant_id == who for item in done_by) >= 12


def test_who_is_idle_takes_over_a_tile_that_lies_behind_another() -> None:
    """Tile 1 was given to the worker before the master asked: it lies there behind tile 0, and begins at once here."""
    grid = TileGrid([set(), set()], workers=("a",), master_asks_after_s=0.1)
    grid.run()
    assert grid.stops == 1
    assert grid.makespan <= 1.5
    view = grid.machine.item(JOB, 1)
    assert view is not None
    assert view.participant_id == MASTER


# Pace


def test_a_steady_pace_is_the_best_of_late_and_forgives_a_slow_beginning() -> None:
    pace = SteadyPace()
    assert (pace.expected("a"), pace.mean) == (None, None)
    pace.note("a", 30.0)
    assert (pace.own("a"), pace.expected("a"), pace.expected("b"), pace.mean) == (None, 30.0, 30.0, 30.0)
    pace.note("b", 20.0)
    assert pace.expected("a") == 20.0
    for seconds in (1.0, 9.0, 1.1):
        pace.note("a", seconds)
    assert pace.own("a") == 1.0
    assert pace.expected("b") == pytest.approx(1.0), "what is known of others says more than its first one"
    assert pace.rate == pytest.approx(1.0)
    for _ in range(3):
        pace.note("a", 4.0)
    assert pace.own("a") == 4.0, "it has become slower"
    assert pace.rate == pytest.approx(1 / 4)


def test_only_late_groups_are_steady() -> None:
    grid = TileGrid([set()])
    grid.machine.handle(ev.JobPlanned("other", (ev.ItemSpec(0, "a"),), ("a",)), 0.0)
    jobs = grid.machine._books.jobs
    assert isinstance(jobs[JOB].groups[0].pace, SteadyPace)
    assert not isinstance(jobs["other"].groups[0].pace, SteadyPace)
