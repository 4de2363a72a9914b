"""Latents and masks that a model sees beside the one it works on: reference latents, those of inpainting models.

Source: fact 15 of the reference for reference latents. Difference: those of inpainting models are the reference's blind
spot (they are squeezed into each tile); they are cropped here outside of parity.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..geometry import Box, Size
from ..place import Place
from .areas import tile_cells
from .batches import frame_rows
from .regions import CELL_PX, crop_hint, cut, side_by_side, size_of

_MODE = "bilinear"
_LATENT_DIMS = 4


def crop_latent(latent: torch.Tensor, place: Place) -> torch.Tensor:
    """``[B, C, h, w]`` or ``[B, C, T, h, w]`` of the whole picture, at any size, for the tiles of ``place``.

    Resized to the canvas in cells of 8 pixels, cut, resized to the processing size in cells. Other shapes (audio) are
    returned as they are.
    """
    if latent.ndim < _LATENT_DIMS:
        return latent
    latent = latent[frame_rows(latent.shape[0], place)]
    crops = place.crops[:1] if place.parity else place.crops
    return side_by_side([_cropped(latent, place, crop) for crop in crops])


def crop_latent_mask(mask: torch.Tensor, latent: torch.Tensor | None, place: Place) -> torch.Tensor:
    """``concat_mask`` for the tiles of ``place``: like its latent if it has that one's size, else in pixels.

    ``[B, h, w]``, ``[B, 1, h, w]`` or ``[B, 1, T, h, w]``.
    """
    if latent is not None and size_of(mask) == size_of(latent) and mask.ndim >= _LATENT_DIMS:
        return crop_latent(mask, place)
    return crop_hint(mask, place, mode=_MODE)


def _cropped(latent: torch.Tensor, place: Place, crop: Box) -> torch.Tensor:
    """One picture after the other, as each is resized to the whole canvas. All channels at once: torch rounds differently
    when there is but one.
    """
    whole = Size(max(place.canvas.width // CELL_PX, 1), max(place.canvas.height // CELL_PX, 1))
    x1, y1 = min(crop.x1 // CELL_PX, whole.width - 1), min(crop.y1 // CELL_PX, whole.height - 1)
    box = Box(x1, y1, max(crop.x2 // CELL_PX, x1 + 1), max(crop.y2 // CELL_PX, y1 + 1))
    pictures = latent.movedim(1, -3).flatten(0, -4)
    tiles = [_interpolated(cut(_interpolated(one[None], whole), box), tile_cells(place)) for one in pictures]
    joined = torch.cat(tiles)
    return joined.reshape(latent.shape[0], *latent.shape[2:-2], *joined.shape[1:]).movedim(-3, 1)


def _interpolated(picture: torch.Tensor, size: Size) -> torch.Tensor:
    """``[1, C, h, w]`` at ``size``."""
    return F.interpolate(picture, size=(size.height, size.width), mode=_MODE)
