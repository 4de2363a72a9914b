"""The pictures that samplers make while they work, as the host's progress shows them.

The host has a registry of progress, a new one for every prompt, and handlers registered with it. Ours keeps the newest
picture. It is registered when somebody first asks about the running prompt, and goes with that prompt's registry.
"""

from __future__ import annotations

from typing import Any

from comfy_execution.progress import ProgressHandler, get_progress_state
from PIL import Image

from .records import Preview

NAME = "flotilla"


class _Keeper(ProgressHandler):
    """Keeps the newest picture. Called in the prompt thread, read from any other."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self.newest: Preview | None = None

    def update_handler(
        self, node_id: str, value: float, max_value: float, state: Any, prompt_id: str, image: Any = None
    ) -> None:
        """The host's: ``image`` is None or (format, PIL image, longest edge to show it at). An error here would be the
        node's, so whatever else a pack may send is passed over."""
        if isinstance(image, (tuple, list)) and len(image) > 2 and isinstance(image[1], Image.Image):
            number = self.newest.number + 1 if self.newest is not None else 1
            self.newest = Preview(node_id, image[1], image[2] if isinstance(image[2], int) else None, number)

    def reset(self) -> None:
        """The host's: the next prompt begins."""
        self.newest = None


def latest_preview(prompt_id: str) -> Preview | None:
    """The newest picture of ``prompt_id`` since this was first asked, if it is the prompt now running. Any thread."""
    registry = get_progress_state()
    handlers = registry.handlers
    if registry.prompt_id != prompt_id or not handlers:  # none: the host has not yet set this registry up
        return None
    keeper = handlers.get(NAME)
    if keeper is None:
        # As `register_handler` does, but in a new dictionary: the prompt thread may be iterating over this one.
        registry.handlers = {**handlers, NAME: _Keeper()}
        return None
    newest: Preview | None = keeper.newest
    return newest
