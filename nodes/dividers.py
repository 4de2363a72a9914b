"""Dividers: one batch of images, or one stretch of audio, cut into up to ten parts."""

from __future__ import annotations

from typing import Any

import torch

from ..host.node_api import io
from .gathering import empty_audio

MAX_PARTS = 10


def part_sizes(total: int, parts: int) -> list[int]:
    """Sizes of ``parts`` contiguous parts of ``total``, the first ones larger by one: (10, 3) → [4, 3, 3]."""
    size, rest = divmod(total, parts)
    return [size + (1 if index < rest else 0) for index in range(parts)]


def _divide_by() -> io.Int.Input:
    return io.Int.Input(
        "divide_by",
        default=2,
        min=1,
        max=MAX_PARTS,
        step=1,
        display_mode=io.NumberDisplay.number,
        tooltip="Into how many parts.",
    )


class ImageBatchDivider(io.ComfyNode):
    """Images [B, H, W, C] → up to ten batches, in order."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImageBatchDivider",
            display_name="Image Batch Divider",
            category="image",
            description="Cuts a batch of images into parts of equal length, the first ones longer by one if need be.",
            is_output_node=True,
            inputs=[io.Image.Input("images", tooltip="The batch to cut."), _divide_by()],
            outputs=[io.Image.Output(f"batch_{n}", display_name=f"batch_{n}") for n in range(1, MAX_PARTS + 1)],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, divide_by: int) -> io.NodeOutput:
        parts = list(torch.split(images, part_sizes(images.shape[0], divide_by)))
        return io.NodeOutput(*parts, *[images[:0]] * (MAX_PARTS - len(parts)))


class AudioBatchDivider(io.ComfyNode):
    """Audio [B, C, S] → up to ten stretches of its samples, in order."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AudioBatchDivider",
            display_name="Audio Batch Divider",
            category="audio",
            description="Cuts audio into stretches of equal length, the first ones longer by one sample if need be.",
            is_output_node=True,
            inputs=[io.Audio.Input("audio", tooltip="The audio to cut."), _divide_by()],
            outputs=[io.Audio.Output(f"audio_{n}", display_name=f"audio_{n}") for n in range(1, MAX_PARTS + 1)],
        )

    @classmethod
    def execute(cls, audio: dict[str, Any] | None, divide_by: int) -> io.NodeOutput:
        rate = int((audio or {}).get("sample_rate", 44_100))
        waveform = (audio or {}).get("waveform")
        if waveform is None or waveform.shape[-1] == 0:
            return io.NodeOutput(*[empty_audio(rate)] * MAX_PARTS)
        parts = list(torch.split(waveform, part_sizes(waveform.shape[-1], divide_by), dim=-1))
        parts += [waveform[..., :0]] * (MAX_PARTS - len(parts))
        return io.NodeOutput(*({"waveform": part, "sample_rate": rate} for part in parts))
