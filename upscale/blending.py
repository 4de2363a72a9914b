"""A tile laid over a region of the canvas, by the mask's alpha.

Source: fact 11 of the reference (Coyote-A's script: paste, ``putalpha``, ``Image.alpha_composite``, back to RGB). Differences:
only the region that the tile touches is composited, not the whole canvas (elsewhere alpha is 0 and compositing changes
nothing); the lossless blend is ours.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from .pixels import WHITE, Pixels


def over_8bit(below: Pixels, tile: Pixels, alpha: Image.Image) -> Pixels:
    """``tile`` over the opaque ``below``, both uint8 ``[h, w, 3]``; ``alpha`` is 'L' of that size."""
    overlay = Image.fromarray(tile)
    overlay.putalpha(alpha)
    return np.asarray(Image.alpha_composite(Image.fromarray(below).convert("RGBA"), overlay).convert("RGB"))


def over_float(below: Pixels, tile: Pixels, alpha: Image.Image) -> Pixels:
    """``below · (1 − a) + tile · a`` with ``a = alpha / 255``, all in float32. Nothing is clamped."""
    a = np.asarray(alpha, dtype=np.float32)[..., None] / np.float32(WHITE)
    blended: Pixels = below * (np.float32(1) - a) + tile * a
    return blended
