"""What a worker tells of the item it is at: the step in words, and the sampler's newest picture."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping
from typing import Any

from ..graph.classes import MODEL_TILE, TILE
from ..host.records import Preview, ProgressSnapshot
from ..utils.clock import Clock
from ..utils.log import get_logger
from . import pictures

log = get_logger("previews")

MIN_PREVIEW_S = 0.5
"""An item's pictures are at least so far apart."""


class PreviewSource:
    """Turns the pictures of the running prompt into what the link carries. On the server's loop.

    A host runs one prompt at a time, so only one is remembered.
    """

    def __init__(self, latest: Callable[[str], Preview | None], clock: Clock) -> None:
        """``latest`` is `host.previews.latest_preview`."""
        self._latest = latest
        self._clock = clock
        self._prompt_id = ""
        self._number = 0
        self._next_s = 0.0
        self._busy = False

    async def next(self, prompt_id: str) -> dict[str, Any] | None:
        """A new picture as the fields of an `ItemPreview` (node_id, format, data, width, height), or None when there is
        none since the last one, when that is less than `MIN_PREVIEW_S` ago, or when it cannot be encoded. Never raises."""
        if self._busy:
            return None
        if prompt_id != self._prompt_id:
            self._prompt_id, self._number, self._next_s = prompt_id, 0, self._clock.now_s()
        # Asked for every time: the host's pictures are watched from the first question on.
        preview = self._latest(prompt_id)
        if preview is None or preview.number == self._number or self._clock.now_s() < self._next_s:
            return None
        self._number = preview.number
        self._next_s = self._clock.now_s() + MIN_PREVIEW_S
        self._busy = True
        try:
            picture = await asyncio.to_thread(_encode, preview)
        except Exception as error:  # a picture may be anything that some pack's sampler made
            log.debug("a preview could not be encoded", error=error)
            return None
        finally:
            self._busy = False
        return {
            "node_id": preview.node_id,
            "format": "jpeg",
            "data": base64.b64encode(picture.jpeg).decode("ascii"),
            "width": picture.width,
            "height": picture.height,
        }


def _encode(preview: Preview) -> pictures.Picture:
    return pictures.encode(preview.image, min(preview.max_px or pictures.MAX_EDGE_PX, pictures.MAX_EDGE_PX))


OWN_NAMES = {TILE: "Redraw", MODEL_TILE: "Enlarge"}
"""How nodes that people have not placed are called for them."""


def step_label(prompt: Mapping[str, Any], seen: ProgressSnapshot) -> str:
    """Where the prompt is, for people: ``KSampler 12/20``, or ``VAEDecode`` for a node that tells no steps."""
    node = prompt.get(seen.node_id)
    if not isinstance(node, Mapping):
        return ""
    class_type = str(node.get("class_type", ""))
    name = OWN_NAMES.get(class_type, class_type)
    return f"{name} {seen.value:g}/{seen.maximum:g}" if seen.maximum > 1 else name
