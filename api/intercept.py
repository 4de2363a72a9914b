"""Every prompt on this server passes here; those with distributed nodes become jobs.

Two hooks of the host work together. A middleware around ``POST /prompt`` knows the answer that the host gives; the
prompt handler, called in between, sees the prompt as it will be validated, after all other packs have changed it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from ..runtime.coordinator import Coordinator
from ..runtime.jobrun import JobRun
from ..runtime.wishes import Wishes
from ..utils.errors import FlotillaError, InvalidPrompt
from ..utils.log import get_logger
from .http import Handler

log = get_logger("intercept")

PROMPT_PATHS = frozenset({"/prompt", "/api/prompt"})


@dataclass
class Submission:
    """One prompt on its way to the host's queue."""

    wishes: Wishes = field(default_factory=Wishes)
    run: JobRun | None = None
    error: FlotillaError | None = None


_submission: ContextVar[Submission | None] = ContextVar("flotilla_submission", default=None)


class Interceptor:
    """Makes jobs of prompts."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The request and the answer go through unread, except where planning found an error to tell."""
        if request.method != "POST" or request.path not in PROMPT_PATHS:
            return await handler(request)
        with self.submission(Wishes()) as submission:
            response = await handler(request)
            if submission.error is not None:
                return web.json_response(host_error_body(submission.error), status=submission.error.status)
            if response.status == web.HTTPOk.status_code and submission.run is not None:
                self._coordinator.accept(submission.run.job_id)
                submission.run = None
            return response

    @contextmanager
    def submission(self, wishes: Wishes) -> Iterator[Submission]:
        """Prompts handed to the host's prompt handlers within are planned. A job that is still in ``run`` at the end
        was not accepted, and is dropped."""
        submission = Submission(wishes)
        token = _submission.set(submission)
        try:
            yield submission
        finally:
            _submission.reset(token)
            if submission.run is not None:
                self._coordinator.drop(submission.run.job_id, "the host refused the prompt")

    def on_prompt(self, json_data: dict[str, Any]) -> dict[str, Any]:
        """The host's prompt handler. It cannot refuse, so a prompt that must not run is taken out of the request."""
        submission = _submission.get()
        if submission is None or not isinstance(json_data, dict):
            return json_data
        try:
            submission.run = self._coordinator.plan(json_data, submission.wishes)
        except FlotillaError as error:
            submission.error = error
        except Exception as error:
            log.exception("a prompt could not be planned")
            submission.error = InvalidPrompt(f"Flotilla could not plan this prompt: {type(error).__name__}: {error}")
        if submission.error is not None:
            return {key: value for key, value in json_data.items() if key != "prompt"}
        return json_data


def host_error_body(error: FlotillaError) -> dict[str, Any]:
    """An error in the shape of the host's own answers to ``POST /prompt``, which front ends show to people."""
    return {
        "error": {
            "type": f"flotilla_{error.code}",
            "message": error.message,
            "details": error.cure,
            "extra_info": error.details,
        },
        "node_errors": {},
    }
