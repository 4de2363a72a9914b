"""The entries of a conditioning for one tile: what each holds about places is cropped, the rest travels as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..place import Place
from .areas import crop_area
from .batches import for_frames
from .controlnet import crop_control
from .gligen import crop_gligen
from .latents import crop_latent, crop_latent_mask
from .masks import crop_mask

Conditioning = list[list[Any]]
"""The host's CONDITIONING: entries ``[tensor, facts]``."""

_PER_FRAME = ("pooled_output", "attention_mask")
_ONE_PER_BATCH = ("area", "gligen")


def crop_conditioning(conditioning: Sequence[Sequence[Any]], place: Place) -> Conditioning:
    """A new list with each entry as the tiles of ``place`` see it; fact 15 of the reference.

    An entry whose area lies outside becomes global in parity. Otherwise it is left out, unless no entry would be left:
    then the first one becomes global, as the sampler cannot do without.
    """
    views = [_view(entry, place) for entry in conditioning]
    inside = [view for view, is_inside in views if is_inside or place.parity]
    return inside or [view for view, _ in views[:1]]


def needs_single_crops(conditioning: Sequence[Sequence[Any]], place: Place) -> bool:
    """Whether the crops of ``place`` have to be sampled one by one, each with a place of its own.

    The host has areas and the boxes of GLIGEN once for a whole batch. In parity the first crop's are used for all, as in
    the reference.
    """
    several = len(place.crops) > 1 and not place.parity
    return several and any(key in facts for _, facts, *_ in conditioning for key in _ONE_PER_BATCH)


def _view(entry: Sequence[Any], place: Place) -> tuple[list[Any], bool]:
    """The entry in the tile, and whether the tile lies in its area."""
    tensor, facts, *rest = entry
    facts = dict(facts)
    if isinstance(tensor, torch.Tensor):
        tensor = for_frames(tensor, place)
    for key in _PER_FRAME:
        if isinstance(facts.get(key), torch.Tensor):
            facts[key] = for_frames(facts[key], place)
    if facts.get("control") is not None:
        facts["control"] = crop_control(facts["control"], place)
    if isinstance(facts.get("mask"), torch.Tensor):
        facts["mask"] = crop_mask(facts["mask"], place)
    _crop_gligen(facts, place)
    _crop_latents(facts, place)
    return [tensor, facts, *rest], _crop_area(facts, place)


def _crop_area(facts: dict[str, Any], place: Place) -> bool:
    if facts.get("area") is None:
        return True
    area = crop_area(facts["area"], place)
    if area is not None:
        facts["area"] = area
        return True
    del facts["area"]
    facts.pop("strength", None)
    return False


def _crop_gligen(facts: dict[str, Any], place: Place) -> None:
    if facts.get("gligen") is None:
        return
    gligen = crop_gligen(facts["gligen"], place)
    if gligen is None:
        del facts["gligen"]
    else:
        facts["gligen"] = gligen


def _crop_latents(facts: dict[str, Any], place: Place) -> None:
    references = facts.get("reference_latents")
    if isinstance(references, (list, tuple)):
        facts["reference_latents"] = [crop_latent(latent, place) for latent in references]
    if place.parity:
        return
    latent, mask = facts.get("concat_latent_image"), facts.get("concat_mask")
    if isinstance(mask, torch.Tensor):
        facts["concat_mask"] = crop_latent_mask(mask, latent, place)
    if isinstance(latent, torch.Tensor):
        facts["concat_latent_image"] = crop_latent(latent, place)
