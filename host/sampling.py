"""The host's own ways to encode, sample and decode, as its nodes of these names do it: same noise, same progress bar, same
pictures while it works. For the prompt thread, inside a node; models are objects as the host's nodes hand them on."""

from __future__ import annotations

from typing import Any

import comfy.sample
import comfy.utils
import latent_preview
import torch

import nodes

Latent = dict[str, Any]
"""The host's LATENT: ``samples`` [B, C, h, w], or [B, C, t, h, w] of models for video, and what else a model wants."""

DECODE_TILE_PX = 512
"""Edge of the tiles of a tiled decode; the rest of it is as the host's node has it by default."""


def encode(vae: Any, pixels: torch.Tensor) -> Latent:
    """VAEEncode: pixels float32 [n, h, w, 3] of 0 to 1. Never in tiles, unless the host runs out of memory."""
    return nodes.VAEEncode().encode(vae, pixels)[0]


def decode(vae: Any, latent: Latent, *, tiled: bool) -> torch.Tensor:
    """VAEDecode or VAEDecodeTiled: float [n, h, w, channels] of 0 to 1; the frames of a clip are n pictures."""
    if tiled:
        return nodes.VAEDecodeTiled().decode(vae, latent, DECODE_TILE_PX)[0]
    return nodes.VAEDecode().decode(vae, latent)[0]


def sample(
    model: Any,
    positive: Any,
    negative: Any,
    latent: Latent,
    *,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    denoise: float,
) -> Latent:
    """KSampler."""
    return nodes.common_ksampler(
        model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent, denoise=denoise
    )[0]


def sample_custom(
    model: Any,
    positive: Any,
    negative: Any,
    latent: Latent,
    *,
    seed: int,
    cfg: float,
    sampler: Any,
    sigmas: torch.Tensor,
) -> Latent:
    """SamplerCustom with added noise, but for its second output, which nobody here needs."""
    samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    made = comfy.sample.sample_custom(
        model,
        comfy.sample.prepare_noise(samples, seed, latent.get("batch_index")),
        cfg,
        sampler,
        sigmas,
        positive,
        negative,
        samples,
        noise_mask=latent.get("noise_mask"),
        callback=latent_preview.prepare_callback(model, sigmas.shape[-1] - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return {**latent, "samples": made}
