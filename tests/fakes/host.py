"""A host without ComfyUI: a prompt queue that runs nothing until a test says so, and the watch on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flotilla.host.records import Outcome, Queued, Refused


class FakeWatch:
    """Passes on what the fake queue does, while it is held."""

    def __init__(self, started: Callable[[str], None], ended: Callable[[str], None]) -> None:
        self.started = started
        self.ended = ended
        self.available = True
        self.held = False

    def hold(self) -> None:
        self.held = True

    def let_go(self) -> None:
        self.held = False


class FakeQueue:
    """Prompts wait until `start`, and run until `end`. ``refuse`` makes the host's validation refuse what follows."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.waiting: list[str] = []
        self.prompts: dict[str, dict[str, Any]] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.cancelled: list[str] = []
        self.refuse: Refused | None = None
        self.watch: FakeWatch | None = None

    def make_watch(self, started: Callable[[str], None], ended: Callable[[str], None]) -> FakeWatch:
        self.watch = FakeWatch(started, ended)
        return self.watch

    async def submit(
        self, prompt: dict[str, Any], prompt_id: str, extra_data: dict[str, Any], *, targets: list[str] | None = None
    ) -> Queued | Refused:
        if self.refuse is not None:
            return self.refuse
        self.prompts[prompt_id] = {"prompt": prompt, "extra_data": extra_data, "targets": targets}
        self.waiting.append(prompt_id)
        return Queued(prompt_id, len(self.prompts))

    def run_prompt_handlers(self, json_data: dict[str, Any]) -> dict[str, Any]:
        return json_data

    def cancel(self, prompt_id: str) -> bool:
        self.cancelled.append(prompt_id)
        if prompt_id in self.waiting:
            self.waiting.remove(prompt_id)
            return True
        if prompt_id in self.running:
            self.end(prompt_id, Outcome("interrupted"))
            return True
        return False

    def live(self) -> tuple[list[str], list[str]]:
        return list(self.running), list(self.waiting)

    def outcome(self, prompt_id: str) -> Outcome | None:
        return self.outcomes.get(prompt_id)

    # For tests

    def start(self, prompt_id: str) -> None:
        """The host begins to run the prompt."""
        self.waiting.remove(prompt_id)
        self.running.append(prompt_id)
        if self.watch is not None and self.watch.held:
            self.watch.started(prompt_id)

    def end(self, prompt_id: str, outcome: Outcome | None = None) -> None:
        """The prompt is over."""
        self.running.remove(prompt_id)
        self.outcomes[prompt_id] = outcome or Outcome("success")
        if self.watch is not None and self.watch.held:
            self.watch.ended(prompt_id)
