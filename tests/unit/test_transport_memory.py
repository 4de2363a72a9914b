"""Memory that is kept between two jobs."""

from __future__ import annotations

import gc

import pytest
import torch
from flotilla.transport.limits import MIB
from flotilla.transport.memory import KEPT_S, RESERVED_FROM_BYTES, Reserve, empty
from flotilla.utils.clock import ManualClock
from flotilla.utils.errors import TooLarge

SIZE = RESERVED_FROM_BYTES


def test_memory_comes_back_when_the_last_tensor_in_it_is_gone() -> None:
    reserve = Reserve(4 * SIZE)
    whole = empty((SIZE // 4,), torch.float32, reserve)
    part = whole[10:20]
    address = whole.data_ptr()
    del whole
    gc.collect()
    assert reserve.kept_bytes == 0
    del part
    gc.collect()
    assert reserve.kept_bytes == SIZE
    again = empty((SIZE // 4,), torch.float32, reserve)
    assert again.data_ptr() == address
    assert reserve.kept_bytes == 0


def test_two_tensors_never_share_memory() -> None:
    reserve = Reserve(4 * SIZE)
    first, second = (empty((SIZE,), torch.uint8, reserve) for _ in range(2))
    first.fill_(1)
    second.fill_(2)
    assert bool((first == 1).all())


def test_a_much_larger_piece_is_not_taken() -> None:
    reserve = Reserve(16 * SIZE)
    large = empty((4 * SIZE,), torch.uint8, reserve)
    del large
    gc.collect()
    small = empty((SIZE,), torch.uint8, reserve)
    assert reserve.kept_bytes == 4 * SIZE
    del small


def test_no_more_than_the_cap_is_kept() -> None:
    reserve = Reserve(SIZE + 1)
    tensors = [empty((SIZE,), torch.uint8, reserve) for _ in range(3)]
    tensors.clear()
    gc.collect()
    assert reserve.kept_bytes == SIZE


def test_what_nobody_asks_for_goes_back_to_the_system() -> None:
    clock = ManualClock()
    reserve = Reserve(4 * SIZE, clock)
    tensor = empty((SIZE,), torch.uint8, reserve)
    del tensor
    gc.collect()
    assert reserve.trim(clock.now_s() + KEPT_S - 1) == 0
    assert reserve.trim(clock.now_s() + KEPT_S) == SIZE
    assert reserve.kept_bytes == 0


def test_small_tensors_are_torchs_own() -> None:
    reserve = Reserve(4 * SIZE)
    small = empty((MIB,), torch.uint8, reserve)
    del small
    gc.collect()
    assert reserve.kept_bytes == 0


@pytest.mark.parametrize("shape", [(0, 4), (3, 2), (SIZE // 2, 2)])
def test_shape_and_type_are_as_asked(shape: tuple[int, ...]) -> None:
    tensor = empty(shape, torch.float16, Reserve(4 * SIZE))
    assert (tuple(tensor.shape), tensor.dtype, tensor.is_inference()) == (shape, torch.float16, False)


def test_more_than_there_is_is_a_typed_error() -> None:
    with pytest.raises(TooLarge):
        empty((2**62,), torch.float32, Reserve(SIZE))
