"""A stand-in for `host.sampling`: encodes by keeping the pixels, samples by adding its noise, and writes everything down.

What it claims of the real one is held in tests/contract/test_host_sampling.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

Latent = dict[str, Any]


@dataclass
class PictureVae:
    """As the host's VAEs for pictures. ``loses_px``: by how much a decoded picture is lower than the encoded one."""

    latent_dim: int = 2
    not_video: bool = False
    downscale_ratio: Any = 8
    upscale_ratio: Any = 8
    loses_px: int = 0
    loses_frames: int = 0


def clip_vae(step: int = 4, **changes: Any) -> PictureVae:
    """As the host's VAEs for clips of ``step`` * n + 1 frames."""
    shrink = (lambda frames: (frames + step - 1) // step, 8, 8)
    grow = (lambda latents: latents * step - step + 1, 8, 8)
    return PictureVae(**{"latent_dim": 3, "downscale_ratio": shrink, "upscale_ratio": grow, **changes})


@dataclass
class Call:
    """One call of a sampler: what it was given."""

    model: Any
    positive: Any
    negative: Any
    pictures: int
    settings: dict[str, Any]
    latent: Latent


@dataclass
class FakeHostSampling:
    """Put it into ``sys.modules`` as ``flotilla.host.sampling``.

    The latent *is* the pixels. The noise of a picture is 1/255 times its number in the batch, or its ``batch_index``; the
    sampler adds that and ``brighter``.
    """

    brighter: float = 0.0
    fails: BaseException | None = None
    calls: list[Call] = field(default_factory=list)
    encoded: list[torch.Tensor] = field(default_factory=list)
    tiled: list[bool] = field(default_factory=list)

    def encode(self, vae: Any, pixels: torch.Tensor) -> Latent:
        """See `host.sampling`."""
        self.encoded.append(pixels)
        return {"samples": pixels}

    def sample(self, model: Any, positive: Any, negative: Any, latent: Latent, **settings: Any) -> Latent:
        """See `host.sampling`."""
        if self.fails is not None:
            raise self.fails
        samples = latent["samples"]
        self.calls.append(Call(model, positive, negative, len(samples), settings, latent))
        rows = torch.tensor(latent.get("batch_index", range(len(samples))), dtype=torch.float32)
        noise = rows.reshape(-1, 1, 1, 1) / 255 + self.brighter
        return {**latent, "samples": samples + noise}

    sample_custom = sample

    def decode(self, vae: Any, latent: Latent, *, tiled: bool) -> torch.Tensor:
        """See `host.sampling`: as the host, it shows channels last, but keeps them first in memory."""
        self.tiled.append(tiled)
        samples = latent["samples"]
        samples = samples[: len(samples) - vae.loses_frames, : samples.shape[1] - vae.loses_px]
        return (samples + 0.25 / 255).movedim(-1, 1).contiguous().movedim(1, -1)
