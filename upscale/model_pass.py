"""What an upscale model made of the tiles, put together: the picture at the model's own factor.

Source: ComfyUI's *Upscale Image (using Model)* node. Per pixel the weighted results are summed in the order of the tiles,
divided by the sum of weights, and clamped to 0..1; the result is that node's, bit for bit, as long as nothing ran out of
memory. Differences: results may come in any order; a pixel is settled, and with depth ``8bit`` quantised, as soon as all
tiles that cover it are here, so only overlaps are ever held as sums; in the end there is no float picture of that size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import torch

from ..utils.errors import InvalidInput
from .geometry import Box, Size
from .model_plan import Feather, ModelPlan, ModelTile, Segment, segments
from .pixels import COLOURS, Pixels, quantise
from .resampling import lanczos as resized
from .resampling import strips

CellKey = tuple[int, int, int]
"""Frame, and which segment of its rows and of its columns."""

_MODEL_CURE = "Use an upscale model that enlarges both sides by the same whole factor."


class ModelCanvas:
    """Gathers the results of a `ModelPlan`. For one thread.

    With ``size`` each frame is brought to that size by LANCZOS as soon as it is whole, so of a long clip few frames are
    held at the model's own size. ``held_bytes`` tells how much waits in overlaps for a neighbour.
    """

    def __init__(self, plan: ModelPlan, size: Size | None = None, depth: str = "8bit") -> None:
        """``depth`` is that of the result: ``8bit`` for uint8, ``float`` for float32."""
        self.plan = plan
        self.held_bytes = 0
        self._size = size
        self._type = np.uint8 if depth == "8bit" else np.float32
        self._scale = 0
        self._rows: tuple[Segment, ...] = ()
        self._columns: tuple[Segment, ...] = ()
        self._feathers: dict[Size, Feather] = {}
        self._cells: dict[CellKey, dict[int, torch.Tensor]] = {}
        self._frames: dict[int, Pixels] = {}
        self._result: Pixels | None = None
        self._missing = set(range(len(plan.tiles)))
        self._missing_of = Counter(tile.frame for tile in plan.tiles)
        self._skipped: dict[int, torch.Tensor] = {}

    @property
    def is_complete(self) -> bool:
        """Whether every tile is here, or was skipped."""
        return not self._missing

    def put(self, number: int, pixels: torch.Tensor | Pixels) -> bool:
        """Takes the model's result for a tile: float ``[1, h·s, w·s, 3]``, not clamped. The first one wins.

        False if there was one before. Raises InvalidInput for a shape that does not fit: ``s`` is a whole number from 1,
        the same for all tiles.
        """
        tile = self.plan.tiles[number]
        values = torch.as_tensor(pixels)
        scale = self._scale_of(tile, values)
        if number not in self._missing:
            return False
        self._missing.discard(number)
        self._learn(scale)
        self._add(tile, values)
        return True

    def skip(self, number: int, pixels: torch.Tensor | Pixels) -> bool:
        """Takes the tile's source pixels, ``[1, h, w, 3]``, in place of a result that will never come; resized by LANCZOS.

        False if there was a result, or if it was skipped before.
        """
        if number not in self._missing:
            return False
        self._missing.discard(number)
        self._skipped[number] = torch.as_tensor(pixels).to("cpu", torch.float32)
        if self._scale:
            self._fill()
        return True

    def finish(self) -> Pixels:
        """The whole batch, ``[batch, H, W, 3]``: uint8, float32 with depth ``float``. Raises RuntimeError if tiles lack."""
        if self._missing:
            raise RuntimeError(f"{len(self._missing)} tiles of the model pass are not here")
        if not self._scale:  # the model never ran
            self._learn(1)
        assert self._result is not None
        return self._result

    def _scale_of(self, tile: ModelTile, values: torch.Tensor) -> int:
        shape = list(values.shape)
        if values.ndim == 4:
            scale = self._scale or shape[1] // tile.box.height
            if scale and shape == [1, tile.box.height * scale, tile.box.width * scale, COLOURS]:
                return scale
        source = [1, tile.box.height, tile.box.width, COLOURS]
        raise InvalidInput(f"The upscale model made {shape} of a tile of the shape {source}.", cure=_MODEL_CURE)

    def _learn(self, scale: int) -> None:
        """The model's factor is known: from here on pixels of the result have a place."""
        if self._scale:
            return
        self._scale = scale
        self._rows = segments(self.plan.rows, scale)
        self._columns = segments(self.plan.columns, scale)
        self._size = self._size or self._native
        self._result = np.empty((self.plan.batch, self._size.height, self._size.width, COLOURS), self._type)
        self._fill()

    @property
    def _native(self) -> Size:
        return Size(self.plan.source.width * self._scale, self.plan.source.height * self._scale)

    def _fill(self) -> None:
        """Resizes the source pixels of skipped tiles into their places."""
        for number in sorted(self._skipped):
            tile = self.plan.tiles[number]
            size = Size(tile.box.width * self._scale, tile.box.height * self._scale)
            pixels = resized(self._skipped.pop(number)[0].numpy(), size)
            self._add(tile, torch.from_numpy(np.array(pixels))[None])

    def _add(self, tile: ModelTile, values: torch.Tensor) -> None:
        """Cuts a result along the edges of all tiles, and settles what has come together."""
        values = values[0].to("cpu", torch.float32)
        across = len(self.plan.columns)
        row, column = divmod(tile.number - tile.frame * len(self.plan.rows) * across, across)
        corner = self._corner(tile.box)
        for row_place, rows in enumerate(self._rows):
            if row not in rows.tiles:
                continue
            for column_place, columns in enumerate(self._columns):
                if column not in columns.tiles:
                    continue
                box = Box(columns.start, rows.start, columns.end, rows.end)
                inside = box.moved(-corner[0], -corner[1])
                piece = values[inside.y1 : inside.y2, inside.x1 : inside.x2]
                key = (tile.frame, row_place, column_place)
                self._collect(key, tile.number, piece, box, len(rows.tiles) * len(columns.tiles))
        self._missing_of[tile.frame] -= 1
        if not self._missing_of[tile.frame]:
            self._conclude(tile.frame)

    def _collect(self, key: CellKey, number: int, piece: torch.Tensor, box: Box, wanted: int) -> None:
        pieces = self._cells.pop(key, {})
        if len(pieces) + 1 < wanted:
            pieces[number] = piece.clone()
            self.held_bytes += _size_bytes(piece)
            self._cells[key] = pieces
            return
        self.held_bytes -= sum(map(_size_bytes, pieces.values()))
        self._settle(key[0], box, {**pieces, number: piece})

    def _settle(self, frame: int, box: Box, pieces: Mapping[int, torch.Tensor]) -> None:
        """Writes the pixels of ``box``, of which ``pieces`` are all that the tiles say."""
        target = self._picture(frame)
        for part in strips(box.height, box.width):
            strip = Box(box.x1, box.y1 + part.start, box.x2, box.y1 + part.stop)
            target[strip.y1 : strip.y2, strip.x1 : strip.x2] = self._final(
                strip, {number: piece[part] for number, piece in pieces.items()}
            )

    def _final(self, box: Box, pieces: Mapping[int, torch.Tensor]) -> Pixels:
        if len(self.plan.rows) == len(self.plan.columns) == 1:  # then the host does not weigh
            total = next(iter(pieces.values()))
        else:
            total = torch.zeros(box.height, box.width, COLOURS)
            divisor = torch.zeros(box.height, box.width, 1)
            for number in sorted(pieces):
                weights = self._weights(self.plan.tiles[number].box, box)
                total.add_(pieces[number] * weights)
                divisor.add_(weights)
            total.div_(divisor)
        clamped = torch.clamp(total, min=0.0, max=1.0).numpy()
        return quantise(clamped) if self._type is np.uint8 else clamped

    def _weights(self, tile: Box, box: Box) -> torch.Tensor:
        size = Size(tile.width * self._scale, tile.height * self._scale)
        if size not in self._feathers:
            self._feathers[size] = Feather(size, self.plan.overlap * self._scale)
        corner = self._corner(tile)
        return self._feathers[size].weights(box.moved(-corner[0], -corner[1]))

    def _corner(self, tile: Box) -> tuple[int, int]:
        return tile.x1 * self._scale, tile.y1 * self._scale

    def _picture(self, frame: int) -> Pixels:
        """Where a frame is put together: in the result itself if it has the model's size."""
        assert self._result is not None
        if self._size == self._native:
            whole: Pixels = self._result[frame]
            return whole
        if frame not in self._frames:
            self._frames[frame] = np.empty((self._native.height, self._native.width, COLOURS), self._type)
        return self._frames[frame]

    def _conclude(self, frame: int) -> None:
        """A frame is whole: brings it to the size of the result, if it was put together elsewhere."""
        native = self._frames.pop(frame, None)
        if native is None or self._result is None or self._size is None:
            return
        for colour in range(COLOURS):  # one at a time: Pillow's own copies are then of one byte per pixel
            self._result[frame, ..., colour] = resized(np.ascontiguousarray(native[..., colour]), self._size)


def lanczos(pixels: Pixels, size: Size) -> Pixels:
    """Every picture of ``[batch, h, w, 3]`` resized to ``size`` by LANCZOS: uint8 in 8 bits, float32 unclamped."""
    return np.stack([resized(picture, size) for picture in pixels])


def _size_bytes(piece: torch.Tensor) -> int:
    return piece.numel() * piece.element_size()
