"""What a tile changes: 8-bit masks, blurred, worked out for a region without the whole canvas.

Source: ssitu/ComfyUI_UltimateSDUpscale 1.7.1 and its script, which draw and blur a mask of the canvas's size. Difference:
only the asked region is made. Pillow's blur looks a bounded way far, so the bits are the same.

Kinds of masks:

* ``RECTANGLE`` a tile of the redraw: white, and one pixel more than the tile on the right and at the bottom
* ``COLUMN_BAND``, ``ROW_BAND`` black-white-black across a seam, over the whole height or width of the canvas
* ``ROW_SEAM``, ``COLUMN_SEAM`` tile-sized, black at two opposite sides and white along the seam in the middle
* ``INTERSECTION`` tile-sized, white in the middle of four tiles, black towards its sides
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

from PIL import Image, ImageFilter, ImageOps

from .geometry import Box, Size

RECTANGLE = "rectangle"
COLUMN_BAND = "column band"
ROW_BAND = "row band"
ROW_SEAM = "row seam"
COLUMN_SEAM = "column seam"
INTERSECTION = "intersection"

WHITE = 255
BLUR_PASSES = 3  # Pillow's Gaussian blur is a box blur, so often
GRADIENT_PX = 256  # side of Pillow's gradients
PICTURES_KEPT = 8  # of a layout there are at most five; a band of a 16k canvas is about 1 MB
SPREADS_KEPT = 4096


@dataclass(frozen=True)
class TileMask:
    """An 8-bit mask on the canvas: ``size`` pixels pasted at ``origin`` (clipped by the canvas), blurred by ``blur``.

    ``blur`` is the radius in pixels, 0 for none. ``bounds`` is the box around what is not black before the blur.
    """

    canvas: Size
    kind: str
    origin: tuple[int, int]
    size: Size
    blur: float
    bounds: Box = field(init=False)

    def __post_init__(self) -> None:
        """Work out the bounds; the gradients have black rows and columns at their edges."""
        visible = self._visible()
        if self.kind != RECTANGLE:
            left, top = self.origin
            inner = _bounding_box(self.kind, self.size, visible.moved(-left, -top))
            visible = inner.moved(left, top)
        object.__setattr__(self, "bounds", visible)

    def alpha(self, region: Box) -> Image.Image:
        """Mode ``L``, of the size of ``region``, which must lie on the canvas: the blurred mask there.

        Bit for bit what the whole canvas's mask would hold there. Costs what the region and the blur's reach cost.
        """
        margin = _blur_margin(self.blur)
        around = region.grown(margin, self.canvas)
        if not around.meets(self.bounds):
            return Image.new("L", region.size, 0)
        picture = self._unblurred(around)
        if margin:
            picture = picture.filter(ImageFilter.GaussianBlur(self.blur))
        if around == region:
            return picture
        return picture.crop(region.moved(-around.x1, -around.y1))

    def reach(self) -> Box:
        """A box outside of which the blurred mask is 0: what a white rectangle of the same bounds reaches on each axis."""
        if not self.blur:
            return self.bounds
        x1, x2 = _reach_of_side(self.bounds.x1, self.bounds.x2, self.canvas.width, self.blur)
        y1, y2 = _reach_of_side(self.bounds.y1, self.bounds.y2, self.canvas.height, self.blur)
        return Box(x1, y1, x2, y2)

    def _visible(self) -> Box:
        left, top = self.origin
        return Box(
            max(left, 0),
            max(top, 0),
            min(left + self.size.width, self.canvas.width),
            min(top + self.size.height, self.canvas.height),
        )

    def _unblurred(self, region: Box) -> Image.Image:
        picture = Image.new("L", region.size, 0)
        part = self.bounds.intersect(region)
        if part is None:
            return picture
        box = part.moved(-region.x1, -region.y1)
        if self.kind == RECTANGLE:
            picture.paste(WHITE, box)
        else:
            left, top = self.origin
            picture.paste(_picture(self.kind, self.size).crop(part.moved(-left, -top)), box)
        return picture


def rectangle(canvas: Size, x: int, y: int, tile: Size, blur: float) -> TileMask:
    """The mask of the tile whose upper left corner is at (x, y)."""
    return TileMask(canvas, RECTANGLE, (x, y), Size(tile.width + 1, tile.height + 1), blur)


@lru_cache(maxsize=PICTURES_KEPT)
def _picture(kind: str, size: Size) -> Image.Image:
    """The unblurred gradient of a seam-fix mask, mode ``L``. Shared: never to be changed."""
    if kind == INTERSECTION:
        return ImageOps.invert(_fitted(Image.radial_gradient("L"), *size))
    rise = Image.linear_gradient("L")
    fall = rise.rotate(180)
    if kind in (ROW_BAND, COLUMN_BAND):
        across = Image.new("L", (GRADIENT_PX, GRADIENT_PX))
        across.paste(_fitted(rise, GRADIENT_PX, GRADIENT_PX // 2), (0, 0))
        across.paste(_fitted(fall, GRADIENT_PX, GRADIENT_PX // 2), (0, GRADIENT_PX // 2))
        return _fitted(across if kind == ROW_BAND else across.rotate(90), *size)
    picture = Image.new("L", size)  # a side that is odd keeps a black row or column at its end
    if kind == ROW_SEAM:
        half = size.height // 2
        picture.paste(_fitted(rise, size.width, half), (0, 0))
        picture.paste(_fitted(fall, size.width, half), (0, half))
    else:
        half = size.width // 2
        picture.paste(_fitted(rise.rotate(90), half, size.height), (0, 0))
        picture.paste(_fitted(rise.rotate(270), half, size.height), (half, 0))
    return picture


def _fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    return picture.resize((width, height), Image.Resampling.BICUBIC)


@lru_cache(maxsize=SPREADS_KEPT)
def _bounding_box(kind: str, size: Size, visible: Box) -> Box:
    """The box around what is not black in the ``visible`` part of a gradient, in its own pixels."""
    found = _picture(kind, size).crop(visible).getbbox()
    return visible if found is None else Box(*found).moved(visible.x1, visible.y1)


def _blur_margin(blur: float) -> int:
    """How far Pillow's Gaussian blur can see, in pixels; at most two per pass more than it does."""
    if not blur:
        return 0
    variance = blur * blur / BLUR_PASSES
    box_radius = math.floor((math.sqrt(12.0 * variance + 1.0) - 1.0) / 2.0)
    # A pass sees its radius and a fraction of one more pixel; one more still for Pillow's rounding of the radius.
    return BLUR_PASSES * (box_radius + 2)


def _reach_of_side(start: int, end: int, limit: int, blur: float) -> tuple[int, int]:
    """Where a white stretch start..end on a line of ``limit`` pixels is not black any more once it is blurred."""
    margin = _blur_margin(blur)
    line_start, line_end = max(start - 2 * margin, 0), min(end + 2 * margin, limit)
    first, last = _spread(start - line_start, end - line_start, line_end - line_start, blur)
    return line_start + first, line_start + last


@lru_cache(maxsize=SPREADS_KEPT)
def _spread(start: int, end: int, length: int, blur: float) -> tuple[int, int]:
    line = Image.new("L", (length, 1))
    line.paste(WHITE, (start, 0, end, 1))
    found = line.filter(ImageFilter.GaussianBlur(blur)).getbbox()
    return (start, start) if found is None else (found[0], found[2])
