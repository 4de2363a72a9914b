"""What the sampling of a task must know of where it lies, as plain data that travels with the pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..utils.errors import InvalidInput
from .geometry import Box, Size
from .tasks import CANVAS_SIDE_PX, STAGES, TILE_BATCH

SIDE_PX = (1, CANVAS_SIDE_PX[1])
FRAMES = (1, 1 << 24)


@dataclass(frozen=True)
class Place:
    """One task x one chunk of frames. Lengths in pixels.

    ``source``: size of the image before the upscale, from which positions in conditioning are reckoned. ``crops``: one for
    each tile of the task, on the canvas. ``size``: at which they are sampled. ``first_frame``, ``frames``: the chunk of
    the ``all_frames`` images of the batch. ``parity``: the pixels must be those of the reference. Raises `InvalidInput`
    if these contradict each other.
    """

    canvas: Size
    source: Size
    crops: tuple[Box, ...]
    size: Size
    first_frame: int
    frames: int
    all_frames: int
    parity: bool
    stage: str

    def __post_init__(self) -> None:
        """Check that everything lies where it can."""
        for name in ("canvas", "source", "size"):
            for side in getattr(self, name):
                _require(SIDE_PX[0] <= side <= SIDE_PX[1], f"its {name} has a side of {side} pixels")
        _require(TILE_BATCH[0] <= len(self.crops) <= TILE_BATCH[1], f"it has {len(self.crops)} tiles")
        whole = Box(0, 0, *self.canvas)
        for crop in self.crops:
            _require(crop.intersect(whole) == crop, f"its tile {tuple(crop)} does not lie on the canvas")
        _require(FRAMES[0] <= self.all_frames <= FRAMES[1], f"it is of a batch of {self.all_frames} images")
        _require(
            self.frames >= 1 and 0 <= self.first_frame <= self.all_frames - self.frames,
            f"its {self.frames} frames from {self.first_frame} on are not among the batch's {self.all_frames}",
        )
        _require(self.stage in STAGES, f"its stage is {self.stage!r}")

    def to_json(self) -> dict[str, Any]:
        """Numbers, lists and strings that `from_json` takes."""
        return {
            "canvas": list(self.canvas),
            "source": list(self.source),
            "crops": [list(crop) for crop in self.crops],
            "size": list(self.size),
            "first_frame": self.first_frame,
            "frames": self.frames,
            "all_frames": self.all_frames,
            "parity": self.parity,
            "stage": self.stage,
        }

    @classmethod
    def from_json(cls, data: object) -> Place:
        """The place that `to_json` told of. Raises `InvalidInput` for anything else."""
        names = {field.name for field in fields(cls)}
        if not isinstance(data, Mapping) or set(data) != names:
            raise _not_a_place(f"it must have exactly {', '.join(sorted(names))}")
        crops = data["crops"]
        _require(isinstance(crops, list), "its crops are no list")
        parity, stage = data["parity"], data["stage"]
        _require(isinstance(parity, bool), "parity is neither true nor false")
        _require(isinstance(stage, str), "its stage is no text")
        first_frame, frames, all_frames = _integers(
            [data[name] for name in ("first_frame", "frames", "all_frames")], 3, "frames"
        )
        return cls(
            canvas=Size(*_integers(data["canvas"], 2, "canvas")),
            source=Size(*_integers(data["source"], 2, "source")),
            crops=tuple(Box(*_integers(crop, 4, "crops")) for crop in crops),
            size=Size(*_integers(data["size"], 2, "size")),
            first_frame=first_frame,
            frames=frames,
            all_frames=all_frames,
            parity=parity,
            stage=stage,
        )


def _integers(values: object, count: int, name: str) -> Sequence[int]:
    if not isinstance(values, list) or len(values) != count or any(type(value) is not int for value in values):
        raise _not_a_place(f"its {name} must be {count} whole numbers")
    return values


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise _not_a_place(problem)


def _not_a_place(problem: str) -> InvalidInput:
    return InvalidInput(
        f"The place of a tile cannot be read: {problem}.", cure="Use the same version on all instances."
    )
