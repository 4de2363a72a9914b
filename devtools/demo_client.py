"""A small ComfyUI client for the demo: queue a prompt, follow it by websocket, fetch its pictures."""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any

import aiohttp
from PIL import Image

Prompt = dict[str, dict[str, Any]]
Progress = Callable[[str, str, float], None]
"""Called with a prompt id, a node id and the node's share done, from 0 to 1."""

ANSWER_TIMEOUT_S = 30.0
HISTORY_TRIES = 100
HISTORY_EVERY_S = 0.1


class DemoError(Exception):
    """A server refused a prompt, failed on it, or did not finish in time."""


class Client:
    """One client of one server; listens from before its first prompt on, so that no message is missed.

    Args:
        url: The server's address.
        on_progress: Told about every progress message of this client's prompts.
    """

    def __init__(self, url: str, on_progress: Progress | None = None) -> None:
        self.url = url
        self._client_id = uuid.uuid4().hex
        self._on_progress = on_progress
        self._ends: dict[str, asyncio.Future[None]] = {}

    async def __aenter__(self) -> Client:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S))
        try:
            self._socket = await self._session.ws_connect(f"{self.url}/ws?clientId={self._client_id}", max_msg_size=0)
        except BaseException:
            await self._session.close()
            raise
        self._listener = asyncio.create_task(self._listen())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.cancel()
        await asyncio.gather(self._listener, return_exceptions=True)
        await self._socket.close()
        await self._session.close()

    async def _listen(self) -> None:
        async for message in self._socket:
            if message.type == aiohttp.WSMsgType.TEXT:
                self._take(message.json())
        for end in self._ends.values():
            if not end.done():
                end.set_exception(DemoError(f"{self.url} closed the connection."))

    def _take(self, message: dict[str, Any]) -> None:
        kind, data = message["type"], message["data"]
        end = self._ends.get(data.get("prompt_id", ""))
        if end is None or end.done():
            return
        if kind == "progress" and self._on_progress is not None:
            self._on_progress(data["prompt_id"], str(data["node"]), data["value"] / max(1, data["max"]))
        elif kind == "execution_success":
            end.set_result(None)
        elif kind == "execution_error":
            place = f"{data.get('node_type')} ({data.get('node_id')})"
            end.set_exception(DemoError(f"{place} failed on {self.url}: {data.get('exception_message')}"))
        elif kind == "execution_interrupted":
            end.set_exception(DemoError(f"The prompt was interrupted on {self.url}."))

    async def queue(self, prompt: Prompt) -> str:
        """Posts a prompt as any client would; returns its id.

        Raises:
            DemoError: The server refused it.
        """
        prompt_id = str(uuid.uuid4())
        # Ready for its end before it can end.
        self._ends[prompt_id] = asyncio.get_running_loop().create_future()
        body = {"prompt": prompt, "prompt_id": prompt_id, "client_id": self._client_id}
        async with self._session.post(f"{self.url}/prompt", json=body) as answer:
            if answer.status != 200:
                raise DemoError(f"{self.url} refused the prompt: {answer.status} {(await answer.text())[:2000]}")
            said = str((await answer.json())["prompt_id"])
        self._ends[said] = self._ends.pop(prompt_id)
        return said

    async def finished(self, prompt_id: str, timeout_s: float) -> None:
        """Waits until a prompt of this client has ended.

        Raises:
            DemoError: It failed, or did not end in time.
        """
        try:
            await asyncio.wait_for(asyncio.shield(self._ends[prompt_id]), timeout_s)
        except asyncio.TimeoutError:
            raise DemoError(f"{self.url} did not finish a prompt within {timeout_s:.0f} s.") from None

    async def get(self, path: str, **query: str) -> Any:
        """GETs JSON.

        Raises:
            DemoError: The answer is an error.
        """
        async with self._session.get(self.url + path, params=query) as answer:
            if answer.status != 200:
                raise DemoError(f"{self.url}{path} answers {answer.status}: {(await answer.text())[:500]}")
            return await answer.json()

    async def pictures(self, prompt_id: str) -> list[Image.Image]:
        """The pictures that a finished prompt saved, in order, as RGB.

        Raises:
            DemoError: The server has none.
        """
        outputs = (await self._history(prompt_id))["outputs"].values()
        found = []
        for entry in [entry for output in outputs for entry in output.get("images", ())]:
            query = {"filename": entry["filename"], "subfolder": entry["subfolder"], "type": entry["type"]}
            async with self._session.get(f"{self.url}/view", params=query) as answer:
                answer.raise_for_status()
                found.append(Image.open(io.BytesIO(await answer.read())).convert("RGB"))
        return found

    async def _history(self, prompt_id: str) -> dict[str, Any]:
        """A finished prompt's entry, which the host writes a moment after it has told of the end."""
        for _ in range(HISTORY_TRIES):
            entry: dict[str, Any] | None = (await self.get(f"/history/{prompt_id}")).get(prompt_id)
            if entry is not None:
                return entry
            await asyncio.sleep(HISTORY_EVERY_S)
        raise DemoError(f"{self.url} has no history of a prompt that has finished.")
