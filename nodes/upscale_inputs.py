"""The inputs of the upscale nodes, and what they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

from ..graph.wishes import ON_FAILURE
from ..host.node_api import io, sampler_names, scheduler_names
from ..upscale.canvas import Canvas
from ..upscale.geometry import Size, canvas_size
from ..upscale.model_plan import model_runs
from ..upscale.model_work import ModelWork
from ..upscale.one_tile import Sampling
from ..upscale.pixels import Pixels
from ..upscale.redraw_work import RedrawWork
from ..upscale.tasks import INDEPENDENT, MODES, MOSAIC, PARITY_MODES, SEAM_FIX_MODES, SEAM_NONE, Layout, SeamFix
from ..upscale.work import Models

MAX_SEED = 0xFFFF_FFFF_FFFF_FFFF
MODEL_INPUTS = tuple(field.name for field in fields(Models))
"""The inputs that only whoever computes tiles needs."""

FRAMES_AT_ONCE = 8
"""Frames of a chunk where the user leaves that to us and the model makes single pictures."""

DEPTHS = ("8bit", "float")


def upscaled_image_input(name: str) -> io.Input:
    """The picture that is to be redrawn, or enlarged first."""
    return io.Image.Input(name, tooltip="The picture, a batch of pictures, or the frames of a video.")


def model_inputs(*, optional: bool = False) -> list[io.Input]:
    """What computes a tile. Lazy: a master that only coordinates loads none of it."""
    return [
        io.Model.Input("model", lazy=True, optional=optional, tooltip="The model that redraws the tiles."),
        io.Conditioning.Input(
            "positive", lazy=True, optional=optional, tooltip="What the picture shows. Regions follow the tile."
        ),
        io.Conditioning.Input("negative", lazy=True, optional=optional, tooltip="What it is not to show."),
        io.Vae.Input("vae", lazy=True, optional=optional, tooltip="The model's VAE."),
    ]


def old_inputs() -> list[io.Input]:
    """The widgets of the node that ours replaces, in their order."""
    return [
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=MAX_SEED,
            control_after_generate=True,
            tooltip="The same for every tile, as in Ultimate SD Upscale.",
        ),
        io.Int.Input("steps", default=20, min=1, max=10_000, tooltip="Steps for each tile."),
        io.Float.Input("cfg", default=8.0, min=0.0, max=100.0, tooltip="How closely tiles follow the prompts."),
        io.Combo.Input("sampler_name", options=sampler_names(), tooltip="As in KSampler."),
        io.Combo.Input("scheduler", options=scheduler_names(), tooltip="As in KSampler."),
        io.Float.Input(
            "denoise", default=0.5, min=0.0, max=1.0, step=0.01, tooltip="How much of a tile may change; 1: all of it."
        ),
        io.Int.Input("tile_width", default=512, min=64, max=2048, step=8, tooltip="Of the grid, in pixels."),
        io.Int.Input("tile_height", default=512, min=64, max=2048, step=8, tooltip="Of the grid, in pixels."),
        io.Int.Input(
            "padding", default=32, min=0, max=256, step=8, tooltip="How far beyond its edges a tile sees, in pixels."
        ),
        io.Int.Input("mask_blur", default=8, min=0, max=256, tooltip="How softly a tile ends, in pixels."),
        io.Boolean.Input("force_uniform_tiles", default=True, tooltip="Every tile is sampled at the same size."),
        io.Boolean.Input("tiled_decode", default=False, tooltip="Decode in smaller tiles: slower, with less memory."),
    ]


def new_inputs() -> list[io.Input]:
    """What ours has more. All optional: a prompt that leaves them out gets the defaults."""
    return [
        io.Combo.Input(
            "mode",
            options=list(MODES),
            default=MOSAIC,
            optional=True,
            tooltip=(
                "The order of tiles. mosaic: four colours, wide parallelism. linear and chess: the same pixels as "
                "Ultimate SD Upscale. independent: every tile from the source, all at once. none: seam fix only."
            ),
        ),
        io.Combo.Input(
            "seam_fix_mode",
            options=list(SEAM_FIX_MODES),
            default=SEAM_NONE,
            optional=True,
            tooltip="A further pass over the seams between tiles.",
        ),
        io.Float.Input(
            "seam_fix_denoise",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            optional=True,
            tooltip="Used only with seam_fix_own_denoise: Ultimate SD Upscale has this input and uses denoise instead.",
        ),
        io.Int.Input(
            "seam_fix_width",
            default=64,
            min=2,
            max=8192,
            step=8,
            optional=True,
            tooltip="Of the bands of Band Pass, in pixels.",
        ),
        io.Int.Input(
            "seam_fix_mask_blur",
            default=8,
            min=0,
            max=64,
            optional=True,
            tooltip="How softly half tiles end, in pixels.",
        ),
        io.Int.Input(
            "seam_fix_padding",
            default=16,
            min=0,
            max=4096,
            step=8,
            optional=True,
            tooltip="How far a seam's tile sees beyond its edges, in pixels.",
        ),
        io.Combo.Input(
            "canvas",
            options=list(DEPTHS),
            default=DEPTHS[0],
            optional=True,
            tooltip="What passes from tile to tile: 8 bits, as in Ultimate SD Upscale, or all bits (mosaic, independent).",
        ),
        io.Int.Input(
            "tile_batch",
            default=1,
            min=1,
            max=4096,
            optional=True,
            tooltip="Tiles that are sampled as one batch, with uniform tiles. More need more memory.",
        ),
        io.Combo.Input(
            "on_failure",
            options=list(ON_FAILURE),
            default=ON_FAILURE[0],
            optional=True,
            tooltip="When a tile cannot be redrawn anywhere: fail, or keep the source there (partial).",
        ),
        io.Int.Input(
            "frame_chunk",
            default=0,
            min=0,
            max=1 << 20,
            optional=True,
            tooltip=(
                "Frames that are sampled together. 0: by itself, that is a whole clip for video models and in the modes "
                "of Ultimate SD Upscale, else a few frames."
            ),
        ),
        io.Boolean.Input(
            "seam_fix_own_denoise",
            default=False,
            optional=True,
            tooltip="Seam fixes use seam_fix_denoise. Not in the modes of Ultimate SD Upscale.",
        ),
        io.Sampler.Input("custom_sampler", optional=True, lazy=True, tooltip="Used when there are sigmas as well."),
        io.Sigmas.Input("custom_sigmas", optional=True, lazy=True, tooltip="Used when there is a sampler as well."),
    ]


CHOICES: dict[str, tuple[str, ...]] = {"mode": MODES, "seam_fix_mode": SEAM_FIX_MODES}
"""The new inputs that come first, where old workflows may have left something else."""


def unknown_choice(**chosen: Any) -> str:
    """What is wrong with a choice of `CHOICES`; empty if nothing is.

    Workflows from before September 2025 end with one or two values, true or false, of widgets that the older node had
    lost itself. On ours they come to lie on these, and stand for the default. What is linked is not known yet, and None.
    """
    for name, value in chosen.items():
        if value is not None and not isinstance(value, bool) and value not in CHOICES[name]:
            return f"{name}: {value!r} is not one of {', '.join(CHOICES[name])}"
    return ""


@dataclass(frozen=True)
class Asked:
    """What the widgets of an upscale node say. Names and units as of the inputs."""

    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    denoise: float
    tile_width: int
    tile_height: int
    padding: int
    mask_blur: int
    force_uniform_tiles: bool
    tiled_decode: bool
    mode: str = MOSAIC
    seam_fix_mode: str = SEAM_NONE
    seam_fix_denoise: float = 1.0
    seam_fix_width: int = 64
    seam_fix_mask_blur: int = 8
    seam_fix_padding: int = 16
    canvas: str = DEPTHS[0]
    tile_batch: int = 1
    on_failure: str = ON_FAILURE[0]
    frame_chunk: int = 0
    seam_fix_own_denoise: bool = False
    upscale_by: float = 1.0

    @classmethod
    def of(cls, inputs: Mapping[str, Any]) -> Asked:
        """From the inputs of a node, whatever else there is among them. See `unknown_choice` for true and false."""
        names = {field.name for field in fields(cls)}
        said = {name: value for name, value in inputs.items() if name in names and value is not None}
        for name in CHOICES:
            if isinstance(said.get(name), bool):
                del said[name]
        return cls(**said)

    @property
    def is_parity(self) -> bool:
        """Whether the pixels are to be those of the reference."""
        return self.mode in PARITY_MODES

    @property
    def depth(self) -> str:
        """That of the canvas; 8 bits in parity modes."""
        return DEPTHS[0] if self.is_parity else self.canvas

    def canvas_size(self, image: torch.Tensor) -> Size:
        """The size of the result."""
        return canvas_size(int(image.shape[2]), int(image.shape[1]), self.upscale_by)

    def model_runs(self, image: torch.Tensor) -> int:
        """How often an upscale model runs over the picture: as in the reference in its modes, else once."""
        source = Size(int(image.shape[2]), int(image.shape[1]))
        return model_runs(source, self.canvas_size(image)) if self.is_parity else 1

    def model_work(self, image: torch.Tensor, picture: torch.Tensor | Pixels, runs_left: int) -> ModelWork:
        """One run of the upscale model over ``picture``; the last one gives the size of the result."""
        size = self.canvas_size(image) if runs_left == 1 else None
        return ModelWork(picture, size, self.depth, clamp=not self.is_parity)

    def work(self, image: torch.Tensor, picture: torch.Tensor | Pixels, is_video: bool) -> RedrawWork:
        """The redraw.

        Args:
            image: the input, float [B, h, w, C].
            picture: what is redrawn: the input, or what an upscale model made of it. Resized if need be.
            is_video: whether the model takes frames for a clip.

        Raises:
            InvalidInput: an input is out of its range.
        """
        size = self.canvas_size(image)
        layout = Layout(
            canvas=size,
            tile=Size(self.tile_width, self.tile_height),
            padding=self.padding,
            mask_blur=self.mask_blur,
            uniform=self.force_uniform_tiles,
            mode=self.mode,
            seam_fix=SeamFix(self.seam_fix_mode, self.seam_fix_width, self.seam_fix_mask_blur, self.seam_fix_padding),
            tile_batch=self.tile_batch,
        )
        canvas = Canvas(
            picture,
            size,
            "8bit" if self.depth == DEPTHS[0] else "float",
            clamp=not self.is_parity,
            keep_source=self.mode == INDEPENDENT,
        )
        own_denoise = self.seam_fix_own_denoise and not self.is_parity
        return RedrawWork(
            canvas,
            layout,
            Sampling(
                seed=self.seed,
                steps=self.steps,
                cfg=self.cfg,
                sampler_name=self.sampler_name,
                scheduler=self.scheduler,
                denoise=self.denoise,
                tiled_decode=self.tiled_decode,
            ),
            source=Size(int(image.shape[2]), int(image.shape[1])),
            chunks=self._chunks(canvas.batch, is_video),
            seam_denoise=self.seam_fix_denoise if own_denoise else None,
        )

    def needs_to_know_video(self, image: torch.Tensor) -> bool:
        """Whether it matters if the model takes frames for a clip."""
        return self.frame_chunk == 0 and not self.is_parity and image.shape[0] > 1

    def _chunks(self, batch: int, is_video: bool) -> list[range]:
        together = self.frame_chunk
        if together == 0:
            together = batch if self.is_parity or is_video else FRAMES_AT_ONCE
        elif self.is_parity:
            together = batch  # in the reference all frames are one batch, and that decides their noise
        return [range(start, min(start + together, batch)) for start in range(0, batch, together)]
