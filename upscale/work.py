"""A picture's work, cut into items that can be computed anywhere: what a tile stage and a lone node have in common.

Places count from 0 in the order in which results are put together where they meet. All methods but `compute` touch the
picture and belong into one thread at a time; `compute` touches only what it is given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from blake3 import blake3
from PIL import Image

from ..transport.values import IMAGE, JSON, Value

PIXELS = "pixels"
"""The name under which pixels travel, there and back."""

ABOUT = "about"
"""The name of what a result says of itself: JSON, see `result_of`."""

Values = Mapping[str, Value]


def made_of(values: Values, node_id: str, inputs: Mapping[str, Any]) -> str:
    """The BLAKE3 hash, in hex, of all that a result follows from, but for the models: equal for equal pixels and inputs
    of one node."""
    pixels = values[PIXELS].data.numpy()
    told = json.dumps([node_id, inputs, list(pixels.shape), str(pixels.dtype)], sort_keys=True)
    hasher = blake3(told.encode())
    hasher.update(np.ascontiguousarray(pixels).data.cast("B"))
    return hasher.hexdigest()


def result_of(made: torch.Tensor, made_of_hash: str, hint: str = "") -> Values:
    """A result as it travels. The hash is that of `made_of`, ``hint`` what people should know."""
    return {PIXELS: Value(IMAGE, made), ABOUT: Value(JSON, {"made_of": made_of_hash, "hint": hint})}


@dataclass(frozen=True)
class Models:
    """What computes: the host's objects, as its nodes give them. None where nothing is connected."""

    model: Any = None
    positive: Any = None
    negative: Any = None
    vae: Any = None
    custom_sampler: Any = None
    custom_sigmas: Any = None
    upscale_model: Any = None


class TileWork(Protocol):
    """See the module."""

    count: int
    """Number of places."""
    root_class: str
    """The node that computes a place on a worker."""
    roots: tuple[str, ...]
    """The inputs of that node that come from the model side of the prompt, by their names in `Models`."""

    def start(self) -> list[int]:
        """The places that can be computed at once."""
        ...

    def describe(self, place: int) -> dict[str, Any]:
        """What the place is, as JSON: for people, screens and the journal."""
        ...

    def root_inputs(self, place: int) -> dict[str, Any]:
        """The constant inputs of the node that computes the place, but for its pixels. Any thread."""
        ...

    def size_bytes(self, place: int) -> int:
        """About what the pixels of a place take."""
        ...

    def cut(self, place: int) -> Values:
        """The pixels to compute with: the same bits at any time between the place being ready and its arrival."""
        ...

    def compute(self, place: int, models: Models, values: Values) -> torch.Tensor:
        """The pixels of a place's result. For the prompt thread, inside a node. Raises whatever the host's nodes raise."""
        ...

    def arrived(self, place: int, values: Values) -> list[int]:
        """Takes a result; returns the places that can be computed from now on. Told twice, it changes nothing.

        Raises InvalidInput for a result that does not fit."""
        ...

    def skip(self, place: int) -> list[int]:
        """The place will not be computed: what is there stays. Returns as `arrived` does."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether every place has been put together or skipped."""
        ...

    def picture(self, longest_px: int) -> Image.Image | None:
        """How it looks now, small; None where there is nothing to look at."""
        ...
