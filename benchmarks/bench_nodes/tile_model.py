"""A sampler and a VAE whose cost is known: the time of a tile is what was asked for, and hardly any processor is used."""

from __future__ import annotations

import time
from typing import Any

import comfy.samplers
import torch
from comfy_api.latest import io

CELL_PX = 8
CHANNELS = 16
COLOURS = 3


class WaitingSampler(comfy.samplers.Sampler):
    """Waits ``step_s`` per step, and then gives the latent back with a little of the noise."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s

    def sample(
        self,
        _model: Any,
        sigmas: torch.Tensor,
        _extra_args: dict[str, Any],
        callback: Any,
        noise: torch.Tensor,
        latent_image: torch.Tensor | None,
        *_rest: Any,
    ) -> torch.Tensor:
        start = noise if latent_image is None else latent_image
        steps = len(sigmas) - 1
        for step in range(steps):
            time.sleep(self.step_s)
            if callback is not None:
                callback(step, start, start, steps)
        return start + 0.01 * noise


class CellVAE:
    """Cells of 8 × 8 pixels as latents: their mean colours in the first channels."""

    latent_dim = 2

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, h, w, 3] of 0..1 → [B, 16, h / 8, w / 8]."""
        means = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1)[:, :COLOURS], CELL_PX)
        empty = torch.zeros(means.shape[0], CHANNELS - COLOURS, *means.shape[2:])
        return torch.cat([means, empty], dim=1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The way back."""
        grown = torch.nn.functional.interpolate(latents[:, :COLOURS].float(), scale_factor=CELL_PX)
        return grown.movedim(1, -1).clamp(0.0, 1.0)


class BenchSampler(io.ComfyNode):
    """A `WaitingSampler`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchSampler",
            category="flotilla/bench",
            inputs=[io.Float.Input("step_s", min=0.0, max=600.0, step=0.001)],
            outputs=[io.Sampler.Output("sampler")],
        )

    @classmethod
    def execute(cls, step_s: float) -> io.NodeOutput:
        return io.NodeOutput(WaitingSampler(step_s))


class BenchSigmas(io.ComfyNode):
    """So many steps from 1 to 0."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchSigmas",
            category="flotilla/bench",
            inputs=[io.Int.Input("steps", min=1, max=1_000)],
            outputs=[io.Sigmas.Output("sigmas")],
        )

    @classmethod
    def execute(cls, steps: int) -> io.NodeOutput:
        return io.NodeOutput(torch.linspace(1.0, 0.0, steps + 1))


class BenchVAE(io.ComfyNode):
    """A `CellVAE`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="BenchVAE", category="flotilla/bench", inputs=[], outputs=[io.Vae.Output("vae")])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(CellVAE())


NODES: list[type[io.ComfyNode]] = [BenchSampler, BenchSigmas, BenchVAE]
