"""Tensors that are a pure function of their arguments, on every machine. Pure torch, nothing of the host."""

from __future__ import annotations

import torch

LATENT_CHANNELS = 16
LATENT_CELL_PX = 8
"""A latent cell covers this many pixels of the image in each direction."""

MASK_STREAM = 1
"""Added to the seed of a latent for its mask, so that the two are different noise."""

_SEEDS = 1 << 64


def _generator(seed: int) -> torch.Generator:
    return torch.Generator(device="cpu").manual_seed(seed % _SEEDS)


def image(seed: int, width_px: int, height_px: int, batch: int) -> torch.Tensor:
    """Uniform noise, float32 [batch, height, width, 3] in 0..1, in steps of 2**-24: no 8 or 16 bits hold it."""
    return torch.rand((batch, height_px, width_px, 3), generator=_generator(seed), dtype=torch.float32)


def mask(seed: int, width_px: int, height_px: int, batch: int) -> torch.Tensor:
    """Uniform noise, float32 [batch, height, width] in 0..1."""
    return torch.rand((batch, height_px, width_px), generator=_generator(seed), dtype=torch.float32)


def latent(seed: int, width_px: int, height_px: int, batch: int, with_mask: bool) -> dict[str, torch.Tensor]:
    """Normal noise for an image of that size: ``samples`` float32 [batch, 16, height // 8, width // 8].

    With a mask also ``noise_mask`` float32 [batch, 1, height, width]. Sizes under one cell are rounded up to one.
    """
    rows, columns = max(1, height_px // LATENT_CELL_PX), max(1, width_px // LATENT_CELL_PX)
    shape = (batch, LATENT_CHANNELS, rows, columns)
    made = {"samples": torch.randn(shape, generator=_generator(seed), dtype=torch.float32)}
    if with_mask:
        made["noise_mask"] = mask(seed + MASK_STREAM, width_px, height_px, batch).unsqueeze(1)
    return made


def waveform(seed: int, seconds: float, sample_rate_hz: int, channels: int) -> torch.Tensor:
    """Uniform noise, float32 [1, channels, samples] in -1..1, at least one sample long."""
    samples = max(1, round(seconds * sample_rate_hz))
    return torch.rand((1, channels, samples), generator=_generator(seed), dtype=torch.float32) * 2.0 - 1.0
