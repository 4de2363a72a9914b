"""Routes that scripts for the older extension call: queueing a prompt, asking for its job, facts about this machine.

Errors are ``{"error": "<text>"}`` here. Only one thing differs on purpose from the older answers: a prompt that the host
refuses is a 400 and not a 500, with the host's own ``node_errors`` beside the text.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from ..host.records import Queued, Refused
from ..runtime.wishes import Wishes
from ..utils.clock import Clock
from ..utils.errors import FlotillaError, InvalidInput, InvalidPrompt, NotFound
from ..utils.ids import new_id
from ..utils.log import get_logger
from .http import PROMPT_BODY_CAP_BYTES, answers_errors, json_object
from .intercept import Interceptor
from .services import Services

log = get_logger("api")

IDEMPOTENCY_HEADER = "X-Idempotency-Key"
MAX_IDEMPOTENCY_KEY_CHARS = 200
ANSWERS_KEPT_S = 600.0
ANSWERS_KEPT = 256

Answer = dict[str, Any]


def compat_error(error: FlotillaError) -> Answer:
    """The shape of errors on the older routes; those of the host's validation bring ``node_errors`` along."""
    body: Answer = {"error": str(error)}
    if "node_errors" in error.details:
        body["node_errors"] = error.details["node_errors"]
    return body


def register(services: Services, interceptor: Interceptor, routes: web.RouteTableDef) -> None:
    """Adds the routes."""
    answers = AnswerStore(services.clock)

    @routes.post("/distributed/queue")
    @answers_errors(compat_error)
    async def queue(request: web.Request) -> web.StreamResponse:
        key = _idempotency_key(request)
        order = read_order(await json_object(request, cap_bytes=PROMPT_BODY_CAP_BYTES))
        answer = await answers.once(key, lambda: enqueue(services, interceptor, order))
        return web.json_response(answer)

    @routes.get("/distributed/queue_status/{job_id}")
    @answers_errors(compat_error)
    async def queue_status(request: web.Request) -> web.StreamResponse:
        job_id = request.match_info["job_id"]
        return web.json_response({"exists": _is_live(services, job_id), "job_id": job_id})

    @routes.get("/distributed/system_info")
    @answers_errors(compat_error)
    async def system_info(request: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "success", **await asyncio.to_thread(host_system_info)})

    @routes.get("/distributed/network_info")
    @answers_errors(compat_error)
    async def network_info(request: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "success", **await asyncio.to_thread(host_network_info)})


# What a request says


@dataclass(frozen=True)
class Order:
    """A checked body of ``POST /distributed/queue``. ``worker_ids`` None: the workers that are enabled."""

    prompt: dict[str, Any]
    workflow: Any
    client_id: str | None
    worker_ids: tuple[str, ...] | None
    delegate_master: bool | None
    trace_id: str | None


def read_order(body: dict[str, Any]) -> Order:
    """Checks a body, field by field in the order that older clients know. Raises InvalidInput."""
    if not isinstance(body.get("auto_prepare", True), bool):
        raise InvalidInput("auto_prepare must be a boolean.")
    prompt = _read_prompt(body)
    worker_ids = _read_worker_ids(body)
    delegate_master = body.get("delegate_master")
    if delegate_master is not None and not isinstance(delegate_master, bool):
        raise InvalidInput("delegate_master must be a boolean or null.")
    client_id = body.get("client_id")
    if client_id is not None:
        if not isinstance(client_id, str) or not client_id.strip():
            raise InvalidInput("client_id must be a text that is not blank.")
        client_id = client_id.strip()
    trace_id = body.get("trace_execution_id")
    if trace_id is not None and not isinstance(trace_id, str):
        raise InvalidInput("trace_execution_id must be a text.")
    return Order(
        prompt=prompt,
        workflow=body.get("workflow"),
        client_id=client_id,
        worker_ids=worker_ids,
        delegate_master=delegate_master,
        trace_id=(trace_id or "").strip() or None,
    )


def _read_prompt(body: dict[str, Any]) -> dict[str, Any]:
    prompt, workflow = body.get("prompt"), body.get("workflow")
    if prompt is None and isinstance(workflow, dict):
        prompt = workflow.get("prompt")
    if not isinstance(prompt, dict):
        raise InvalidInput("prompt must be an object: a workflow in API format.")
    return prompt


def _read_worker_ids(body: dict[str, Any]) -> tuple[str, ...] | None:
    """Before version 1.4 of the older extension both fields could be left out."""
    workers, listed = body.get("workers"), body.get("enabled_worker_ids")
    if workers is not None and not isinstance(workers, list):
        raise InvalidInput("workers must be a list.")
    if listed is not None and not isinstance(listed, list):
        raise InvalidInput("enabled_worker_ids must be a list.")
    if listed is None and workers is not None:
        listed = [worker.get("id") if isinstance(worker, dict) else worker for worker in workers]
    if listed is None:
        return None
    ids = [_read_worker_id(one) for one in listed]
    return tuple(dict.fromkeys(one for one in ids if one))


def _read_worker_id(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InvalidInput("A worker id must be a text or a whole number.")
    return str(value).strip()


def _idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get(IDEMPOTENCY_HEADER, "").strip()
    if len(key) > MAX_IDEMPOTENCY_KEY_CHARS:
        raise InvalidInput(f"{IDEMPOTENCY_HEADER} is longer than {MAX_IDEMPOTENCY_KEY_CHARS} characters.")
    return key or None


# What is done


async def enqueue(services: Services, interceptor: Interceptor, order: Order) -> Answer:
    """Plans and queues a prompt on this server; returns the answer to the request.

    Raises what planning raises, InvalidInput for unknown workers, InvalidPrompt when the host refuses the prompt.
    """
    # Also for prompts without distributed nodes, whose planning looks at no worker.
    services.coordinator.participants.check_known(order.worker_ids or ())
    json_data: dict[str, Any] = {"prompt": order.prompt, "extra_data": {}}
    if order.client_id is not None:
        json_data["client_id"] = order.client_id
    if order.workflow:
        json_data["extra_data"]["extra_pnginfo"] = {"workflow": order.workflow}
    with interceptor.submission(Wishes(order.worker_ids, order.delegate_master)) as submission:
        json_data = services.queue.run_prompt_handlers(json_data)
        if submission.error is not None:
            raise submission.error
        queued = await _submit(services, json_data)
        run = submission.run
        worker_ids: set[str] = set()
        if run is not None:
            services.coordinator.accept(run.job_id)
            submission.run = None
            worker_ids = {item.planned_for for item in run.plan.items if not item.by_master_prompt}
    log.info("prompt queued", prompt=queued.prompt_id, workers=len(worker_ids), exec=order.trace_id or "-")
    return {
        "prompt_id": queued.prompt_id,
        "number": int(queued.number),
        "node_errors": queued.node_errors,
        "worker_count": len(worker_ids),
        "auto_prepare_supported": True,
    }


async def _submit(services: Services, json_data: dict[str, Any]) -> Queued:
    """What the host's own route does behind its prompt handlers, which may have changed anything.

    Raises InvalidPrompt when the host refuses it.
    """
    prompt = json_data.get("prompt")
    if not isinstance(prompt, dict):
        raise InvalidPrompt("Another pack took the prompt out of the request.")
    prompt_id = json_data.get("prompt_id") or new_id()
    extra_data = dict(json_data.get("extra_data") or {})
    if "client_id" in json_data:
        extra_data["client_id"] = json_data["client_id"]
    targets = json_data.get("partial_execution_targets")
    outcome = await services.queue.submit(prompt, prompt_id, extra_data, targets=targets)
    if isinstance(outcome, Refused):
        raise _refusal(outcome)
    return outcome


def _refusal(refused: Refused) -> InvalidPrompt:
    parts = [str(refused.error.get(key) or "").strip() for key in ("message", "details")]
    text = ": ".join(part for part in parts if part) or "The prompt is not valid"
    return InvalidPrompt(f"{text.rstrip('.')}.", details={"node_errors": refused.node_errors})


def _is_live(services: Services, job_id: str) -> bool:
    try:
        return services.coordinator.run(job_id).ended_s is None
    except NotFound:
        return False


class AnswerStore:
    """Answers by idempotency key: a repeated request gets the first one's answer, also while that is being made.

    Kept are the last `ANSWERS_KEPT` answers, each for `ANSWERS_KEPT_S`. A request that failed made nothing and is
    forgotten, so that it can be tried again.
    """

    def __init__(self, clock: Clock, *, kept_s: float = ANSWERS_KEPT_S, kept: int = ANSWERS_KEPT) -> None:
        self._clock = clock
        self._kept_s = kept_s
        self._kept = kept
        self._answers: OrderedDict[str, tuple[float, asyncio.Task[Answer]]] = OrderedDict()

    async def once(self, key: str | None, make: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer to the request with this key; without a key every request is a new one. Raises what it raised."""
        if key is None:
            return await make()
        self._forget_old()
        known = self._answers.get(key)
        task = known[1] if known is not None else asyncio.ensure_future(_run(make))
        if known is None:
            self._answers[key] = (self._clock.now_s(), task)
        try:
            # Shielded: that one of two callers goes away must not end the other's request.
            return await asyncio.shield(task)
        except Exception:
            if task.done() and self._answers.get(key, (0.0, None))[1] is task:
                del self._answers[key]
            raise

    def __len__(self) -> int:
        return len(self._answers)

    def _forget_old(self) -> None:
        oldest_s = self._clock.now_s() - self._kept_s
        for key, (since_s, task) in list(self._answers.items()):
            too_many = len(self._answers) >= self._kept
            if task.done() and (since_s < oldest_s or too_many):
                del self._answers[key]


async def _run(make: Callable[[], Awaitable[Answer]]) -> Answer:
    return await make()


# What only the host knows; imported late, because it brings the host's own modules along


def host_system_info() -> dict[str, Any]:
    """Who this machine is."""
    from ..host import facts

    return facts.system_info()


def host_network_info() -> dict[str, Any]:
    """How this machine can be reached."""
    from ..host import facts

    return facts.network_info()
