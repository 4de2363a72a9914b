"""Image hints in a model's patches (DiffSynth, Z-Image, LLLite, Uni3C), cropped for one tile.

Source: fact 15 of the reference; ``comfy_extras/nodes_model_patch.py`` of the host for how patches are held. A patch is known
by what it holds, not by its class: a ``model_patch`` and pictures under the names below. It is built anew by its own
constructor with the pictures cropped, so that its own code encodes them.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from ...utils.log import get_logger
from ..place import Place
from .regions import crop_hint

log = get_logger("upscale")

_PICTURES = ("image", "inpaint_image", "render_video")
"""Attributes ``[B, h, w, C]`` of the whole canvas."""
_MASK = "mask"
"""``[B, ..., h, w]`` of the whole canvas."""
_ENCODED = "encoded_image"
"""What a patch makes of its pictures when it is built."""
_OPTIONS = "transformer_options"
_HOLDERS = ("patches", "patches_replace")
_PICTURE_DIMS = 4


@contextmanager
def cropped_model(model: Any, place: Place) -> Iterator[Any]:
    """A clone of the model whose image hints are those of the tiles of ``place``; the model itself if it has none.

    The clone shares the weights. What was encoded for it is let go at the end of the context.
    """
    options = getattr(model, "model_options", {}).get(_OPTIONS, {})
    if not any(_has_hints(patch) for holder in _HOLDERS for patch in _leaves(options.get(holder, {}))):
        yield model
        return
    clone = model.clone()
    cropper = _Cropper(place)
    replaced = {holder: cropper.rebuilt(options[holder]) for holder in _HOLDERS if holder in options}
    clone.model_options = {**clone.model_options, _OPTIONS: {**clone.model_options[_OPTIONS], **replaced}}
    yield clone


class _RowsPatch:
    """A patch with several encoded hints, repeated for all conditionings that the host puts into one batch.

    ``rows`` is ``[n, ...]``, one for each latent of the batch. The host's own patches add them to a batch of
    n times the number of conditionings and would fail.
    """

    def __init__(self, patch: Any, rows: torch.Tensor) -> None:
        self._patch = patch
        self._rows = rows

    def __call__(self, kwargs: dict[str, Any]) -> Any:
        batch, rows = kwargs["x"].shape[0], self._rows
        if batch != rows.shape[0] and batch % rows.shape[0] == 0:
            rows = torch.cat([rows] * (batch // rows.shape[0]))
        setattr(self._patch, _ENCODED, rows)
        return self._patch(kwargs)

    def to(self, device_or_dtype: Any) -> _RowsPatch:
        if isinstance(device_or_dtype, torch.device):
            self._rows = self._rows.to(device_or_dtype)
        setattr(self._patch, _ENCODED, self._rows)
        self._patch.to(device_or_dtype)
        return self

    def models(self) -> list[Any]:
        return list(self._patch.models())


class _Cropper:
    """Builds patches anew; one that is registered in several places stays one."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._twins: dict[int, Any] = {}

    def rebuilt(self, tree: Any) -> Any:
        """The same nesting of dicts and lists with every patch that has hints, or refers to one that has, replaced."""
        return _mapped(_mapped(tree, self._with_cropped_hints), self._pointing_to_twins)

    def _with_cropped_hints(self, patch: Any) -> Any:
        if not _has_hints(patch):
            return patch
        if id(patch) not in self._twins:
            self._twins[id(patch)] = _cropped(patch, self._place)
        return self._twins[id(patch)]

    def _pointing_to_twins(self, patch: Any) -> Any:
        known = getattr(patch, "__dict__", {})
        changed = {name: self._twins[id(value)] for name, value in known.items() if id(value) in self._twins}
        if not changed or isinstance(patch, _RowsPatch):
            return patch
        twin = copy.copy(patch)
        for name, value in changed.items():
            setattr(twin, name, value)
        return twin


def _has_hints(patch: Any) -> bool:
    return hasattr(patch, "model_patch") and any(_is_picture(getattr(patch, name, None)) for name in _PICTURES)


def _is_picture(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim == _PICTURE_DIMS


def _cropped(patch: Any, place: Place) -> Any:
    names = list(inspect.signature(type(patch)).parameters)
    missing = [name for name in names if not hasattr(patch, name)]
    if missing:
        _say_left_whole(type(patch).__name__)
        return patch
    arguments = {name: getattr(patch, name) for name in names}
    arguments.update(_cropped_hints(arguments, place))
    rows = max(arguments[name].shape[0] for name in _PICTURES if _is_picture(arguments.get(name)))
    if rows == 1 or not hasattr(patch, _ENCODED):
        return type(patch)(**arguments)
    # One by one: a video's VAE, which some of these use, would take several pictures for a clip.
    singles = [
        type(patch)(**{name: _row(name, value, row) for name, value in arguments.items()}) for row in range(rows)
    ]
    encoded = [getattr(single, _ENCODED) for single in singles]
    return _RowsPatch(singles[0], torch.cat(encoded))


def _cropped_hints(arguments: Mapping[str, Any], place: Place) -> dict[str, torch.Tensor]:
    cropped = {
        name: crop_hint(arguments[name].movedim(-1, 1), place).movedim(1, -1)
        for name in _PICTURES
        if _is_picture(arguments.get(name))
    }
    mask = arguments.get(_MASK)
    if isinstance(mask, torch.Tensor):
        cropped[_MASK] = crop_hint(mask, place)
    return cropped


def _row(name: str, value: Any, row: int) -> Any:
    if isinstance(value, torch.Tensor) and name in (*_PICTURES, _MASK):
        row %= value.shape[0]
        return value[row : row + 1]
    return value


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, (list, tuple)):
        yield tree
        return
    for branch in tree:
        yield from _leaves(branch)


def _mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(tree, dict):
        return {key: _mapped(branch, change) for key, branch in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(_mapped(branch, change) for branch in tree)
    return change(tree)


@functools.cache
def _say_left_whole(kind: str) -> None:
    log.warning("a model patch with an image cannot be cropped for tiles", patch=kind)
