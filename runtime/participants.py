"""What the master knows of each participant before a prompt comes: nobody is asked at queue time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..graph.plan import Participant
from ..graph.preflight import Capabilities, fit, reasons_of
from ..graph.prompt import Prompt
from ..utils.errors import InvalidInput
from ..utils.log import get_logger
from ..workers import messages as m
from ..workers.entries import MASTER_ID, Precision
from ..workers.pool import WorkerPool
from ..workers.registry import WorkerRegistry

log = get_logger("participants")


class ParticipantBook:
    """Capabilities and queue counts, as the workers told them last."""

    def __init__(
        self,
        registry: WorkerRegistry,
        pool: WorkerPool,
        own_choices: Callable[[Iterable[str]], tuple[frozenset[str], dict[str, dict[str, tuple[str, ...]]]]],
    ) -> None:
        self._registry = registry
        self._pool = pool
        self._own_choices = own_choices
        self._capabilities: dict[str, Capabilities] = {}
        self._status: dict[str, m.Status] = {}

    def for_plan(self, classes: Iterable[str], worker_ids: tuple[str, ...] | None) -> list[Participant]:
        """The master, then the enabled workers in the order of the configuration; those that are not linked say why.

        ``classes`` are the node classes of the prompt, for which the master looks at its own lists anew. ``worker_ids``
        narrows the workers down; ids that nobody has are an InvalidInput.
        """
        entries = self._registry.entries()
        self.check_known(worker_ids or ())
        health = self._pool.health()
        own = Capabilities(*self._own_choices(classes))
        participants = [Participant(MASTER_ID, self.name(MASTER_ID), True, capabilities=own)]
        for entry in entries:
            if (not entry.enabled) if worker_ids is None else (entry.id not in worker_ids):
                continue
            state = health.get(entry.id)
            unavailable = ""
            if not entry.enabled:
                unavailable = "it is disabled"
            elif state is None or state.state != "online":
                unavailable = (state.message or state.reason or state.state) if state is not None else "not linked yet"
            known = self._capabilities.get(entry.id)
            participants.append(Participant(entry.id, entry.name, False, capabilities=known, unavailable=unavailable))
        return participants

    def check_known(self, worker_ids: Iterable[str]) -> None:
        """Raises InvalidInput if there is no such worker in the registry."""
        known = {entry.id for entry in self._registry.entries()}
        unknown = [one for one in worker_ids if one not in known]
        if unknown:
            raise InvalidInput(
                f"There is no worker {', '.join(unknown)}.",
                cure="GET /distributed/v2/workers lists the workers.",
                details={"unknown": unknown},
            )

    def missing_here(self, prompt: Mapping[str, Any]) -> str:
        """What this very server lacks for ``prompt``, in words; empty if nothing."""
        classes = {str(node["class_type"]) for node in prompt.values()}
        return reasons_of(fit(dict(prompt), Capabilities(*self._own_choices(classes)))[1])

    def fitted(self, prompt: Prompt, worker_id: str) -> Prompt:
        """The prompt in the worker's spelling of file names, as far as that is known."""
        capabilities = self._capabilities.get(worker_id)
        return prompt if capabilities is None else fit(prompt, capabilities)[0]

    def name(self, participant_id: str) -> str:
        """The name that people gave this participant; its id when it is gone."""
        if participant_id == MASTER_ID:
            return self._registry.settings().master_name
        return next((entry.name for entry in self._registry.entries() if entry.id == participant_id), participant_id)

    def precision(self, worker_id: str) -> Precision:
        """How exact this worker's results are to travel."""
        return next((entry.precision for entry in self._registry.entries() if entry.id == worker_id), "exact")

    def capabilities(self, worker_id: str) -> Capabilities | None:
        """What the worker said it can run; None when it has not said so yet."""
        return self._capabilities.get(worker_id)

    def queue_length(self, participant_id: str) -> int:
        """Prompts of others that wait or run there. Our own leases are counted by the state machine."""
        status = self._status.get(participant_id)
        return max(0, status.running + status.pending - status.ours) if status is not None else 0

    def status(self, worker_id: str) -> m.Status | None:
        """The worker's queue counts as last told."""
        return self._status.get(worker_id)

    def note_capabilities(self, worker_id: str, message: m.Capabilities) -> None:
        """A worker told what it can run."""
        try:
            self._capabilities[worker_id] = Capabilities.from_wire(message.data)
        except InvalidInput as error:
            log.warning("a worker sent capabilities that cannot be read", worker=worker_id, error=error)

    def note_status(self, worker_id: str, status: m.Status) -> None:
        """A worker told how long its queue is."""
        self._status[worker_id] = status

    def forget(self, worker_id: str) -> None:
        """The link is gone: what it told may no longer be true."""
        self._capabilities.pop(worker_id, None)
        self._status.pop(worker_id, None)
