"""The host's prompt queue, from within the process: put, cancel, look."""

from __future__ import annotations

import time
from typing import Any

import execution
from server import PromptServer

import nodes

from .records import Outcome, Queued, Refused


class ComfyQueue:
    """Thread-safe, as the host's queue is. Sizes are counts of prompts."""

    @property
    def _server(self) -> Any:
        return PromptServer.instance

    @property
    def _queue(self) -> Any:
        return PromptServer.instance.prompt_queue

    async def submit(
        self, prompt: dict[str, Any], prompt_id: str, extra_data: dict[str, Any], *, targets: list[str] | None = None
    ) -> Queued | Refused:
        """Validates and queues ``prompt`` as ``POST /prompt`` would. ``prompt`` is changed in place by the host.

        ``extra_data`` shows up in the host's queue and history: JSON only, no secrets, apart from the host's own keys.
        """
        server = self._server
        server.node_replace_manager.apply_replacements(prompt)
        valid, error, outputs, node_errors = await execution.validate_prompt(prompt_id, prompt, targets)
        if not valid:
            return Refused(error=error if isinstance(error, dict) else {"message": str(error)}, node_errors=node_errors)
        number = server.number
        server.number += 1
        sensitive = {key: extra_data.pop(key) for key in execution.SENSITIVE_EXTRA_DATA_KEYS if key in extra_data}
        extra_data["create_time"] = int(time.time() * 1000)
        self._queue.put((number, prompt_id, prompt, extra_data, outputs, sensitive))
        return Queued(prompt_id, number, node_errors)

    def run_prompt_handlers(self, json_data: dict[str, Any]) -> dict[str, Any]:
        """What the host does with every posted prompt before it validates it: the packs' prompt handlers."""
        result: dict[str, Any] = self._server.trigger_on_prompt(json_data)
        return result

    def cancel(self, prompt_id: str) -> bool:
        """Ends exactly this prompt, waiting or running. True if there was something to end.

        The check and the interrupt happen under the queue's own lock, so that the interrupt cannot hit the next prompt.
        """
        queue = self._queue
        with queue.mutex:
            if queue.delete_queue_item(lambda item: item[1] == prompt_id):
                return True
            if any(item[1] == prompt_id for item in queue.currently_running.values()):
                nodes.interrupt_processing()
                return True
        return False

    def live(self) -> tuple[list[str], list[str]]:
        """The ids of running and of waiting prompts."""
        running, waiting = self._queue.get_current_queue_volatile()
        return [item[1] for item in running], [item[1] for item in sorted(waiting, key=lambda item: item[0])]

    def outcome(self, prompt_id: str) -> Outcome | None:
        """How this prompt ended; None while it has not, or when the history no longer knows it."""
        entry = self._queue.get_history(prompt_id, map_function=lambda item: {"status": item.get("status")})
        status = entry.get(prompt_id, {}).get("status")
        if status is None:
            return None
        for name, data in status.get("messages", ()):
            if name == "execution_interrupted":
                return Outcome(
                    "interrupted", node_id=str(data.get("node_id", "")), node_type=str(data.get("node_type", ""))
                )
            if name == "execution_error":
                return Outcome(
                    "error",
                    exception_type=str(data.get("exception_type", "")),
                    message=str(data.get("exception_message", "")).strip(),
                    traceback=tuple(str(line) for line in data.get("traceback", ())),
                    node_id=str(data.get("node_id", "")),
                    node_type=str(data.get("node_type", "")),
                )
        return Outcome("success" if status.get("status_str") == "success" else "error")

    def forget_outcome(self, prompt_id: str) -> None:
        """Takes the prompt out of the history, so that another one can have its id. Harmless if it is not there."""
        self._queue.delete_history_item(prompt_id)
