"""How a wish ("three boats at dusk") becomes the conditioning of the tiny model.

The whole mapping, short enough to be restated elsewhere::

    pooled = 64 zeros
    pooled[0], pooled[1] or pooled[2] = 1.0    for "day", "dusk", "night"
    pooled[2 + boats] = 1.0                    for 1 to 5 boats (3 to 7)
    context = one token equal to pooled
    cond tensor [1, 1, 64], pooled_output [1, 64]; all zeros means "anything" and is the negative

Either half of the wish may be left out (its places stay zero). The model reads the pooled vector; the context only has to
have the right width, its number of tokens hardly matters.
"""

from __future__ import annotations

CONDITION_WIDTH = 64
TIMES: tuple[str, ...] = ("day", "dusk", "night")
MIN_BOATS = 1
MAX_BOATS = 5
_BOATS_OFFSET = len(TIMES) - MIN_BOATS


def scene_places(boats: int | None, time: str | None) -> list[int]:
    """The places of the pooled vector that are one; None leaves that part of the scene to the model.

    Raises ValueError for a number of boats outside 1 to 5 or an unknown time.
    """
    places: list[int] = []
    if time is not None:
        if time not in TIMES:
            raise ValueError(f"unknown time {time!r}: one of {', '.join(TIMES)}")
        places.append(TIMES.index(time))
    if boats is not None:
        if not MIN_BOATS <= boats <= MAX_BOATS:
            raise ValueError(f"boats must be {MIN_BOATS} to {MAX_BOATS}, got {boats}")
        places.append(_BOATS_OFFSET + boats)
    return places


def encode_scene(
    boats: int | None = None, time: str | None = None
) -> tuple[list[list[list[float]]], list[list[float]]]:
    """Context [1, 1, 64] and pooled vector [1, 64] as nested lists; without arguments all zeros (the negative).

    Raises ValueError as :func:`scene_places` does.
    """
    pooled = [0.0] * CONDITION_WIDTH
    for place in scene_places(boats, time):
        pooled[place] = 1.0
    return [[list(pooled)]], [pooled]
