"""Text conditioning without a text model: a scene's two properties as vectors.

The mapping is the one that the tiny model was taught (`devtools/tiny_model/conditioning.py`), restated so that the kit
works as a custom-node pack of its own; a test holds the two equal.
"""

from __future__ import annotations

import torch

WIDTH = 64
TIMES = ("day", "dusk", "night")
ANY_TIME = "any"
ANY_BOATS = 0
MAX_BOATS = 5
_BEFORE_BOATS = len(TIMES) - 1


def encode_scene(boats: int, time: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The scene as ``(cond [1, 1, 64], pooled [1, 64])``, float32 of zeros and ones.

    ``boats`` is 1 to 5 or ANY_BOATS, ``time`` one of TIMES or ANY_TIME; "any" of both is all zeros, the negative.
    Raises ValueError for anything else.
    """
    if not ANY_BOATS <= boats <= MAX_BOATS:
        raise ValueError(f"boats must be {ANY_BOATS} to {MAX_BOATS}, got {boats}")
    pooled = torch.zeros((1, WIDTH), dtype=torch.float32)
    if time != ANY_TIME:
        pooled[0, TIMES.index(time)] = 1.0
    if boats != ANY_BOATS:
        pooled[0, _BEFORE_BOATS + boats] = 1.0
    return pooled.unsqueeze(1).clone(), pooled
