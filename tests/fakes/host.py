"""A host without ComfyUI: a prompt queue that runs nothing until a test says so, and the watch on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flotilla.host.records import Outcome, Queued, Refused


@dataclass
class FakeScreen:
    """Remembers what it is to show, for the clients that a test says are connected."""

    clients: set[str] = field(default_factory=set)
    events: list[tuple[str, dict[str, Any], str | None]] = field(default_factory=list)
    texts: list[tuple[str, str, str]] = field(default_factory=list)
    previews: list[tuple[bytes, str, str, str]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def listens(self, client_id: str) -> bool:
        return bool(client_id) and client_id in self.clients

    def send_event(self, name: str, data: dict[str, Any], client_id: str | None = None) -> bool:
        try:
            self.events.append((name, json.loads(json.dumps(data, allow_nan=False)), client_id))
        except (TypeError, ValueError, RecursionError):
            return False
        self.changed.set()
        return True

    def send_text(self, node_id: str, text: str, client_id: str) -> None:
        if self.listens(client_id):
            self.texts.append((node_id, text, client_id))
            self.changed.set()

    def send_preview(self, jpeg: bytes, node_id: str, prompt_id: str, client_id: str) -> None:
        if self.listens(client_id):
            self.previews.append((jpeg, node_id, prompt_id, client_id))
            self.changed.set()

    # For tests

    def of(self, name: str) -> list[dict[str, Any]]:
        """The messages of one name, in order."""
        return [data for told, data, _client in self.events if told == name]


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

    def forget_outcome(self, prompt_id: str) -> None:
        self.outcomes.pop(prompt_id, None)

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
