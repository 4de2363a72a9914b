"""The pass of an upscale model over a picture, as work that can be shared out: tiles of the source, in any order."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from ..graph.classes import MODEL_TILE
from ..host.upscalers import run_tile
from ..transport.values import IMAGE, Value
from .geometry import Size
from .model_pass import ModelCanvas
from .model_plan import ModelPlan
from .pixels import Pixels
from .work import PIXELS, Models, Values


class ModelWork:
    """A `work.TileWork`."""

    root_class: str = MODEL_TILE
    roots: tuple[str, ...] = ("upscale_model",)

    def __init__(self, image: torch.Tensor | Pixels, size: Size | None, depth: str, *, clamp: bool) -> None:
        """``image`` is ``[B, h, w, C]``, float or uint8; the result has ``size`` (None: as the model makes it), and is
        uint8 with ``depth`` 8bit, else float32. ``clamp`` as in `pixels.quantise`."""
        self._image = image
        self._plan = ModelPlan(Size(int(image.shape[2]), int(image.shape[1])), int(image.shape[0]))
        self._canvas = ModelCanvas(self._plan, size, depth)
        self._depth = depth
        self._clamp = clamp
        self.count = len(self._plan.tiles)

    def start(self) -> list[int]:
        """See `work.TileWork`: no tile depends on another."""
        return list(range(self.count))

    def describe(self, place: int) -> dict[str, Any]:
        """See `work.TileWork`; boxes are of the source."""
        tile = self._plan.tiles[place]
        return {
            "pass": "upscale model",
            "tiles": [{"box": list(tile.box)}],
            "canvas": list(self._plan.source),
            "frames": [tile.frame, tile.frame + 1],
        }

    def root_inputs(self, place: int) -> dict[str, Any]:
        """See `work.TileWork`: a tile is nothing but its pixels."""
        return {}

    def size_bytes(self, place: int) -> int:
        """See `work.TileWork`."""
        box = self._plan.tiles[place].box
        return box.width * box.height * 3 * np.dtype(np.float32).itemsize

    def cut(self, place: int) -> Values:
        """See `work.TileWork`."""
        return {PIXELS: Value(IMAGE, torch.from_numpy(self._cut(place)))}

    def compute(self, place: int, models: Models, values: Values) -> torch.Tensor:
        """See `work.TileWork`."""
        return run_tile(models.upscale_model, values[PIXELS].data)

    def arrived(self, place: int, values: Values) -> list[int]:
        """See `work.TileWork`."""
        self._canvas.put(place, values[PIXELS].data)
        return []

    def skip(self, place: int) -> list[int]:
        """See `work.TileWork`."""
        self._canvas.skip(place, self._cut(place))
        return []

    @property
    def is_over(self) -> bool:
        """See `work.TileWork`."""
        return self._canvas.is_complete

    def picture(self, longest_px: int) -> Image.Image | None:
        """See `work.TileWork`: what follows has more to show."""
        return None

    def result(self) -> Pixels:
        """The picture, ``[B, H, W, 3]`` of its size. Once it is over."""
        return self._canvas.finish()

    def _cut(self, place: int) -> Pixels:
        return self._plan.cut(self._image, place, self._depth, clamp=self._clamp)
