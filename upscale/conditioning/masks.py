"""The mask of a conditioning for one tile.

Source: fact 15 of the reference: 8-bit, BICUBIC to the canvas, cropped, fitted and padded. Only the region of the canvas is
made, with the same bits, so that a large canvas costs little more than a small one. Difference: with several crops each gets
its own mask outside of parity.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image

from ..geometry import Box, Size
from ..pixels import quantise, unit
from ..place import Place
from .batches import frame_rows
from .regions import side_by_side

_MASK_DIMS = 3
_BICUBIC_REACH = 2
"""So many pixels to each side are looked at by BICUBIC when it enlarges."""


def crop_mask(mask: torch.Tensor, place: Place) -> torch.Tensor:
    """``[N, h, w]`` (or ``[h, w]``, ``[N, t, h, w]``) at any size as ``[n, ..., place.size]`` float32, from 0 to 1."""
    if mask.ndim < _MASK_DIMS:
        mask = mask[None]
    if mask.ndim == _MASK_DIMS:  # with time in it, rows are no frames
        rows = frame_rows(mask.shape[0], place)
        mask = mask if rows == list(range(mask.shape[0])) else mask[rows]
    crops = place.crops[:1] if place.parity else place.crops
    return side_by_side([_for_crop(mask, place, crop) for crop in crops])


def canvas_region(mask: torch.Tensor, canvas: Size, crop: Box) -> Image.Image:
    """``[h, w]`` as an 8-bit picture, resized to the canvas by BICUBIC and cropped: those bits, but only the region.

    Pillow resizes rows first and stores them as 8 bits, then columns. So rows that the region does not see need not be
    resized, nor columns outside of it. A mask higher than the canvas is resized whole: Pillow 13 may take its columns first.
    """
    height = mask.shape[0]
    if height > canvas.height:
        return Image.fromarray(quantise(mask)).resize(canvas, Image.Resampling.BICUBIC).crop(crop)
    top, bottom = _rows_seen(crop, height, canvas.height)
    rows = Image.fromarray(quantise(mask[top:bottom])).resize((canvas.width, bottom - top), Image.Resampling.BICUBIC)
    columns = Image.new("L", (crop.width, height))
    columns.paste(rows.crop((crop.x1, 0, crop.x2, rows.height)), (0, top))
    columns = columns.resize((crop.width, canvas.height), Image.Resampling.BICUBIC)
    return columns.crop((0, crop.y1, crop.width, crop.y2))


def fitted(picture: Image.Image, size: Size) -> Image.Image:
    """As large as it goes into ``size`` with its aspect (LANCZOS), centred, its edges repeated outwards.

    An odd pixel that is left over is made up by stretching.
    """
    ratio = min(size.width / picture.width, size.height / picture.height)
    inner = Size(round(picture.width * ratio), round(picture.height * ratio))
    picture = picture.resize(inner, Image.Resampling.LANCZOS)
    beside, above = (size.width - inner.width) // 2, (size.height - inner.height) // 2
    if beside or above:
        picture = Image.fromarray(np.pad(np.asarray(picture), ((above, above), (beside, beside)), mode="edge"))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _for_crop(mask: torch.Tensor, place: Place, crop: Box) -> torch.Tensor:
    tiles = [fitted(canvas_region(one, place.canvas, crop), place.size) for one in mask.flatten(0, -3)]
    pixels = torch.from_numpy(unit(np.stack([np.asarray(tile) for tile in tiles])))
    return pixels.reshape(*mask.shape[:-2], place.size.height, place.size.width)


def _rows_seen(crop: Box, height: int, canvas_height: int) -> tuple[int, int]:
    """The rows of a mask, no higher than the canvas, that the crop's rows are made of, with one to spare on either side."""
    scale = height / canvas_height
    reach = _BICUBIC_REACH + 1
    return max(math.floor(crop.y1 * scale) - reach, 0), min(math.ceil(crop.y2 * scale) + reach, height)
