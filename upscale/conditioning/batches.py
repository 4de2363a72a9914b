"""Which rows of a batch belong to the frames of a chunk.

The host gives a batch of hints or of conditionings to a batch of latents in turn: latent f gets row f modulo the number of
rows. A chunk has to get the same rows as its frames would in one batch of them all.
"""

from __future__ import annotations

import torch

from ..place import Place


def hint_rows(batch: int, place: Place) -> list[int]:
    """The rows of an image hint with ``batch`` rows for the frames of ``place``; a single one is for all of them."""
    if batch == 1 or _needs_nothing(place, batch):
        return list(range(batch))
    return _rows(batch, place)


def frame_rows(batch: int, place: Place) -> list[int]:
    """The rows of something else that may have one row for each frame, or may mean something different by its rows.

    A batch that does not go evenly into the frames is nothing of theirs (a video's latent frames, say) and stays whole.
    """
    belongs = batch > 1 and (batch >= place.all_frames or place.all_frames % batch == 0)
    if not belongs or _needs_nothing(place, batch):
        return list(range(batch))
    return _rows(batch, place)


def for_frames(tensor: torch.Tensor, place: Place) -> torch.Tensor:
    """``[B, ...]`` without a place in the picture (text, say) for the batch of ``place``; B = 1 serves for all.

    Outside of parity a frame's row is repeated for each of its tiles.
    """
    rows = frame_rows(tensor.shape[0], place)
    tiles = 1 if place.parity or len(rows) == 1 else len(place.crops)
    if tiles == 1 and rows == list(range(tensor.shape[0])):
        return tensor
    return tensor[[row for row in rows for _ in range(tiles)]]


def _rows(batch: int, place: Place) -> list[int]:
    return [(place.first_frame + frame) % batch for frame in range(place.frames)]


def _needs_nothing(place: Place, batch: int) -> bool:
    """Whether the host itself gives each latent its row, so that nothing has to be repeated here."""
    return len(place.crops) == 1 and place.frames == place.all_frames and batch <= place.frames
