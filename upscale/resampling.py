"""Pillow's LANCZOS for arrays, also for pictures too large to be held several times.

Source: Pillow's ``Image.resize``. It resamples one axis after the other and rounds 8-bit pictures to 8 bits in between.
Which axis comes first has changed (Pillow 13 takes the height first if that shrinks more than the width), and decides the
last bits: so 8-bit pictures are left to Pillow whole, and what is asked of it is asked colour by colour, to save memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from .geometry import Size
from .pixels import COLOURS, Pixels

STRIP_BYTES = 16 * 2**20
"""About so much is worked on at a time."""

Strip = tuple[slice, slice, Pixels]
"""Rows and columns of a picture, and what is there."""


def lanczos(pixels: Pixels, size: Size) -> Pixels:
    """``[h, w, 3]`` or ``[h, w]`` resized to ``size``; uint8 as an 8-bit picture, float32 colour by colour, unclamped.

    The same array if it has that size.
    """
    if pixels.shape[:2] == (size.height, size.width):
        return pixels
    if pixels.dtype == np.uint8 or pixels.ndim == 2:
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
    return np.stack([lanczos(np.ascontiguousarray(pixels[..., c]), size) for c in range(COLOURS)], axis=-1)


def lanczos_8bit(rows: Callable[[slice], Pixels], source: Size, size: Size) -> Iterator[Strip]:
    """`lanczos` of one colour of a large picture, in strips of rows; ``rows`` gives uint8 ``[n, source.width]``.

    Bit for bit what the picture in all its colours would get. At most three pictures of one byte per pixel are held: one of
    each size, and one in between.
    """
    picture = Image.new("L", source)
    for part in strips(source.height, source.width):
        picture.paste(Image.fromarray(rows(part)), (0, part.start))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    for part in strips(size.height, size.width):
        yield part, slice(None), np.asarray(picture.crop((0, part.start, size.width, part.stop)))


def lanczos_float(rows: Callable[[slice], Pixels], source: Size, size: Size) -> Iterator[Strip]:
    """`lanczos` of one colour of a large picture, in strips of columns; ``rows`` gives float32 ``[n, source.width]``.

    Equal to it but for the last bits, as the width is always resampled first. Holds one picture of ``source.height`` by
    ``size.width``.
    """
    wide = np.empty((source.height, size.width), np.float32)
    for part in strips(source.height, source.width):
        wide[part] = lanczos(rows(part), Size(size.width, part.stop - part.start))
    for part in strips(size.width, max(source.height, size.height)):
        strip = np.ascontiguousarray(wide[:, part])
        yield slice(None), part, lanczos(strip, Size(part.stop - part.start, size.height))


def strips(count: int, length: int) -> Iterator[slice]:
    """``count`` rows (or columns) of ``length`` px each, cut so that a piece is about `STRIP_BYTES` of float32 RGB."""
    step = max(1, STRIP_BYTES // (length * COLOURS * np.dtype(np.float32).itemsize))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
