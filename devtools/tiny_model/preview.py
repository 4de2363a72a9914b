"""The linear map with which ComfyUI shows an SD3-type latent before it is decoded (red, green, blue = latent x factors + bias).

The autoencoder is trained so that this map gives a small version of the picture, in -1 to 1. The numbers are part of the
host's latent format (``comfy/latent_formats.py``, SD3), as are SCALE and SHIFT: the host's latents are SHIFT + latent / SCALE.
"""

from __future__ import annotations

SCALE = 1.5305
SHIFT = 0.0609

PREVIEW_FACTORS: tuple[tuple[float, float, float], ...] = (
    (-0.0922, -0.0175, 0.0749),
    (0.0311, 0.0633, 0.0954),
    (0.1994, 0.0927, 0.0458),
    (0.0856, 0.0339, 0.0902),
    (0.0587, 0.0272, -0.0496),
    (-0.0006, 0.1104, 0.0309),
    (0.0978, 0.0306, 0.0427),
    (-0.0042, 0.1038, 0.1358),
    (-0.0194, 0.0020, 0.0669),
    (-0.0488, 0.0130, -0.0268),
    (0.0922, 0.0988, 0.0951),
    (-0.0278, 0.0524, -0.0542),
    (0.0332, 0.0456, 0.0895),
    (-0.0069, -0.0030, -0.0810),
    (-0.0596, -0.0465, -0.0293),
    (-0.1448, -0.1463, -0.1189),
)
PREVIEW_BIAS: tuple[float, float, float] = (0.2394, 0.2135, 0.1925)
