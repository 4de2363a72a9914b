"""What the host tells, as plain records. Nothing here imports ComfyUI, so that rooms above can be tested without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol


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
