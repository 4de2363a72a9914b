"""Nodes that make something out of nothing but their inputs."""

from __future__ import annotations

import os

from comfy_api.latest import io

from . import content, scene
from .pacing import spend

CATEGORY = "flotilla/kit"
CHOICES_VARIABLE = "FLOTILLA_KIT_CHOICES"
DEFAULT_CHOICES = "a,b"

MAX_SEED = 0xFFFF_FFFF_FFFF_FFFF
MAX_SIZE_PX = 16_384
MAX_BATCH = 4_096
MAX_DELAY_S = 600.0


def _seed() -> io.Input:
    return io.Int.Input("seed", default=0, min=0, max=MAX_SEED)


def _size(default_px: int = 64) -> list[io.Input]:
    return [
        io.Int.Input("width", default=default_px, min=1, max=MAX_SIZE_PX),
        io.Int.Input("height", default=default_px, min=1, max=MAX_SIZE_PX),
        io.Int.Input("batch", default=1, min=1, max=MAX_BATCH),
    ]


class KitImage(io.ComfyNode):
    """Noise as an image, in ``delay_s`` seconds. ``salt`` changes only the host's cache key, no pixel."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitImage",
            display_name="Kit Image",
            category=CATEGORY,
            inputs=[
                _seed(),
                *_size(),
                io.Float.Input("delay_s", default=0.0, min=0.0, max=MAX_DELAY_S, step=0.01),
                io.String.Input("salt", default=""),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(
        cls,
        seed: int,
        width: int,
        height: int,
        batch: int,
        delay_s: float,
        salt: str,
    ) -> io.NodeOutput:
        spend(delay_s)
        return io.NodeOutput(content.image(seed, width, height, batch))


class KitMask(io.ComfyNode):
    """Noise as a mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitMask",
            display_name="Kit Mask",
            category=CATEGORY,
            inputs=[_seed(), *_size()],
            outputs=[io.Mask.Output(display_name="mask")],
        )

    @classmethod
    def execute(cls, seed: int, width: int, height: int, batch: int) -> io.NodeOutput:
        return io.NodeOutput(content.mask(seed, width, height, batch))


class KitLatent(io.ComfyNode):
    """Noise as a latent of 16 channels, with or without a noise mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitLatent",
            display_name="Kit Latent",
            category=CATEGORY,
            inputs=[_seed(), *_size(), io.Boolean.Input("with_mask", default=False)],
            outputs=[io.Latent.Output(display_name="latent")],
        )

    @classmethod
    def execute(cls, seed: int, width: int, height: int, batch: int, with_mask: bool) -> io.NodeOutput:
        return io.NodeOutput(content.latent(seed, width, height, batch, with_mask))


class KitAudio(io.ComfyNode):
    """Noise as audio."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitAudio",
            display_name="Kit Audio",
            category=CATEGORY,
            inputs=[
                _seed(),
                io.Float.Input("seconds", default=1.0, min=0.0, max=MAX_DELAY_S, step=0.01),
                io.Int.Input("sample_rate", default=44_100, min=1, max=192_000),
                io.Int.Input("channels", default=2, min=1, max=8),
            ],
            outputs=[io.Audio.Output(display_name="audio")],
        )

    @classmethod
    def execute(cls, seed: int, seconds: float, sample_rate: int, channels: int) -> io.NodeOutput:
        waveform = content.waveform(seed, seconds, sample_rate, channels)
        return io.NodeOutput({"waveform": waveform, "sample_rate": sample_rate})


class KitConditioning(io.ComfyNode):
    """What a text encoder would say of a sea-scape, as the tiny model was taught it; 0 boats means any number."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitConditioning",
            display_name="Kit Conditioning",
            category=CATEGORY,
            inputs=[
                io.Int.Input("boats", default=2, min=scene.ANY_BOATS, max=scene.MAX_BOATS),
                io.Combo.Input("time", options=[*scene.TIMES, scene.ANY_TIME], default=scene.TIMES[0]),
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning")],
        )

    @classmethod
    def execute(cls, boats: int, time: str) -> io.NodeOutput:
        cond, pooled = scene.encode_scene(boats, time)
        return io.NodeOutput([[cond, {"pooled_output": pooled}]])


class KitCombo(io.ComfyNode):
    """One of the names that this instance has, as a list of models would be: another instance may lack some."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        named = os.environ.get(CHOICES_VARIABLE, DEFAULT_CHOICES).split(",")
        choices = [name.strip() for name in named if name.strip()]
        return io.Schema(
            node_id="KitCombo",
            display_name="Kit Combo",
            category=CATEGORY,
            inputs=[io.Combo.Input("choice", options=choices)],
            outputs=[io.String.Output(display_name="choice")],
        )

    @classmethod
    def execute(cls, choice: str) -> io.NodeOutput:
        return io.NodeOutput(choice)
