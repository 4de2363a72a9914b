"""Where the tiles of an upscale lie: boxes, sizes, the grid, and the region that each tile is processed in.

Source: the numbers of ssitu/ComfyUI_UltimateSDUpscale 1.7.1 and its script, as measured on the reference; the same
numbers come out here. Differences: none in the arithmetic. Pure; whole pixels of the canvas throughout.
"""

from __future__ import annotations

from typing import NamedTuple

SIDE_STEP_PX = 8  # latents have one cell for 8 pixels, so sizes are kept to multiples of it


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int


class Box(NamedTuple):
    """A rectangle on the canvas, half open: columns x1..x2-1, rows y1..y2-1. Empty if a side is not positive."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def width(self) -> int:
        """Columns; not positive if the box is empty."""
        return self.x2 - self.x1

    @property
    def height(self) -> int:
        """Rows; not positive if the box is empty."""
        return self.y2 - self.y1

    @property
    def size(self) -> Size:
        """Width and height."""
        return Size(self.x2 - self.x1, self.y2 - self.y1)

    def meets(self, other: Box) -> bool:
        """Whether the two share at least one pixel. An empty box meets nothing."""
        return max(self.x1, other.x1) < min(self.x2, other.x2) and max(self.y1, other.y1) < min(self.y2, other.y2)

    def intersect(self, other: Box) -> Box | None:
        """The pixels in both; None if there are none."""
        if not self.meets(other):
            return None
        return Box(max(self.x1, other.x1), max(self.y1, other.y1), min(self.x2, other.x2), min(self.y2, other.y2))

    def moved(self, dx: int, dy: int) -> Box:
        """The same size, ``dx`` further right and ``dy`` further down."""
        return Box(self.x1 + dx, self.y1 + dy, self.x2 + dx, self.y2 + dy)

    def union(self, other: Box) -> Box:
        """The smallest box around both."""
        return Box(min(self.x1, other.x1), min(self.y1, other.y1), max(self.x2, other.x2), max(self.y2, other.y2))

    def grown(self, margin_px: int, canvas: Size) -> Box:
        """``margin_px`` more on each side, clamped to the canvas."""
        return Box(
            max(self.x1 - margin_px, 0),
            max(self.y1 - margin_px, 0),
            min(self.x2 + margin_px, canvas.width),
            min(self.y2 + margin_px, canvas.height),
        )


class Window(NamedTuple):
    """The region of the canvas that a tile is cut from, and the size at which it is sampled.

    Where the two sizes differ, the pixels are resized on the way in and out.
    """

    crop: Box
    size: Size


def r8(value: float) -> int:
    """The nearest multiple of 8; halves go to the even multiple, as Python's ``round`` does it."""
    return round(value / SIDE_STEP_PX) * SIDE_STEP_PX


def canvas_size(width: int, height: int, scale: float = 1.0) -> Size:
    """Size of the canvas for an image of ``width`` x ``height`` pixels. A side under 4 pixels becomes 0."""
    return Size(r8(width * scale), r8(height * scale))


def grid(canvas: Size, tile: Size) -> tuple[int, int]:
    """Columns and rows of tiles, from the upper left; those at the right and bottom may stick out of the canvas."""
    return -(-canvas.width // tile.width), -(-canvas.height // tile.height)


def uniform_window(bounds: Box, padding: int, size: Size, canvas: Size) -> Window:
    """The window of a tile that is sampled at ``size``, whatever its crop.

    ``bounds`` is the box around the mask before it is blurred. The crop is that with ``padding`` around it, grown to the
    aspect of ``size`` as far as the canvas allows; what the canvas does not allow is made up by the resize.
    """
    crop = _padded(bounds, padding, canvas)
    aspect = size.width / size.height
    if crop.width / crop.height > aspect:
        target = Size(crop.width, round(crop.width / aspect))
    else:
        target = Size(round(crop.height * aspect), crop.height)
    return Window(_grown_to(target, crop, canvas), size)


def fitted_window(bounds: Box, padding: int, canvas: Size) -> Window:
    """The window of a tile that is sampled at its own size: crop with padding, sides rounded up to a multiple of 8."""
    crop = _padded(bounds, padding, canvas)
    target = Size(_up_to_step(crop.width), _up_to_step(crop.height))
    return Window(_grown_to(target, crop, canvas), target)


def _padded(bounds: Box, padding: int, canvas: Size) -> Box:
    """Bounds with padding; one pixel less at the right and the bottom unless the canvas ends there, as the reference."""
    box = bounds.grown(padding, canvas)
    return box._replace(
        x2=box.x2 - 1 if box.x2 < canvas.width else box.x2,
        y2=box.y2 - 1 if box.y2 < canvas.height else box.y2,
    )


def _grown_to(target: Size, crop: Box, canvas: Size) -> Box:
    x1, x2 = _grown_side(crop.x1, crop.x2, target.width, canvas.width)
    y1, y2 = _grown_side(crop.y1, crop.y2, target.height, canvas.height)
    return Box(x1, y1, x2, y2)


def _grown_side(start: int, end: int, target: int, limit: int) -> tuple[int, int]:
    """Half of what is missing at the end, the rest at the start, and what does not fit there at the end again."""
    end = min(end + (target - (end - start)) // 2, limit)
    start = max(start - (target - (end - start)), 0)
    end = min(end + (target - (end - start)), limit)
    return start, end


def _up_to_step(side: int) -> int:
    return -(-side // SIDE_STEP_PX) * SIDE_STEP_PX
