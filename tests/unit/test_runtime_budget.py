"""A bound on what is under way at the same time."""

from __future__ import annotations

import asyncio

import pytest
from flotilla.runtime.budget import ByteBudget


class Takers:
    """Tasks that hold a part of a budget until they are told to let go."""

    def __init__(self, limit_bytes: int) -> None:
        self.budget = ByteBudget(limit_bytes)
        self.inside: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._gates: dict[str, asyncio.Event] = {}

    async def take(self, name: str, size_bytes: int) -> None:
        gate = self._gates[name] = asyncio.Event()
        self.tasks[name] = asyncio.get_running_loop().create_task(self._hold(name, size_bytes, gate))
        await settled()

    def open(self, name: str) -> None:
        self._gates[name].set()

    async def let_go(self, name: str) -> None:
        self.open(name)
        await self.tasks[name]
        await settled()

    async def cancel(self, name: str) -> None:
        self.tasks[name].cancel()
        await settled()

    async def _hold(self, name: str, size_bytes: int, gate: asyncio.Event) -> None:
        async with self.budget.take(size_bytes):
            self.inside.append(name)
            try:
                await gate.wait()
            finally:
                self.inside.remove(name)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_fits_is_let_in_and_the_rest_in_the_order_in_which_it_came() -> None:
    takers = Takers(10)
    for name, size_bytes in (("a", 6), ("b", 4), ("c", 5), ("d", 1)):
        await takers.take(name, size_bytes)
    assert takers.inside == ["a", "b"], "nobody overtakes, however small"
    await takers.let_go("b")
    assert takers.inside == ["a"]
    await takers.let_go("a")
    assert takers.inside == ["c", "d"]


async def test_what_is_larger_than_all_of_it_goes_alone() -> None:
    takers = Takers(10)
    await takers.take("a", 1)
    await takers.take("huge", 99)
    await takers.take("b", 1)
    assert takers.inside == ["a"]
    await takers.let_go("a")
    assert takers.inside == ["huge"]
    await takers.let_go("huge")
    assert takers.inside == ["b"]


async def test_an_error_inside_gives_the_room_back() -> None:
    budget = ByteBudget(10)
    with pytest.raises(ValueError, match="inside"):
        async with budget.take(10):
            raise ValueError("inside")
    async with budget.take(10):
        pass


async def test_one_that_gives_up_waiting_is_in_nobody_s_way() -> None:
    takers = Takers(10)
    await takers.take("a", 10)
    await takers.take("b", 10)
    await takers.take("c", 10)
    await takers.cancel("b")
    assert takers.tasks["b"].cancelled()
    await takers.let_go("a")
    assert takers.inside == ["c"]


async def test_one_that_gives_up_while_it_holds_room_gives_it_back() -> None:
    takers = Takers(10)
    await takers.take("a", 10)
    await takers.take("b", 10)
    await takers.cancel("a")
    assert takers.inside == ["b"]


@pytest.mark.parametrize("let_in_first", [False, True])
async def test_one_that_gives_up_at_the_moment_it_is_let_in(let_in_first: bool) -> None:
    takers = Takers(10)
    for name in "abc":
        await takers.take(name, 10)
    takers.open("a")
    if let_in_first:
        await asyncio.sleep(0)
    takers.tasks["b"].cancel()
    await settled()
    assert takers.tasks["b"].cancelled()
    assert takers.tasks["a"].exception() is None
    assert takers.inside == ["c"]
    await takers.let_go("c")
    await takers.take("d", 10)
    assert takers.inside == ["d"]
