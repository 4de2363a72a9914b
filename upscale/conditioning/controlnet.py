"""A chain of ControlNets for one tile.

Source: fact 15 of the reference, and ``comfy/controlnet.py`` for what a control is. Difference: outside of parity the masks
of inpainting controls are cropped too; the reference leaves them whole.
"""

from __future__ import annotations

from typing import Any

import torch

from ..place import Place
from .regions import crop_hint, size_of

_HINT_DIMS = 4


def crop_control(control: Any, place: Place) -> Any:
    """A copy of the control and of those before it, in the same order, with hints ``[n, C, place.size]``.

    The copies share models and VAE with the originals, and have encoded no hint yet.
    """
    first: Any = None
    last: Any = None
    while control is not None:
        twin = control.copy()
        twin.cond_hint = None
        _crop_hints(twin, place)
        if last is None:
            first = twin
        else:
            last.set_previous_controlnet(twin)
        last = twin
        control = control.previous_controlnet
    if last is not None:
        last.set_previous_controlnet(None)
    return first


def _crop_hints(control: Any, place: Place) -> None:
    hint = getattr(control, "cond_hint_original", None)
    if not isinstance(hint, torch.Tensor) or hint.ndim < _HINT_DIMS:
        return
    control.cond_hint_original = crop_hint(hint, place)
    masks = getattr(control, "extra_concat_orig", None)
    if masks and not place.parity:
        # The host takes no more masks than there are hints.
        control.extra_concat_orig = [_crop_mask(mask[: hint.shape[0]], place) for mask in masks]


def _crop_mask(mask: torch.Tensor, place: Place) -> torch.Tensor:
    """``[B, 1, h, w]``; a single value, which the host puts where no mask was given, fits every tile."""
    return mask if size_of(mask) == (1, 1) else crop_hint(mask, place)
