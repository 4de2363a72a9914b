"""From a posted prompt to a job that is not running yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..graph.plan import JobPlan, PlanOptions, holds_stage, plan_job
from ..graph.prompt import PromptIndex
from ..utils.clock import Clock
from ..utils.ids import is_prompt_id, new_id
from ..workers.registry import WorkerRegistry
from .jobrun import JobRun
from .participants import ParticipantBook


@dataclass(frozen=True)
class Wishes:
    """What a request may say beside its prompt: which workers, and whether the master takes part. None: as configured."""

    worker_ids: tuple[str, ...] | None = None
    delegate_master: bool | None = None


class Planner:
    """Plans with what is known of the participants now; asks nobody."""

    def __init__(
        self,
        registry: WorkerRegistry,
        participants: ParticipantBook,
        clock: Clock,
        load: Callable[[str], float],
        choose: Callable[[Sequence[str], Callable[[str], float]], str],
    ) -> None:
        """``choose`` picks the participant with the least load for a route; ``load`` counts our own work there."""
        self._registry = registry
        self._participants = participants
        self._clock = clock
        self._load = load
        self._choose = choose

    def make(self, json_data: dict[str, Any], wishes: Wishes) -> JobRun | None:
        """The job of a posted prompt; fixes the prompt id in ``json_data``. None if it is not to be distributed.

        Raises InvalidInput, InvalidPrompt and NobodyCanRun.
        """
        prompt = _wanted_part(json_data)
        if not isinstance(prompt, dict) or not holds_stage(prompt):
            return None
        plan = self._plan(prompt, wishes)
        if plan is None:
            return None
        job_id = json_data.get("prompt_id")
        if job_id is None:
            job_id = json_data["prompt_id"] = new_id()
        if not is_prompt_id(job_id):
            return None  # the host refuses it in its own words
        extra_data = json_data.get("extra_data")
        return JobRun(
            job_id,
            plan,
            client_id=str(json_data.get("client_id") or ""),
            extra_data=extra_data if isinstance(extra_data, dict) else {},
            created_s=self._clock.wall_s(),
        )

    def _plan(self, prompt: dict[str, Any], wishes: Wishes) -> JobPlan | None:
        delegate = wishes.delegate_master
        if delegate is None:
            delegate = self._registry.settings().master_delegate_only
        classes = {str(node.get("class_type")) for node in prompt.values() if isinstance(node, dict)}
        participants = self._participants.for_plan(classes, wishes.worker_ids)

        def load(participant_id: str) -> float:
            return self._load(participant_id) + self._participants.queue_length(participant_id)

        def choose(participant_ids: Sequence[str]) -> str:
            return self._choose(participant_ids, load)

        return plan_job(prompt, participants, PlanOptions(master_takes_part=not delegate), choose)


def _wanted_part(json_data: dict[str, Any]) -> object:
    """The prompt, or what of it the client wants executed: the host's ``partial_execution_targets`` and all above them."""
    prompt, targets = json_data.get("prompt"), json_data.get("partial_execution_targets")
    if not isinstance(prompt, dict) or not isinstance(targets, list) or not holds_stage(prompt):
        return prompt
    index = PromptIndex(prompt)
    wanted = index.upstream([target for target in targets if isinstance(target, str) and target in prompt])
    return {node_id: node for node_id, node in prompt.items() if node_id in wanted}
