"""One tile, or one group of tiles, redrawn by the model: encode, sample, decode.

Source: facts 1, 9, 10 and 14 of the reference implementation of Ultimate SD Upscale (all pictures of a tile are one latent
batch, with one seed for the noise of the whole batch). Differences, none of which concerns a picture model in a mode that
equals the reference:

- In the other modes every picture gets the noise that it would get alone, so that it does not depend on how the frames of a
  clip are shared out, and pictures pass in batches of a bounded size.
- To a video model the frames of a tile are one clip, whose length is made to suit the VAE; several tiles pass one by one.
- A model for single pictures with a VAE for clips (Qwen-Image) gets one picture at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from ..utils.errors import InvalidInput
from .clips import clip_length, frame_hint, is_video
from .conditioning import crop_conditioning, cropped_model, needs_single_crops
from .pixels import floats, quantise, unit
from .place import Place
from .work import Models

__all__ = ["Models", "Sampling", "frame_hint", "is_video", "redraw"]

LATENTS_AT_ONCE = 8
"""Pictures in a batch, where the batch does not decide the result."""

STEADY_SAMPLERS = frozenset(
    {
        "ddim",
        "deis",
        "dpm_2",
        "dpmpp_2m",
        "dpmpp_2m_cfg_pp",
        "euler",
        "euler_cfg_pp",
        "exp_heun_2_x0",
        "gradient_estimation",
        "gradient_estimation_cfg_pp",
        "heun",
        "heunpp2",
        "ipndm",
        "ipndm_v",
        "lms",
        "res_multistep",
        "res_multistep_cfg_pp",
        "uni_pc",
        "uni_pc_bh2",
    }
)
"""The host's samplers that treat each picture of a batch as if it were alone: they draw no noise of their own on the way (which
would depend on the size of the batch) and choose no step by the whole batch. With any other, pictures pass one by one."""

MAX_SEED = 2**64 - 1
MAX_STEPS = 10_000
CHANNELS = 3


@dataclass(frozen=True)
class Sampling:
    """How a tile is redrawn: the settings of the host's KSampler, and whether decoding goes in tiles."""

    seed: int
    """0 to 2**64 - 1; the same for every tile."""
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    denoise: float
    """0 to 1."""
    tiled_decode: bool

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name))
        _check_range("seed", self.seed, 0, MAX_SEED)
        _check_range("steps", self.steps, 1, MAX_STEPS)
        _check_range("cfg", self.cfg, -math.inf, math.inf)
        _check_range("denoise", self.denoise, 0.0, 1.0)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Sampling:
        """Raises InvalidInput for anything but what `to_json` gives."""
        names = {field.name for field in fields(cls)}
        if not isinstance(data, Mapping) or set(data) != names:
            raise InvalidInput(f"The settings of a sampling are not just these: {', '.join(sorted(names))}.")
        return cls(**data)


def redraw(models: Models, sampling: Sampling, place: Place, pixels: np.ndarray) -> np.ndarray:
    """Redraws the pictures of one tile, or of one group of tiles, as `place` describes them.

    For the prompt thread, inside a node. Whatever the host raises passes through unchanged, out of memory and the
    interrupt (a BaseException) included.

    Args:
        models: the host's objects. A custom sampler is used when it and its sigmas are both there.
        sampling: the settings; a custom sampler leaves those of the common one aside, all but seed and cfg.
        place: which tiles and frames these are.
        pixels: [frames * tiles, h, w, 3], the tiles of a frame beside each other; uint8, or float32 of 0 to 1.

    Returns:
        As ``pixels``, of the same type, as many. Height and width are those that the decoder gave: a VAE crops what is no
        multiple of its factor, so that whoever pastes the pictures must fit them (the canvas does).

    Raises:
        InvalidInput: the pixels are not those of the place, or the VAE gave another number of pictures back.
    """
    _check_pixels(place, pixels)
    parts = list(_parts(models, sampling, place))
    for number, (rows, part, is_clip) in enumerate(parts):
        drawn = _draw(models, sampling, part, pixels[rows], is_clip)
        if len(parts) == 1:
            return drawn
        if number == 0:
            made = np.empty((len(pixels), *drawn.shape[1:]), drawn.dtype)
        made[rows] = drawn
    return made


def _parts(models: Models, sampling: Sampling, place: Place) -> Iterator[tuple[list[int], Place, bool]]:
    """What is sampled together: rows of the pixels, the place of just these, and whether they are frames of one clip."""
    tiles = len(place.crops)
    is_clip = is_video(models.vae, models.model)
    frames_at_once, tiles_at_once = (place.frames, 1) if is_clip else _batch(models, sampling, place)
    for frame in range(0, place.frames, frames_at_once):
        frames = range(frame, min(frame + frames_at_once, place.frames))
        for tile in range(0, tiles, tiles_at_once):
            chosen = range(tile, min(tile + tiles_at_once, tiles))
            part = replace(
                place,
                crops=place.crops[chosen.start : chosen.stop],
                first_frame=place.first_frame + frames.start,
                frames=len(frames),
            )
            yield [number * tiles + one for number in frames for one in chosen], part, is_clip


def _batch(models: Models, sampling: Sampling, place: Place) -> tuple[int, int]:
    """Frames and tiles in a batch of a model for pictures."""
    tiles = len(place.crops)
    if is_video(models.vae):
        return 1, 1  # this VAE would take a batch for a clip
    if place.parity:
        return place.frames, tiles
    if _is_custom(models) or sampling.sampler_name not in STEADY_SAMPLERS:
        return 1, 1
    if any(needs_single_crops(conditioning, place) for conditioning in (models.positive, models.negative)):
        return LATENTS_AT_ONCE, 1
    return max(1, LATENTS_AT_ONCE // tiles), min(tiles, LATENTS_AT_ONCE)


def _draw(models: Models, sampling: Sampling, place: Place, pixels: np.ndarray, is_clip: bool) -> np.ndarray:
    # Late, because it brings the host's own modules along.
    from ..host import sampling as host

    count = len(pixels)
    latent = host.encode(models.vae, _as_tensor(_fitting_clip(models.vae, pixels) if is_clip else pixels))
    if not place.parity and not is_clip and count > 1:
        latent = {**latent, "batch_index": [0] * count}  # each gets the noise of the first
    positive = crop_conditioning(models.positive, place)
    negative = crop_conditioning(models.negative, place)
    with cropped_model(models.model, place) as model:
        if _is_custom(models):
            latent = host.sample_custom(
                model,
                positive,
                negative,
                latent,
                seed=sampling.seed,
                cfg=sampling.cfg,
                sampler=models.custom_sampler,
                sigmas=models.custom_sigmas,
            )
        else:
            latent = host.sample(
                model,
                positive,
                negative,
                latent,
                seed=sampling.seed,
                steps=sampling.steps,
                cfg=sampling.cfg,
                sampler_name=sampling.sampler_name,
                scheduler=sampling.scheduler,
                denoise=sampling.denoise,
            )
    decoded = host.decode(models.vae, latent, tiled=sampling.tiled_decode)
    return _as_pixels(decoded, count, is_clip, place.parity, pixels.dtype)


def _is_custom(models: Models) -> bool:
    return models.custom_sampler is not None and models.custom_sigmas is not None


def _fitting_clip(vae: Any, pixels: np.ndarray) -> np.ndarray:
    """The clip, with copies of its last frame behind it until the VAE takes it whole."""
    missing = clip_length(vae, len(pixels)) - len(pixels)
    if missing == 0:
        return pixels
    return np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])


def _as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Pictures for the host: float32 of 0 to 1."""
    return torch.from_numpy(unit(pixels) if pixels.dtype == np.uint8 else pixels)


def _as_pixels(decoded: torch.Tensor, count: int, is_clip: bool, parity: bool, dtype: np.dtype[Any]) -> np.ndarray:
    """The decoded pictures as they came in. Raises InvalidInput when they are fewer, or more than were made to fit."""
    found = decoded.shape[0]
    if found < count or (found > count and not is_clip):
        raise InvalidInput(
            f"The VAE gave {found} pictures back where {count} had gone in.",
            cure="Give a number of frames that the model takes, or a VAE that belongs to the model.",
        )
    decoded = decoded[:count, ..., :CHANNELS].contiguous()  # the host decodes channels first
    return quantise(decoded, clamp=not parity) if dtype == np.uint8 else floats(decoded)


def _check_pixels(place: Place, pixels: np.ndarray) -> None:
    count = place.frames * len(place.crops)
    if pixels.dtype not in (np.uint8, np.float32):
        raise InvalidInput(f"The pixels of a tile are {pixels.dtype}, not uint8 or float32.")
    if pixels.ndim != 4 or pixels.shape[0] != count or pixels.shape[3] != CHANNELS:
        raise InvalidInput(
            f"The pixels of a tile are {list(pixels.shape)}, not {count} pictures of {CHANNELS} channels."
        )


_TYPES = {
    "seed": int,
    "steps": int,
    "cfg": float,
    "sampler_name": str,
    "scheduler": str,
    "denoise": float,
    "tiled_decode": bool,
}


def _check_type(name: str, value: Any) -> None:
    wanted = _TYPES[name]
    is_whole_float = wanted is float and type(value) is int  # JSON of other languages has no 1.0
    if type(value) is not wanted and not is_whole_float:
        raise InvalidInput(f"{name} of a sampling is {value!r}, not of type {wanted.__name__}.")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not (low <= value <= high and math.isfinite(value)):
        raise InvalidInput(f"{name} of a sampling is {value}; {low} to {high} is possible.")
