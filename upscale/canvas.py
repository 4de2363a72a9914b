"""The picture while it is redrawn tile by tile.

Source: facts 1, 2, 11 and 14 of the reference (`ssitu/ComfyUI_UltimateSDUpscale` and Coyote-A's script). Differences: the
canvas is the output tensor itself, of which each step touches one region; a lossless depth; batches are cut frame by frame.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from PIL import Image

from ..transport.memory import passing
from ..utils.errors import InvalidInput
from .blending import over_8bit, over_float
from .geometry import Size
from .pixels import COLOURS, Pixels, floats, rgb, unit_into
from .pixels import quantise as quantise
from .resampling import lanczos, lanczos_8bit, lanczos_float, strips
from .tasks import Task, Tile

Depth = Literal["8bit", "float"]
Allocate = Callable[[tuple[int, ...]], torch.Tensor]


def _fresh(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float32)


class Canvas:
    """A float32 tensor ``[batch, height, width, 3]`` on the CPU, which in the end is the node's output.

    With depth ``8bit`` it holds nothing but ``v / 255`` of 8-bit values ``v``, which make the way there and back exactly;
    so there is no second copy. With ``float`` values are kept as they are, also outside of 0 to 1; only NaN becomes 0 and
    infinities the largest numbers. Use it from one thread; `picture` may be called from any.
    """

    def __init__(
        self,
        image: torch.Tensor | Pixels,
        size: Size,
        depth: Depth = "8bit",
        allocate: Allocate | None = None,
        *,
        clamp: bool = False,
        keep_source: bool = True,
    ) -> None:
        """The canvas before the first tile: ``image`` quantised, resized by LANCZOS if it is not of ``size``.

        ``image`` is ``[batch, h, w, channels]``, floats or uint8: one channel is grey, a fourth (alpha) and more are dropped.
        ``allocate`` provides the float32 tensor of a shape. ``clamp`` cuts off what is outside of 0 to 1 before it is
        quantised (see `quantise`; the reference does not, so parity modes must not). Without ``keep_source`` nothing can be
        cut ``from_source``, and less is held: the input, or if it was resized a second canvas (in 8 bits with depth ``8bit``).

        Beside tensor and input this takes a few strips; if it resizes, for that time about three bytes (float: four) for
        each pixel of one picture more. Raises InvalidInput for other shapes or depths.
        """
        if depth not in ("8bit", "float"):
            raise InvalidInput(f"A canvas cannot have the depth {depth!r}.", cure="Use 8bit or float.")
        if image.ndim != 4 or image.shape[-1] == 2 or 0 in image.shape:
            raise InvalidInput(
                f"An image of the shape {list(image.shape)} cannot be upscaled.",
                cure="Give an image batch of the shape [batch, height, width, channels] with 1, 3 or 4 channels.",
            )
        self.batch = int(image.shape[0])
        self.size = size
        self.depth = depth
        self._clamp = clamp
        self._tensor = (allocate or _fresh)((self.batch, size.height, size.width, COLOURS))
        self._pixels: Pixels = self._tensor.numpy()
        given = Size(int(image.shape[2]), int(image.shape[1]))
        self._source: torch.Tensor | Pixels | None = image if keep_source and given == size else None
        if given == size:
            for frame in range(self.batch):
                for part in strips(size.height, size.width):
                    self._write(self._pixels[frame, part], self._read(image, frame, part, slice(None)))
            return
        for frame in range(self.batch):
            self._resize(image, frame, given)
        if keep_source:
            self._source = self._copy()

    def cut(self, tile: Tile, frames: range, *, from_source: bool = False) -> Pixels:
        """The tile's crop at its processing size, ``[len(frames), h, w, 3]``: uint8, float32 with depth ``float``.

        ``from_source`` cuts from the canvas as it was before the first tile.
        """
        source: torch.Tensor | Pixels = self._pixels
        if from_source:
            if self._source is None:
                raise ValueError("the canvas was made without keep_source")
            source = self._source
        crop, size = tile.window
        kind = torch.uint8 if self.depth == "8bit" else torch.float32
        cut: Pixels = passing((len(frames), size.height, size.width, COLOURS), kind).numpy()
        rows, columns = slice(crop.y1, crop.y2), slice(crop.x1, crop.x2)
        for place, frame in enumerate(frames):
            cut[place] = lanczos(self._read(source, frame, rows, columns), size)
        return cut

    def blend(self, tile: Tile, frames: range, pixels: Pixels) -> None:
        """Lays the redrawn tile over the frames where its mask reaches.

        ``pixels`` is ``[len(frames), h, w, 3]``, uint8 or (float) float32. Any h and w will do, as a decoder may give
        other sizes than it was asked for: the tile is resized by LANCZOS to the crop. Raises InvalidInput for others.
        """
        kind = np.uint8 if self.depth == "8bit" else np.float32
        good = pixels.ndim == 4 and len(pixels) == len(frames) and pixels.shape[3] == COLOURS and pixels.dtype == kind
        if not good or 0 in pixels.shape[1:]:
            raise InvalidInput(
                f"A tile of {len(frames)} frames came back as {pixels.dtype} of the shape {list(pixels.shape)}.",
                cure="All participants need the same version of Flotilla.",
            )
        crop, touch = tile.window.crop, tile.touch
        if touch.width <= 0 or touch.height <= 0:
            return
        alpha = tile.mask.alpha(touch)
        rows, columns = slice(touch.y1, touch.y2), slice(touch.x1, touch.x2)
        inside = touch.moved(-crop.x1, -crop.y1)
        for overlay, frame in zip(pixels, frames, strict=True):
            fitted = lanczos(overlay if self.depth == "8bit" else floats(overlay), Size(crop.width, crop.height))
            part = np.ascontiguousarray(fitted[inside.y1 : inside.y2, inside.x1 : inside.x2])
            below = self._read(self._pixels, frame, rows, columns)
            over = over_8bit if self.depth == "8bit" else over_float
            self._write(self._pixels[frame, rows, columns], over(below, part, alpha))

    def result(self) -> torch.Tensor:
        """The tensor itself, not a copy."""
        return self._tensor

    def picture(self, frame: int, longest_px: int) -> Image.Image:
        """A small RGB picture of a frame as it is now, its longer side at most ``longest_px``; pixels are left out."""
        step = max(1, -(-max(self.size) // longest_px))
        return Image.fromarray(quantise(self._pixels[frame, ::step, ::step], clamp=True))

    def _read(self, source: torch.Tensor | Pixels, frame: int, rows: slice, columns: slice) -> Pixels:
        """A region in the form that the depth works in, contiguous."""
        region = source[frame, rows, columns, :COLOURS]
        values = quantise(region, clamp=self._clamp) if self.depth == "8bit" else floats(region)
        return np.ascontiguousarray(rgb(values))

    def _write(self, target: Pixels, values: Pixels) -> None:
        if self.depth == "8bit":
            unit_into(target, values)
        else:
            target[...] = values

    def _resize(self, image: torch.Tensor | Pixels, frame: int, given: Size) -> None:
        """Fills a frame of the canvas with the resized image, colour by colour to save memory."""
        resized = lanczos_8bit if self.depth == "8bit" else lanczos_float
        for colour in range(COLOURS):

            def rows_of(rows: slice, colour: int = colour) -> Pixels:
                return np.ascontiguousarray(self._read(image, frame, rows, slice(None))[..., colour])

            for rows, columns, values in resized(rows_of, given, self.size):
                self._write(self._pixels[frame, rows, columns, colour], values)

    def _copy(self) -> Pixels:
        """The canvas as it is now; with depth ``8bit`` a quarter of its size."""
        if self.depth == "float":
            return self._pixels.copy()
        copy = np.empty(self._pixels.shape, np.uint8)
        for frame in range(self.batch):
            for part in strips(self.size.height, self.size.width):
                copy[frame, part] = quantise(self._pixels[frame, part])
        return copy


def cut_task(canvas: Canvas, task: Task, frames: range) -> Pixels:
    """The pixels of all tiles of a task: for each frame its tiles in order, ``[len(frames) · tiles, h, w, 3]``."""
    cuts = [canvas.cut(tile, frames, from_source=task.from_source) for tile in task.tiles]
    if len(cuts) == 1:
        return cuts[0]
    return np.stack(cuts, axis=1).reshape(-1, *cuts[0].shape[1:])


def blend_task(canvas: Canvas, task: Task, frames: range, pixels: Pixels) -> None:
    """Blends the tiles of a task in their order; ``pixels`` lie as `cut_task` gives them."""
    for place, tile in enumerate(task.tiles):
        canvas.blend(tile, frames, pixels[place :: len(task.tiles)])
