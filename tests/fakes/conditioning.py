"""Stand-ins for what the host keeps in conditionings and models, held against the real ones by a contract test."""

from __future__ import annotations

import copy
from typing import Any

import torch
from flotilla.upscale.geometry import Box, Size
from flotilla.upscale.place import Place


def place(
    *crops: tuple[int, int, int, int],
    canvas: tuple[int, int] = (256, 192),
    source: tuple[int, int] = (128, 96),
    size: tuple[int, int] = (96, 96),
    frames: range = range(1),
    all_frames: int | None = None,
    parity: bool = True,
) -> Place:
    """A place with little to say; one crop in the upper left unless others are given."""
    return Place(
        canvas=Size(*canvas),
        source=Size(*source),
        crops=tuple(Box(*crop) for crop in crops) or (Box(0, 0, 96, 96),),
        size=Size(*size),
        first_frame=frames.start,
        frames=len(frames),
        all_frames=all_frames if all_frames is not None else frames.stop,
        parity=parity,
        stage="redraw",
    )


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Values from 0 to 1, the same for the same seed."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


class FakeControl:
    """What `crop_control` touches of the host's ControlBase."""

    def __init__(self, name: str, hint: torch.Tensor | None, previous: FakeControl | None = None) -> None:
        self.name = name
        self.cond_hint_original = hint
        self.cond_hint: torch.Tensor | None = torch.ones(1)  # encoded for another tile
        self.extra_concat_orig: list[torch.Tensor] = []
        self.previous_controlnet = previous

    def copy(self) -> FakeControl:
        twin = FakeControl(self.name, self.cond_hint_original)
        twin.extra_concat_orig = self.extra_concat_orig.copy()
        return twin

    def set_previous_controlnet(self, control: FakeControl | None) -> FakeControl:
        self.previous_controlnet = control
        return self


class FakePatch:
    """As the host's DiffSynthCnetPatch: encodes its image when it is built."""

    def __init__(self, model_patch: Any, vae: Any, image: torch.Tensor, strength: float, mask: Any = None) -> None:
        self.model_patch = model_patch
        self.vae = vae
        self.image = image
        self.strength = strength
        self.mask = mask
        self.encoded_image = self._encode(image)

    def _encode(self, image: torch.Tensor) -> torch.Tensor:
        encoded = image.mean(dim=-1)[:, ::8, ::8] + self.vae
        return encoded if self.mask is None else encoded * self.mask.flatten(1, -3).mean(1)[:, ::8, ::8]

    def __call__(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        kwargs["img"] = kwargs["img"] + self.encoded_image * self.strength
        return kwargs

    def to(self, device_or_dtype: Any) -> FakePatch:
        if isinstance(device_or_dtype, torch.device):
            self.encoded_image = self.encoded_image.to(device_or_dtype)
        return self

    def models(self) -> list[Any]:
        return [self.model_patch]


class FakeCompanion:
    """As the host's AnimaLLLiteAttentionPatch: refers to a patch with an image."""

    def __init__(self, patch: Any) -> None:
        self.patch = patch


class FakeModel:
    """As the host's ModelPatcher: a clone has dicts and lists of its own, with the same patches in them."""

    def __init__(self, patches: dict[str, list[Any]] | None = None) -> None:
        options: dict[str, Any] = {"cond_or_uncond": []}
        if patches is not None:
            options["patches"] = patches
        self.model_options: dict[str, Any] = {"transformer_options": options, "sampler_cfg_function": "kept"}

    def clone(self) -> FakeModel:
        twin = FakeModel()
        options = copy.copy(self.model_options["transformer_options"])
        options["patches"] = {name: list(patches) for name, patches in options.get("patches", {}).items()}
        twin.model_options = {**self.model_options, "transformer_options": options}
        return twin
