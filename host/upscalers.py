"""An upscale model of the host's loader, run on one tile.

Source: the host's own *Upscale Image (using Model)* node. Differences: nothing is clamped, because tiles are weighed and
added up before that; the result is on the CPU in float32, whatever the host keeps its images in.
"""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.utils
import torch

from ..utils.log import get_logger
from .execution import raise_if_interrupted

log = get_logger("upscalers")

USUAL_TILE_VALUES = 512 * 512 * 3
WORKING_VALUES = 384.0
"""For each value that goes in, times the factor: the host's own estimate of what these models need while they work."""

OVERLAP_PX = 32
LEAST_TILE_PX = 128
"""The host's overlap, and the smallest tile that it tries when memory runs out."""


def run_tile(upscale_model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """What the model makes of a tile: float32 ``[1, h·s, w·s, 3]`` on the CPU, not clamped.

    ``pixels`` is float32 ``[1, h, w, 3]``; ``upscale_model`` is the host's UPSCALE_MODEL. Out of memory, the tile is halved
    until it fits, as the host does it, and the last bits are others then. Raises what the model raises, and the host's
    interrupt. For the prompt thread, inside a node.
    """
    patcher = getattr(upscale_model, "patcher", None)  # since ComfyUI 0.30; before that these models are moved by hand
    needed_bytes = _needed_bytes(upscale_model, pixels)
    if patcher is not None:
        comfy.model_management.load_models_gpu([patcher], memory_required=needed_bytes)
        return _run(upscale_model, pixels, patcher.load_device)
    device = comfy.model_management.get_torch_device()
    needed_bytes += comfy.model_management.module_size(upscale_model.model)
    comfy.model_management.free_memory(needed_bytes, device)
    upscale_model.to(device)
    try:
        return _run(upscale_model, pixels, device)
    finally:
        upscale_model.to("cpu")


def _needed_bytes(upscale_model: Any, pixels: torch.Tensor) -> float:
    working = USUAL_TILE_VALUES * pixels.element_size() * max(upscale_model.scale, 1.0) * WORKING_VALUES
    return float(working + pixels.nelement() * pixels.element_size())


def _run(upscale_model: Any, pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    # The channels stay last in memory, as in the host's node: the layout decides which kernels run, and so the last bits.
    planes = pixels.movedim(-1, -3).to(device)
    tile_px = max(planes.shape[-2:])
    while True:
        try:
            result = _tiled(upscale_model, planes, tile_px)
        except Exception as problem:  # the host decides which ones tell of memory
            _raise_unless_out_of_memory(problem)
            tile_px //= 2
            if tile_px < LEAST_TILE_PX:
                raise
            log.warning("out of memory: the tile is halved, its last bits may differ from others'", tile_px=tile_px)
        else:
            return result.movedim(-3, -1).to("cpu", torch.float32).contiguous()


def _tiled(upscale_model: Any, planes: torch.Tensor, tile_px: int) -> torch.Tensor:
    def upscale(part: torch.Tensor) -> Any:
        raise_if_interrupted()
        return upscale_model(part.float())

    result: torch.Tensor = comfy.utils.tiled_scale(
        planes,
        upscale,
        tile_x=tile_px,
        tile_y=tile_px,
        overlap=OVERLAP_PX,
        upscale_amount=upscale_model.scale,
        output_device=comfy.model_management.intermediate_device(),
    )
    return result


def _raise_unless_out_of_memory(problem: Exception) -> None:
    tell_apart = getattr(comfy.model_management, "raise_non_oom", None)  # since ComfyUI 0.18
    if tell_apart is not None:
        tell_apart(problem)
    elif not isinstance(problem, comfy.model_management.OOM_EXCEPTION):
        raise problem
