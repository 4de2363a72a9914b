"""From a posted prompt to a job that is not running yet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ..graph.model_side import OutputTypes
from ..graph.plan import JobPlan, Participant, PlanOptions, holds_stage, plan_job
from ..graph.prompt import PromptIndex
from ..graph.saved_plan import load_plan
from ..storage.records import JobRecord
from ..utils.clock import Clock
from ..utils.ids import is_prompt_id, new_id
from ..workers.registry import WorkerRegistry
from .jobrun import JobRun
from .participants import ParticipantBook
from .wishes import Wishes


class Planner:
    """Plans with what is known of the participants now; asks nobody."""

    def __init__(
        self,
        registry: WorkerRegistry,
        participants: ParticipantBook,
        clock: Clock,
        load: Callable[[str], float],
        choose: Callable[[Sequence[str], Callable[[str], float]], str],
        output_types: OutputTypes,
    ) -> None:
        """``choose`` picks the participant with the least load for a route; ``load`` counts our own work there;
        ``output_types`` tells those of a node class."""
        self._registry = registry
        self._participants = participants
        self._clock = clock
        self._load = load
        self._choose = choose
        self._output_types = output_types

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
            ahead_s=self._clock.wall_s() - self._clock.now_s(),
            wishes=wishes,
        )

    def revive(self, record: JobRecord, finished: Collection[int], attempts_before: Mapping[int, int]) -> JobRun:
        """The job of the journal, to be begun again: the same items with the same values, whoever is there now.

        ``finished`` are the items whose results exist. Raises NobodyCanRun, and InvalidInput for a record that cannot
        be read.
        """
        wishes = Wishes.from_json(record.wishes)
        known = {entry.id for entry in self._registry.entries()}
        worker_ids = None if wishes.worker_ids is None else tuple(one for one in wishes.worker_ids if one in known)
        wishes = Wishes(worker_ids, wishes.delegate_master)
        participants, options = self._who(record.prompt, wishes)
        plan = load_plan(record.plan, record.prompt, participants, finished, options, self._output_types)
        return JobRun(
            record.id,
            plan,
            client_id=record.client_id or "",
            extra_data=dict(record.extra_data),
            created_s=record.created_s,
            ahead_s=self._clock.wall_s() - self._clock.now_s(),
            wishes=wishes,
            lives=record.lives + 1,
            attempts_before=dict(attempts_before),
        )

    def _who(self, prompt: Mapping[str, Any], wishes: Wishes) -> tuple[list[Participant], PlanOptions]:
        delegate = wishes.delegate_master
        if delegate is None:
            delegate = self._registry.settings().master_delegate_only
        classes = {str(node.get("class_type")) for node in prompt.values() if isinstance(node, dict)}
        return self._participants.for_plan(classes, wishes.worker_ids), PlanOptions(master_takes_part=not delegate)

    def _plan(self, prompt: dict[str, Any], wishes: Wishes) -> JobPlan | None:
        participants, options = self._who(prompt, wishes)

        def load(participant_id: str) -> float:
            return self._load(participant_id) + self._participants.queue_length(participant_id)

        def choose(participant_ids: Sequence[str]) -> str:
            return self._choose(participant_ids, load)

        return plan_job(prompt, participants, options, choose, self._output_types)


def _wanted_part(json_data: dict[str, Any]) -> object:
    """The prompt, or what of it the client wants executed: the host's ``partial_execution_targets`` and all above them."""
    prompt, targets = json_data.get("prompt"), json_data.get("partial_execution_targets")
    if not isinstance(prompt, dict) or not isinstance(targets, list) or not holds_stage(prompt):
        return prompt
    index = PromptIndex(prompt)
    wanted = index.upstream([target for target in targets if isinstance(target, str) and target in prompt])
    return {node_id: node for node_id, node in prompt.items() if node_id in wanted}
