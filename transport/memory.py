"""Memory for tensors that results are collected in."""

from __future__ import annotations

import torch

from ..utils.errors import TooLarge


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """An ordinary tensor on the CPU, its content undefined. Raises TooLarge if the system has no such memory.

    It is torch's own allocation on purpose. Huge pages were tried: filled fresh they gave 16 GB/s at best, where plain
    pages give 3 to 4, but on virtual machines that hand free memory back to their host every other run fell to
    0.5 GB/s. Populating the pages beforehand gained nothing.
    """
    try:
        with torch.inference_mode(False):
            return torch.empty(shape, dtype=dtype, device="cpu")
    except (MemoryError, RuntimeError, OverflowError) as error:
        raise TooLarge(
            f"There is no memory for collected results of the shape {list(shape)} in {dtype}.",
            cure="Collect fewer or smaller items at a time.",
        ) from error
