"""Pixels between 0 and 1 as floats, and as 8-bit values.

Source: fact 1 of the reference (``tensor_to_pil`` and ``pil_to_tensor`` of ssitu/ComfyUI_UltimateSDUpscale). Differences:
infinities are written down here as what they become, and ``clamp`` is ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

Pixels = np.ndarray[Any, np.dtype[Any]]
"""``[..., 3]``, uint8 from 0 to 255 or float32 where 1.0 is white."""

WHITE = 255
COLOURS = 3


def quantise(pixels: torch.Tensor | Pixels, *, clamp: bool = False) -> Pixels:
    """Floats as 8-bit values: NaN to 0, times 255, *truncated*. uint8 is returned as it is.

    The reference does not clamp, and neither does this by default: the integer part is taken modulo 256 (x86), so that
    1.02 becomes 4. With ``clamp`` it becomes 255, as everybody would expect. Infinities, and values too large for 32
    bits, become 0 without it. Computed in the type of ``pixels``, as numpy does, bfloat16 in float32.
    """
    values = _array(pixels)
    if values.dtype == np.uint8:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = values * values.dtype.type(WHITE)
        undefined = np.isnan(scaled)
        if undefined.any():
            scaled[undefined] = 0
        if clamp:
            np.clip(scaled, 0, WHITE, out=scaled)
        narrow: Pixels = scaled.astype(np.uint8)
        return narrow


def unit(pixels: Pixels) -> Pixels:
    """8-bit values as float32 from 0 to 1. `quantise` brings the same 8-bit values back."""
    return np.divide(pixels, np.float32(WHITE), dtype=np.float32)


def unit_into(target: Pixels, pixels: Pixels) -> None:
    """`unit`, written to ``target`` (float32)."""
    np.divide(pixels, np.float32(WHITE), out=target, dtype=np.float32)


def floats(pixels: torch.Tensor | Pixels) -> Pixels:
    """As finite float32, a copy: NaN to 0, infinities to the largest numbers; uint8 as by `unit`."""
    values = _array(pixels)
    if values.dtype == np.uint8:
        return unit(values)
    with np.errstate(over="ignore"):
        return np.nan_to_num(values.astype(np.float32), copy=False)


def rgb(pixels: Pixels) -> Pixels:
    """``[..., 1]`` repeated to three colours; of ``[..., 3]`` and more the first three (alpha is dropped)."""
    if pixels.shape[-1] == 1:
        return np.repeat(pixels, COLOURS, axis=-1)
    return pixels[..., :COLOURS]


def _array(pixels: torch.Tensor | Pixels) -> Pixels:
    if not isinstance(pixels, torch.Tensor):
        return pixels
    pixels = pixels.detach().cpu()
    if pixels.dtype == torch.bfloat16:  # unknown to numpy
        pixels = pixels.float()
    array: Pixels = pixels.numpy()
    return array
