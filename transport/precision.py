"""Fewer bytes for a tensor on the way, as a choice.

    exact   every bit; the default
    half    float32 and float64 travel as float16, saturated at ±65504 (NaN stays NaN).
            Error: at most |x| · 2⁻¹¹ for |x| from 2⁻¹⁴ to 65504, at most 2⁻²⁵ below.
    8bit    IMAGE and MASK of a float type travel as uint8: round(clamp(x, 0, 1) · 255), NaN as 0, and come back as
            u / 255. Error: at most 0.5 / 255 (plus the rounding of the type itself) for x from 0 to 1; values outside
            are clamped. Everything else is exact.

The receiver restores the original element type; the shape never changes.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch

from ..utils.errors import InvalidInput
from .dtypes import FLOAT_NAMES
from .values import PLAIN_KINDS

Precision = Literal["exact", "half", "8bit"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

_HALVED = frozenset({"F64", "F32"})
_HALF = "F16"
_BYTE = "U8"
_HALF_MAX = 65504.0
_BYTE_MAX = 255.0
_CHUNK_ELEMENTS = 1 << 18  # 1 MiB of float32


def stored_dtype(precision: str, kind: str, dtype: str) -> str:
    """The element type in the file for a tensor of ``dtype`` in a value of ``kind``. Raises InvalidInput."""
    if precision not in PRECISIONS:
        raise InvalidInput(f"Precision {precision!r} is unknown.", cure=f"Use one of: {', '.join(PRECISIONS)}.")
    if precision == "half" and dtype in _HALVED:
        return _HALF
    if precision == "8bit" and kind in PLAIN_KINDS and dtype in FLOAT_NAMES:
        return _BYTE
    return dtype


def is_known_narrowing(dtype: str, restore_dtype: str) -> bool:
    """Whether a tensor stored as ``dtype`` can be widened to ``restore_dtype``."""
    return (
        dtype == restore_dtype
        or (dtype == _HALF and restore_dtype in _HALVED)
        or (dtype == _BYTE and restore_dtype in FLOAT_NAMES)
    )


def narrow(chunk: torch.Tensor, stored: torch.dtype) -> torch.Tensor:
    """``chunk`` in its stored type, by the formulas above."""
    if chunk.dtype == stored:
        return chunk
    if stored == torch.float16:
        return chunk.clamp(-_HALF_MAX, _HALF_MAX).to(torch.float16)
    wide = chunk if chunk.dtype == torch.float64 else chunk.to(torch.float32)
    return wide.nan_to_num(nan=0.0).clamp_(0.0, 1.0).mul_(_BYTE_MAX).round_().to(torch.uint8)


def widen(stored: torch.Tensor, into: torch.Tensor) -> None:
    """Writes ``stored`` into ``into``: the original type, the same shape, both contiguous. Extra memory is one chunk."""
    flat = into.view(-1)
    for start in range(0, flat.numel(), _CHUNK_ELEMENTS):
        part = flat[start : start + _CHUNK_ELEMENTS]
        part.copy_(stored.view(-1)[start : start + _CHUNK_ELEMENTS])
        if stored.dtype == torch.uint8 and into.dtype != torch.uint8:
            part.div_(_BYTE_MAX)
