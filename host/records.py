"""What the host tells, as plain records. Nothing here imports ComfyUI, so that rooms above can be tested without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Queued:
    """The host took the prompt. ``number`` is its place in the order of the queue."""

    prompt_id: str
    number: float
    node_errors: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """The host's validation refused the prompt, in the host's own words (both parts are JSON)."""

    error: dict[str, Any]
    node_errors: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a prompt ended: ``success``, ``error`` or ``interrupted``; for errors what the host recorded."""

    status: str
    exception_type: str = ""
    message: str = ""
    traceback: tuple[str, ...] = ()
    node_id: str = ""
    node_type: str = ""


@dataclass(frozen=True)
class ProgressSnapshot:
    """Where the running prompt stands: the node at work, its step of its steps, and nodes finished."""

    node_id: str
    value: float
    maximum: float
    finished_nodes: int


@dataclass(frozen=True)
class Preview:
    """The newest picture of the node at work. ``number`` grows with every new one of the same prompt.

    ``image`` belongs to the sampler that made it: to be read, never changed. ``max_px`` is the longest edge at which the
    host would show it; None = as it is.
    """

    node_id: str
    image: Image.Image
    max_px: int | None
    number: int


class HostScreen(Protocol):
    """What people see of this host, see `screen.Screen`. Nothing here raises; all of it may be called from any thread."""

    def listens(self, client_id: str) -> bool:
        """Whether a client of this id is connected."""
        ...

    def send_event(self, name: str, data: dict[str, Any], client_id: str | None = None) -> bool:
        """Sends a message of our own to one client, or to all. False if it is not JSON, and therefore was not sent."""
        ...

    def send_text(self, node_id: str, text: str, client_id: str) -> None:
        """Shows a text on a node, to one client."""
        ...

    def send_preview(self, jpeg: bytes, node_id: str, prompt_id: str, client_id: str) -> None:
        """Shows a JPEG on a node, to one client, as the host shows what a sampler is at."""
        ...


class HostQueue(Protocol):
    """The prompt queue of this host, see `queue.ComfyQueue`. Thread-safe. Sizes are counts of prompts."""

    async def submit(
        self, prompt: dict[str, Any], prompt_id: str, extra_data: dict[str, Any], *, targets: list[str] | None = None
    ) -> Queued | Refused:
        """Validates and queues a prompt."""
        ...

    def run_prompt_handlers(self, json_data: dict[str, Any]) -> dict[str, Any]:
        """Has the packs' prompt handlers look at a posted prompt."""
        ...

    def cancel(self, prompt_id: str) -> bool:
        """Ends exactly this prompt, waiting or running."""
        ...

    def live(self) -> tuple[list[str], list[str]]:
        """The ids of running and of waiting prompts."""
        ...

    def outcome(self, prompt_id: str) -> Outcome | None:
        """How the prompt ended."""
        ...

    def forget_outcome(self, prompt_id: str) -> None:
        """Takes the prompt out of the history."""
        ...


class PromptWatch(Protocol):
    """Tells when prompts start and end, see `execution.CachePromptWatch`."""

    @property
    def available(self) -> bool:
        """Whether this host tells at all."""
        ...

    def hold(self) -> None:
        """Starts to watch. Harmless when it does already."""
        ...

    def let_go(self) -> None:
        """Stops to watch. Harmless when it does not."""
        ...


MakeWatch = Callable[[Callable[[str], None], Callable[[str], None]], PromptWatch]
"""(started, ended) → a watch that calls them with the prompt's id, in the prompt thread."""
