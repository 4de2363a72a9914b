"""Boxes of the picture that conditioning is confined to: areas, and the boxes of GLIGEN, in cells of 8 pixels.

Source: fact 15 of the reference. Cells times 8 are pixels of the source image, not of the canvas. Scaling rounds edges
outwards; cells are ``// 8`` of origin and extent. Differences: an area that is left with no cell gets one, and one that
begins beyond the processing size is outside (the host could work with neither); fractions of the picture and areas in time
are understood; outside of parity the box is rescaled to the processing size and holds all cells that it touches, so that
neighbouring areas leave no gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..geometry import Box, Size
from ..place import Place
from .regions import CELL_PX, scaled

Cells = tuple[int, int, int, int]
"""Height, width, y, x in cells, as the host has them."""

_PERCENTAGE = "percentage"
_SPATIAL_DIMS = 2


def crop_cells(cells: Cells, place: Place) -> Cells | None:
    """A box of the source image in the first tile of ``place``; None if it lies outside."""
    height, width, y, x = cells
    crop = place.crops[0]
    box = scaled(_times_cell(Box(x, y, x + width, y + height)), place.source, place.canvas).intersect(crop)
    if box is None:
        return None
    box = box.moved(-crop.x1, -crop.y1)
    if not place.parity:
        box = _rescaled_to_cells(box, crop, place.size)
    return box.height // CELL_PX, box.width // CELL_PX, box.y1 // CELL_PX, box.x1 // CELL_PX


def crop_area(area: Sequence[Any], place: Place) -> tuple[Any, ...] | None:
    """An entry's ``area`` in the first tile of ``place``; None if it lies outside.

    ``(h, w, y, x)`` in cells or ``("percentage", h, w, y, x)`` in fractions; with time ``(t, h, w, z, y, x)``. Fractions of
    space become cells. Fractions of time stay what they are, as only the host knows the length: then those of space are
    fractions of the tile.
    """
    is_fraction = area[0] == _PERCENTAGE
    numbers = tuple(area[1:] if is_fraction else area)
    dims = len(numbers) // 2
    in_time = dims - _SPATIAL_DIMS
    cells = (*numbers[in_time:dims], *numbers[dims + in_time :])
    cropped = crop_cells(_whole_cells(cells, place.source) if is_fraction else cells, place)
    if cropped is None:
        return None
    height, width, y, x = cropped
    tile = tile_cells(place)
    if y >= tile.height or x >= tile.width:  # a crop larger than its processing size, where that is not made up for
        return None
    height, width = max(height, 1), max(width, 1)
    if not in_time:
        return height, width, y, x
    extent, start = numbers[:in_time], numbers[dims : dims + in_time]
    if not is_fraction:
        return (*extent, height, width, *start, y, x)
    space = (height / tile.height, width / tile.width), (y / tile.height, x / tile.width)
    return (_PERCENTAGE, *extent, *space[0], *start, *space[1])


def tile_cells(place: Place) -> Size:
    """The processing size in cells."""
    return Size(place.size.width // CELL_PX, place.size.height // CELL_PX)


def _times_cell(box: Box) -> Box:
    return Box(*(side * CELL_PX for side in box))


def _whole_cells(fractions: tuple[float, ...], source: Size) -> Cells:
    """Rounded as the host does it with the latent's size, here that of the source."""
    height, width, y, x = fractions
    rows, columns = source.height // CELL_PX, source.width // CELL_PX
    return max(1, round(height * rows)), max(1, round(width * columns)), round(y * rows), round(x * columns)


def _rescaled_to_cells(box: Box, crop: Box, size: Size) -> Box:
    """At the processing size, and grown to whole cells; never larger than the tile."""
    box = scaled(box, crop.size, size)
    return Box(
        box.x1 // CELL_PX * CELL_PX,
        box.y1 // CELL_PX * CELL_PX,
        min(-(-box.x2 // CELL_PX) * CELL_PX, size.width),
        min(-(-box.y2 // CELL_PX) * CELL_PX, size.height),
    )
