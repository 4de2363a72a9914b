"""What a VAE of the host says of clips: whether it takes pictures for the frames of one, and how long one may be."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

CLIP_DIMENSIONS = 3  # time, height, width
LONGEST_STEP_FRAMES = 64
"""No model's lengths are further apart than this (the widest known: 17)."""

PICTURE_MODELS = frozenset({"QwenImage", "CosmosT2IPredict2", "Anima", "Krea2", "JoyImage"})
"""The host's configurations of models that make single pictures although their VAE is one for clips."""


def is_video(vae: Any, model: Any = None) -> bool:
    """Whether frames are one clip to this VAE. With the model given as well, one that makes single pictures with a VAE
    for clips counts as a model for pictures."""
    if getattr(vae, "latent_dim", None) != CLIP_DIMENSIONS or getattr(vae, "not_video", False):
        return False
    config = getattr(getattr(model, "model", None), "model_config", None)
    return type(config).__name__ not in PICTURE_MODELS


def clip_length(vae: Any, frames: int) -> int:
    """The least number of frames, ``frames`` or more, that the VAE gives back in full (4n+1 for many); ``frames`` for a
    VAE that does not say."""
    given_back = _given_back(vae)
    if given_back is None:
        return frames
    candidates = range(frames, frames + LONGEST_STEP_FRAMES)
    return next((length for length in candidates if given_back(length) == length), frames)


def frame_hint(vae: Any, frames: int, model: Any = None) -> str:
    """What a person should know of a clip of ``frames`` frames; empty where there is nothing to say. Model as in
    `is_video`."""
    length = clip_length(vae, frames) if is_video(vae, model) else frames
    added = length - frames
    if added == 0:
        return ""
    fitting = [*_lengths_that_fit(vae, range(max(1, frames - LONGEST_STEP_FRAMES), frames))[-1:], length]
    copies = "1 frame was" if added == 1 else f"{added} frames were"
    return (
        f"This video model works on {_rule(vae)}; {frames} were given. {copies} added at the end, as copies of the last, "
        f"and removed again. Lengths that fit: {', '.join(str(one) for one in fitting)}."
    )


def _given_back(vae: Any) -> Callable[[int], int] | None:
    """From frames encoded to frames decoded, by the host's two formulas; None where it has none."""
    try:
        shrink, grow = vae.downscale_ratio[0], vae.upscale_ratio[0]
    except (AttributeError, TypeError, IndexError):
        return None
    if not callable(shrink) or not callable(grow):
        return None
    return lambda frames: int(grow(shrink(frames)))


def _lengths_that_fit(vae: Any, lengths: range) -> list[int]:
    return [length for length in lengths if clip_length(vae, length) == length]


def _rule(vae: Any) -> str:
    """The lengths that fit as people write them (``4n+1 frames``), where they follow such a rule."""
    lengths = _lengths_that_fit(vae, range(1, 3 * LONGEST_STEP_FRAMES))
    steps = {later - earlier for earlier, later in pairwise(lengths)}
    if len(steps) != 1:
        return "certain numbers of frames"
    step = steps.pop()
    return f"{step}n+{lengths[0] % step} frames"
