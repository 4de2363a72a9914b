"""Regions of the canvas in pictures of other sizes, and tensors cut and resized to them.

Source: ``resize_region`` of the reference, as a fact: left and top edges are rounded down, right and bottom ones up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ..geometry import Box, Size
from ..place import Place
from .batches import hint_rows

CELL_PX = 8
"""Areas, boxes and reference latents count in cells of so many pixels, whatever the model."""


def scaled(box: Box, whole: Size, target: Size) -> Box:
    """``box`` of a picture of size ``whole`` in the same picture at size ``target``: every pixel that it touches."""
    return Box(
        math.floor(box.x1 * target.width / whole.width),
        math.floor(box.y1 * target.height / whole.height),
        math.ceil(box.x2 * target.width / whole.width),
        math.ceil(box.y2 * target.height / whole.height),
    )


def size_of(tensor: torch.Tensor) -> Size:
    """Width and height of ``[..., h, w]``."""
    return Size(tensor.shape[-1], tensor.shape[-2])


def cut(tensor: torch.Tensor, box: Box) -> torch.Tensor:
    """The region of ``[..., h, w]``, a view."""
    return tensor[..., box.y1 : box.y2, box.x1 : box.x2]


def resized(tensor: torch.Tensor, size: Size, mode: str) -> torch.Tensor:
    """``[..., h, w]`` at ``size``; the same tensor if it has that size."""
    if size_of(tensor) == size:
        return tensor
    flat = tensor.reshape(-1, 1, *tensor.shape[-2:])
    flat = F.interpolate(flat, size=(size.height, size.width), mode=mode)
    return flat.reshape(*tensor.shape[:-2], size.height, size.width)


def crop_hint(hint: torch.Tensor, place: Place, *, mode: str = "nearest-exact") -> torch.Tensor:
    """An image hint ``[B, ..., h, w]`` of the whole canvas, at any size, for the tiles of ``place``.

    Returns ``[n, ..., place.size]``, frame by frame and for each frame tile by tile. A single hint is not repeated for the
    frames, as the host does that. Source: fact 15; ``nearest-exact`` is also the host's own way for hints.
    """
    rows = hint_rows(hint.shape[0], place)
    tiles = [
        resized(_picked(cut(hint, scaled(crop, place.canvas, size_of(hint))), rows), place.size, mode)
        for crop in place.crops
    ]
    return side_by_side(tiles)


def side_by_side(tiles: Sequence[torch.Tensor]) -> torch.Tensor:
    """One ``[n, ...]`` for each tile as one ``[n * tiles, ...]``, frame by frame."""
    if len(tiles) == 1:
        return tiles[0].contiguous()
    return torch.stack(list(tiles), dim=1).flatten(0, 1)


def _picked(tensor: torch.Tensor, rows: list[int]) -> torch.Tensor:
    return tensor if rows == list(range(tensor.shape[0])) else tensor[rows]
