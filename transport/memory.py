"""Memory for tensors that results are collected in.

Memory that a process gets fresh from the system costs a page fault per page when it is first written, which can take
several times as long as the copy itself (measured on a virtual machine: 0.2 to 11 GB/s into fresh pages, 10 to 19 into
used ones). So large pieces are kept for a short while after their tensors are gone, for the next job.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from collections import deque

import numpy as np
import torch

from ..utils.clock import Clock, SystemClock
from ..utils.errors import TooLarge
from .limits import MIB

RESERVED_FROM_BYTES = 32 * MIB
"""Smaller tensors are not worth it."""

PASSING_FROM_BYTES = MIB
"""Smaller pieces are the C library's."""

MAX_EXCESS = 2.0
"""A kept piece serves requests down to this fraction of its size."""

KEPT_S = 30.0
"""How long a piece waits for the next job before it goes back to the system."""


class Reserve:
    """Pieces of memory between two uses. Thread-safe; pieces may come back at any moment, in any thread."""

    def __init__(self, cap_bytes: int, clock: Clock | None = None) -> None:
        """Keeps ``cap_bytes`` at most."""
        self._cap_bytes = cap_bytes
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._kept: list[tuple[float, mmap.mmap]] = []
        # Tensors die in the middle of anything, also while this thread holds the lock: what comes back waits here.
        self._returned: deque[tuple[float, mmap.mmap]] = deque()

    @property
    def kept_bytes(self) -> int:
        """What is kept now."""
        with self._lock:
            self._take_back()
            return sum(len(piece) for _, piece in self._kept)

    def take(self, size_bytes: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """``size_bytes`` bytes of undefined content, which come back here when nothing refers to them any more.

        Raises OSError or ValueError if the system has no such memory.
        """
        with self._lock:
            self._take_back()
            fitting = [
                place
                for place, (_, piece) in enumerate(self._kept)
                if size_bytes <= len(piece) <= size_bytes * MAX_EXCESS
            ]
            best = min(fitting, key=lambda place: len(self._kept[place][1]), default=None)
            piece = self._kept.pop(best)[1] if best is not None else _fresh(size_bytes)
        memory = np.frombuffer(piece, dtype=np.uint8)
        weakref.finalize(memory, self._give_back, piece).atexit = False
        return memory[:size_bytes]

    def trim(self, now_s: float) -> int:
        """Lets go of what nobody has asked for in `KEPT_S`; returns the bytes. Call it now and then."""
        with self._lock:
            self._take_back()
            old = [piece for since_s, piece in self._kept if now_s - since_s >= KEPT_S]
            self._kept = [entry for entry in self._kept if now_s - entry[0] < KEPT_S]
        return sum(len(piece) for piece in old)

    def _give_back(self, piece: mmap.mmap) -> None:
        self._returned.append((self._clock.now_s(), piece))

    def _take_back(self) -> None:
        while self._returned:
            self._kept.append(self._returned.popleft())
        while sum(len(piece) for _, piece in self._kept) > self._cap_bytes:
            self._kept.pop(0)


def _fresh(size_bytes: int) -> mmap.mmap:
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size_bytes)
    piece = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        piece.madvise(mmap.MADV_HUGEPAGE)
    return piece


def passing(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """As `empty`, for what is soon gone again: large pieces go back to the system with their tensor.

    The C library keeps freed pieces of up to some tens of megabytes for its own use, in each thread that has had one.
    """
    size_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size_bytes < PASSING_FROM_BYTES:
        return empty(shape, dtype)
    try:
        with torch.inference_mode(False):
            return torch.from_numpy(np.frombuffer(_fresh(size_bytes), dtype=np.uint8)).view(dtype).view(shape)
    except (OverflowError, OSError, ValueError) as error:
        raise TooLarge(
            f"There is no memory for a piece of the shape {list(shape)} in {dtype}.",
            cure="Use smaller tiles or chunks.",
        ) from error


def empty(shape: tuple[int, ...], dtype: torch.dtype, reserve: Reserve | None = None) -> torch.Tensor:
    """An ordinary tensor on the CPU, its content undefined. Raises TooLarge if the system has no such memory."""
    try:
        with torch.inference_mode(False):
            size_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if reserve is None or size_bytes < RESERVED_FROM_BYTES:
                return torch.empty(shape, dtype=dtype, device="cpu")
            return torch.from_numpy(reserve.take(size_bytes)).view(dtype).view(shape)
    except (MemoryError, RuntimeError, OverflowError, OSError, ValueError) as error:
        raise TooLarge(
            f"There is no memory for collected results of the shape {list(shape)} in {dtype}.",
            cure="Collect fewer or smaller items at a time.",
        ) from error
