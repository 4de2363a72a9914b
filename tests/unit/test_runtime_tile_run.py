"""One picture on its way through its tiles, with its thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fakes.tile_work import FakeWork, alone, result
from flotilla.runtime.tile_run import PICTURE_EDGE_PX, PICTURE_EVERY_S, TileRun
from flotilla.transport.values import IMAGE, Value
from flotilla.upscale.work import PIXELS
from flotilla.utils.clock import ManualClock
from flotilla.utils.errors import InvalidInput, JobCancelled, JobFailed
from PIL import Image

FIRST = 100
CHAIN = [set(), {0}, {1}]
WAIT_S = 10.0


class Followed:
    """A run of a fake picture, and what it tells."""

    def __init__(self, needs: list[set[int]]) -> None:
        self.clock = ManualClock()
        self.work = FakeWork(needs)
        self.told: list[Any] = []
        self.shown: list[Image.Image] = []
        self.show_fails = False
        self.run = TileRun(
            self.work,
            FIRST,
            clock=self.clock,
            ready=lambda places: self.told.append(places),
            changed=lambda: self.told.append("changed"),
            show=self._show,
        )

    def _show(self, image: Image.Image) -> None:
        if self.show_fails:
            raise OSError("no screen")
        self.shown.append(image)

    def settled(self) -> Any:
        """Waits until the thread has done all that it was asked for."""
        return self.run._thread.submit(lambda: list(self.told)).result(WAIT_S)


@pytest.fixture
def chain() -> Iterator[Followed]:
    made = Followed(CHAIN)
    yield made
    made.run.close()


def test_places_are_those_of_the_stage(chain: Followed) -> None:
    assert chain.run.start().result(WAIT_S) == [FIRST]
    chain.run.arrived(FIRST, result(2))
    assert chain.settled() == [[FIRST + 1], "changed"]
    assert chain.run.cut(FIRST + 1).result(WAIT_S)[PIXELS].data.mean() == 3


def test_it_is_over_when_the_last_place_is_in_place(chain: Followed) -> None:
    for place, number in enumerate(alone(CHAIN)):
        assert not chain.run.is_over
        chain.run.arrived(FIRST + place, result(number))
        chain.settled()
    assert chain.run.is_over
    chain.run.check()
    assert chain.work.result() == alone(CHAIN)


def test_a_place_that_will_not_come_opens_what_waits_for_it(chain: Followed) -> None:
    chain.run.skip(FIRST)
    assert chain.settled() == [[FIRST + 1], "changed"]
    chain.run.arrived(FIRST, result(2))
    chain.settled()
    assert chain.work.result() == [None, None, None]


def test_everything_that_touches_the_picture_happens_in_its_thread(chain: Followed) -> None:
    chain.run.start().result(WAIT_S)
    chain.run.cut(FIRST).result(WAIT_S)
    chain.run.arrived(FIRST, result(2))
    chain.run.skip(FIRST + 1)
    chain.settled()
    assert len(chain.work.threads) == 1
    assert threading.get_ident() not in chain.work.threads


def test_it_waits_for_nobody_s_cut(chain: Followed) -> None:
    """Whoever asks for pixels may be cancelled; the picture goes on."""
    gate = threading.Event()
    chain.run._thread.submit(gate.wait, WAIT_S)
    cut = chain.run.cut(FIRST)
    assert cut.cancel()
    gate.set()
    chain.run.arrived(FIRST, result(2))
    chain.settled()
    assert chain.work.cuts == []
    assert chain.work.numbers == {0: 2}


def test_pictures_are_shown_now_and_then_and_in_the_end() -> None:
    run = Followed([set()] * 4)
    for place, wait_s in enumerate((0.0, PICTURE_EVERY_S / 2, PICTURE_EVERY_S / 2, 0.0)):
        run.clock.advance(wait_s)
        run.run.arrived(FIRST + place, result(2))
        run.settled()
        assert len(run.shown) == (1, 1, 2, 3)[place]
    assert run.work.pictures == 3, "what is not shown is not made"
    assert run.shown[0].size == (PICTURE_EDGE_PX, PICTURE_EDGE_PX // 2)
    run.run.close()


def test_a_picture_that_cannot_be_shown_stops_nothing(chain: Followed) -> None:
    chain.show_fails = True
    for place, number in enumerate(alone(CHAIN)):
        chain.run.arrived(FIRST + place, result(number))
    assert chain.settled() == [[FIRST + 1], "changed", [FIRST + 2], "changed", "changed"]
    assert chain.run.is_over
    chain.run.check()


def test_a_result_that_does_not_fit_ends_the_picture_and_nothing_is_done_to_it_afterwards(chain: Followed) -> None:
    chain.run.arrived(FIRST, {PIXELS: Value(IMAGE, torch.zeros(1, 1, 1, 3))})
    assert chain.settled() == ["changed"]
    assert chain.run.is_over
    with pytest.raises(InvalidInput, match="do not fit"):
        chain.run.check()
    chain.run.arrived(FIRST, result(2))
    assert chain.settled() == ["changed"]
    assert chain.work.numbers == {}


def test_whatever_else_goes_wrong_is_told_as_a_failure_of_the_job(chain: Followed) -> None:
    chain.work.breaks = ZeroDivisionError("oops")
    chain.run.arrived(FIRST, result(2))
    assert chain.settled() == ["changed"]
    with pytest.raises(JobFailed, match="ZeroDivisionError: oops"):
        chain.run.check()


def test_after_the_end_results_are_dropped_and_pixels_are_refused(chain: Followed) -> None:
    chain.run.arrived(FIRST, result(2))
    chain.run.close()
    chain.run._thread.shutdown(wait=True)
    assert chain.work.numbers == {0: 2}, "what was asked for before is done"
    chain.run.arrived(FIRST + 1, result(6))
    chain.run.skip(FIRST + 2)
    for ask in (chain.run.start, lambda: chain.run.cut(FIRST + 1)):
        with pytest.raises(JobCancelled):
            ask()
    assert chain.work.result() == [2, None, None]


def test_nothing_to_do_is_over_from_the_start() -> None:
    assert Followed([]).run.is_over
