"""A ComfyUI client for tests: plain HTTP, no knowledge of the pack but its addresses."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any

from .graphs import Prompt
from .waiting import eventually

REQUEST_TIMEOUT_S = 30.0
RUN_TIMEOUT_S = 60.0
JSON_TYPE = "application/json"

# Loopback must never go through a proxy that the environment names.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, whatever its status."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises AssertionError for anything else."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise AssertionError(f"{self.status}, and no JSON: {self.text}") from None

    @property
    def text(self) -> str:
        """The beginning of the body, for messages."""
        return self.body[:2_000].decode("utf-8", "replace")


class Client:
    """One server as a user's script sees it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __repr__(self) -> str:
        return f"<Client {self.url}>"

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> Answer:
        """Sends ``body`` as JSON, or ``raw`` as it is. Error statuses are answers like others."""
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": JSON_TYPE, **(headers or {})}
        request = urllib.request.Request(self.url + path, data=data, headers=sent, method=method)
        try:
            with _opener.open(request, timeout=timeout_s) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def get(self, path: str) -> Any:
        """The JSON at ``path``. Raises AssertionError for an error status."""
        return self._good("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        """POSTs JSON, returns JSON (None for an empty answer). Raises AssertionError for an error status."""
        return self._good("POST", path, body)

    def patch(self, path: str, body: Any) -> Any:
        """PATCHes JSON, returns JSON. Raises AssertionError for an error status."""
        return self._good("PATCH", path, body)

    def delete(self, path: str) -> Any:
        """DELETEs, returns JSON. Raises AssertionError for an error status."""
        return self._good("DELETE", path, {})

    def _good(self, method: str, path: str, body: Any) -> Any:
        answer = self.request(method, path, body)
        assert answer.status < 400, f"{method} {self.url}{path}: {answer.status} {answer.text}"
        return answer.json() if answer.body else None

    # The host's own routes

    def queue(self, prompt: Prompt, **fields: Any) -> str:
        """POSTs a prompt; ``fields`` are the request's other keys. Returns the prompt id."""
        return str(self.post("/prompt", {"prompt": prompt, **fields})["prompt_id"])

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """The history's entry; None while the prompt has not ended."""
        entry: dict[str, Any] | None = self.get(f"/history/{prompt_id}").get(prompt_id)
        return entry

    def wait(self, prompt_id: str, timeout_s: float = RUN_TIMEOUT_S) -> dict[str, Any]:
        """The history's entry once the prompt has ended, well or badly."""
        return eventually(lambda: self.history(prompt_id) or {}, f"the end of prompt {prompt_id}", timeout_s)

    def run(self, prompt: Prompt, timeout_s: float = RUN_TIMEOUT_S, **fields: Any) -> str:
        """Runs a prompt to its good end and returns its id. Raises AssertionError with the host's messages else."""
        prompt_id = self.queue(prompt, **fields)
        self.succeeded(prompt_id, timeout_s)
        return prompt_id

    def succeeded(self, prompt_id: str, timeout_s: float = RUN_TIMEOUT_S) -> dict[str, Any]:
        """The history's entry of a prompt that must end well."""
        entry = self.wait(prompt_id, timeout_s)
        assert entry["status"]["status_str"] == "success", json.dumps(entry["status"])[:3_000]
        return entry

    def error_of(self, prompt_id: str, timeout_s: float = RUN_TIMEOUT_S) -> dict[str, Any]:
        """What the host recorded of a prompt that must end with an error on a node."""
        messages = self.wait(prompt_id, timeout_s)["status"]["messages"]
        found = [data for name, data in messages if name == "execution_error"]
        assert found, f"no error in {json.dumps(messages)[:2_000]}"
        return dict(found[0])

    def was_interrupted(self, prompt_id: str, timeout_s: float = RUN_TIMEOUT_S) -> bool:
        """Whether the host recorded that this prompt, which must end, was interrupted."""
        messages = self.wait(prompt_id, timeout_s)["status"]["messages"]
        return any(name == "execution_interrupted" for name, _ in messages)

    def queued(self) -> tuple[list[str], list[str]]:
        """The ids of running and of waiting prompts."""
        queue = self.get("/queue")
        return [item[1] for item in queue["queue_running"]], [item[1] for item in queue["queue_pending"]]

    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return self.queued() == ([], [])

    # The pack's routes

    def job(self, job_id: str) -> dict[str, Any]:
        """A job with its items."""
        return dict(self.get(f"/distributed/v2/jobs/{job_id}"))

    def is_job(self, job_id: str) -> bool:
        """Whether the prompt became a job."""
        return self.request("GET", f"/distributed/v2/jobs/{job_id}").status == 200

    def worker(self, worker_id: str) -> dict[str, Any]:
        """One worker as the master sees it."""
        return dict(self.get(f"/distributed/v2/workers/{worker_id}"))

    def states(self) -> dict[str, str]:
        """Worker id → state."""
        return {entry["id"]: entry["state"] for entry in self.get("/distributed/v2/workers")["workers"]}

    def change_worker(self, worker_id: str, **fields: Any) -> None:
        """Changes a worker's entry and waits until its link stands (again), or is gone if it was disabled."""
        self.patch(f"/distributed/v2/workers/{worker_id}", fields)
        enabled = self.worker(worker_id)["enabled"]
        wanted = "online" if enabled else "disabled"
        eventually(lambda: self.states()[worker_id] == wanted, f"{worker_id} is {wanted}")

    def change_settings(self, **fields: Any) -> None:
        """Changes some of the fleet's settings."""
        self.patch("/distributed/v2/settings", fields)

    def spool(self) -> dict[str, Any]:
        """How full this instance's spool is."""
        return dict(self.get("/distributed/v2/system")["spool"])
