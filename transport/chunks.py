"""Tensors as bytes, a chunk at a time, so that a chunk is hashed and written while it is still in the cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .limits import MIB

CHUNK_BYTES = 1 * MIB  # measured: 256 KiB to 4 MiB are equal within the noise; above the cache it gets slower
DEVICE_CHUNK_BYTES = 16 * MIB  # a copy from a GPU has a start-up cost


def as_bytes(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor; it stays alive as long as the view."""
    if tensor.numel() == 0:
        return memoryview(bytearray())
    return memoryview(_flat(tensor.detach()).view(torch.uint8).numpy())  # type: ignore[arg-type]


def flat_chunks(tensor: torch.Tensor, max_bytes: int = CHUNK_BYTES) -> Iterator[torch.Tensor]:
    """The elements of ``tensor`` in order, as contiguous 1-D CPU tensors of at most ``max_bytes``.

    Contiguous CPU memory is not copied; of anything else only a chunk is copied at a time.
    """
    if tensor.numel() == 0:
        return
    if tensor.device.type != "cpu":
        for part in _split(tensor, max(max_bytes, DEVICE_CHUNK_BYTES)):
            yield from _split(part.cpu(), max_bytes)
    else:
        yield from _split(tensor, max_bytes)


def _split(tensor: torch.Tensor, max_bytes: int) -> Iterator[torch.Tensor]:
    max_elements = max(1, max_bytes // tensor.element_size())
    if tensor.is_contiguous():
        flat = _flat(tensor)
        for start in range(0, flat.numel(), max_elements):
            yield flat[start : start + max_elements]
        return
    row_elements = tensor[0].numel()
    if row_elements > max_elements:
        for row in tensor:
            yield from _split(row, max_bytes)
        return
    max_rows = max_elements // row_elements
    for start in range(0, tensor.shape[0], max_rows):
        yield _flat(tensor[start : start + max_rows].contiguous())


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor as one row. (`view` keeps odd strides of sizes of 1, which no other type can look at.)"""
    return tensor.as_strided((tensor.numel(),), (1,))
