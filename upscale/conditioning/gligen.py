"""The boxes of GLIGEN for one tile.

Source: fact 15 of the reference, and ``GLIGENTextBoxApply`` of the host for how they are stored. Difference: an entry without
a box in the tile goes without GLIGEN outside of parity; the reference keeps it with no boxes, which is not the same picture.
"""

from __future__ import annotations

from typing import Any

from ..place import Place
from .areas import crop_cells

_WITH_BOXES = "position"

Gligen = tuple[Any, ...]
"""(kind, model, boxes); a box is (embedding, h, w, y, x) in cells of the source image."""


def crop_gligen(gligen: Gligen, place: Place) -> Gligen | None:
    """With the boxes that meet the first tile of ``place``; None if the entry is to go without. Other kinds stay whole."""
    if gligen[0] != _WITH_BOXES:
        return gligen
    kind, model, boxes, *rest = gligen
    kept = []
    for embedding, *cells in boxes:
        cropped = crop_cells(tuple(cells), place)
        if cropped is not None:
            kept.append((embedding, *cropped))
    if not kept and not place.parity:
        return None
    return (kind, model, kept, *rest)
