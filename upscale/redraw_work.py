"""The redraw of a picture by a diffusion model, tile by tile, as work that can be shared out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..graph.classes import TILE
from ..transport.values import IMAGE, Value
from ..utils.errors import InvalidInput
from .canvas import Canvas, blend_task, cut_task
from .geometry import Size
from .one_tile import Sampling, redraw
from .order import Board, order_of
from .place import Place
from .tasks import Layout, Task, plan_tasks
from .work import PIXELS, Models, Values

CHANNELS = 3
ROOTS = ("model", "positive", "negative", "vae", "custom_sampler", "custom_sigmas")


class RedrawWork:
    """A `work.TileWork`. Every chunk of frames passes through all tasks, apart from the other chunks."""

    root_class: str = TILE
    roots: tuple[str, ...] = ROOTS

    def __init__(
        self,
        canvas: Canvas,
        layout: Layout,
        sampling: Sampling,
        *,
        source: Size,
        chunks: Sequence[range],
        seam_denoise: float | None = None,
    ) -> None:
        """
        Args:
            canvas: the picture, which is changed in place.
            layout: how it is cut.
            sampling: how a tile is redrawn.
            source: the size of the input picture, in pixels, which regions in conditioning are given for.
            chunks: frames that are sampled together; all frames of the canvas, in order.
            seam_denoise: for seam fixes, where it is not that of the other tiles; 0 to 1.
        """
        self._canvas = canvas
        self._layout = layout
        self._tasks = plan_tasks(layout)
        self._sampling = sampling
        self._seams = sampling if seam_denoise is None else replace(sampling, denoise=seam_denoise)
        self._source = source
        self._chunks = list(chunks)
        order = order_of(self._tasks)
        self._boards = [Board(order) for _ in self._chunks]
        self._landed: dict[int, np.ndarray] = {}  # here, and not yet blended
        self.critical_path = order.critical_path
        self.count = len(self._tasks) * len(self._chunks)

    def start(self) -> list[int]:
        """See `work.TileWork`."""
        return [self._place(chunk, number) for chunk, board in enumerate(self._boards) for number in board.start()]

    def describe(self, place: int) -> dict[str, Any]:
        """See `work.TileWork`: the pass, the tiles' columns, rows and boxes in pixels, and the frames."""
        task, frames = self._at(place)
        return {
            "pass": task.stage,
            "tiles": [{"column": tile.xi, "row": tile.yi, "box": list(tile.mask.bounds)} for tile in task.tiles],
            "canvas": list(self._layout.canvas),
            "frames": [frames.start, frames.stop],
        }

    def root_inputs(self, place: int) -> dict[str, Any]:
        """See `work.TileWork`."""
        task, _ = self._at(place)
        return {"place": self._place_of(place).to_json(), "sampling": self._sampling_of(task).to_json()}

    def size_bytes(self, place: int) -> int:
        """See `work.TileWork`."""
        task, frames = self._at(place)
        size = task.tiles[0].window.size
        width_bytes = 1 if self._canvas.depth == "8bit" else np.dtype(np.float32).itemsize
        return len(frames) * len(task.tiles) * size.width * size.height * CHANNELS * width_bytes

    def cut(self, place: int) -> Values:
        """See `work.TileWork`."""
        task, frames = self._at(place)
        return {PIXELS: Value(IMAGE, torch.from_numpy(cut_task(self._canvas, task, frames)))}

    def compute(self, place: int, models: Models, values: Values) -> torch.Tensor:
        """See `work.TileWork`."""
        task, _ = self._at(place)
        return redrawn(models, self._sampling_of(task), self._place_of(place), values)

    def arrived(self, place: int, values: Values) -> list[int]:
        """See `work.TileWork`."""
        chunk, number = divmod(place, len(self._tasks))
        board = self._boards[chunk]
        if board.has_arrived(number):
            return []
        self._landed[place] = self._checked(place, values)
        return self._blend(chunk, board.arrived(number))

    def skip(self, place: int) -> list[int]:
        """See `work.TileWork`."""
        chunk, number = divmod(place, len(self._tasks))
        to_blend, ready = self._boards[chunk].skipped(number)
        return [self._place(chunk, one) for one in ready] + self._blend(chunk, to_blend)

    @property
    def is_over(self) -> bool:
        """See `work.TileWork`."""
        return all(board.is_over for board in self._boards)

    def picture(self, longest_px: int) -> Image.Image | None:
        """See `work.TileWork`."""
        return self._canvas.picture(0, longest_px)

    def result(self) -> torch.Tensor:
        """The picture, float32 [B, H, W, 3]. Once it is over."""
        return self._canvas.result()

    def _blend(self, chunk: int, numbers: Sequence[int]) -> list[int]:
        ready: list[int] = []
        for number in numbers:
            place = self._place(chunk, number)
            blend_task(self._canvas, self._tasks[number], self._chunks[chunk], self._landed.pop(place))
            ready += [self._place(chunk, one) for one in self._boards[chunk].blended(number)]
        return ready

    def _place(self, chunk: int, number: int) -> int:
        return chunk * len(self._tasks) + number

    def _at(self, place: int) -> tuple[Task, range]:
        chunk, number = divmod(place, len(self._tasks))
        return self._tasks[number], self._chunks[chunk]

    def _sampling_of(self, task: Task) -> Sampling:
        return self._seams if task.is_seam else self._sampling

    def _place_of(self, place: int) -> Place:
        task, frames = self._at(place)
        return Place(
            canvas=self._layout.canvas,
            source=self._source,
            crops=tuple(tile.window.crop for tile in task.tiles),
            size=task.tiles[0].window.size,
            first_frame=frames.start,
            frames=len(frames),
            all_frames=self._canvas.batch,
            parity=self._layout.is_parity,
            stage=task.stage,
        )

    def _checked(self, place: int, values: Values) -> np.ndarray:
        """The pixels of a result. Raises InvalidInput for what is none of this place."""
        task, frames = self._at(place)
        value = values.get(PIXELS)
        tensor = value.data if value is not None else None
        wanted = torch.uint8 if self._canvas.depth == "8bit" else torch.float32
        rows = len(frames) * len(task.tiles)
        fits = (
            isinstance(tensor, torch.Tensor)
            and tensor.dtype == wanted
            and tensor.dim() == 4
            and tensor.shape[0] == rows
            and tensor.shape[3] == CHANNELS
            and tensor.numel() > 0
        )
        if not fits or not isinstance(tensor, torch.Tensor):
            found = f"{list(tensor.shape)} of {tensor.dtype}" if isinstance(tensor, torch.Tensor) else "none"
            raise InvalidInput(f"The redrawn pixels of a tile do not fit: {found}, where {rows} pictures were wanted.")
        return tensor.numpy()


def redrawn(models: Models, sampling: Sampling, place: Place, values: Values) -> torch.Tensor:
    """The redrawn pixels of a place."""
    return torch.from_numpy(redraw(models, sampling, place, values[PIXELS].data.numpy()))
