"""What the pack relies on of a host's prompt queue, held against the fake one and against that of a real ComfyUI."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fakes.host import FakeQueue
from flotilla.host.records import Outcome, Queued, Refused
from flotilla.utils.ids import new_id

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

from fleetkit.fixtures import fleet  # noqa: F401

WAIT_S = 20.0


class FakeHost:
    """The fake, which runs nothing by itself: here it runs a prompt as soon as somebody waits for that."""

    def __init__(self) -> None:
        self.queue = FakeQueue()

    async def submit(self, prompt: dict[str, Any], prompt_id: str) -> Queued | Refused:
        self.queue.refuse = Refused({"message": "no"}, {"1": {}}) if "NoSuchNode" in str(prompt) else None
        return await self.queue.submit(prompt, prompt_id, {})

    async def cancel(self, prompt_id: str) -> bool:
        return self.queue.cancel(prompt_id)

    async def live(self) -> tuple[list[str], list[str]]:
        if not self.queue.running and self.queue.waiting:
            first = self.queue.waiting[0]
            self.queue.start(first)
            prompt = str(self.queue.prompts[first]["prompt"])
            if "KitFail" in prompt:
                self.queue.end(first, Outcome("error", "RuntimeError", "planned", ("x",), "2", "KitFail"))
            elif "'delay_s': 0.0" in prompt:
                self.queue.end(first)
        running, waiting = self.queue.live()
        return running, waiting

    async def outcome(self, prompt_id: str) -> Outcome | None:
        return self.queue.outcome(prompt_id)

    async def forget_outcome(self, prompt_id: str) -> None:
        self.queue.forget_outcome(prompt_id)

    async def close(self) -> None:
        pass


class RealHost:
    """A ComfyUI whose queue is driven through the kit's route."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = aiohttp.ClientSession()

    async def _call(self, name: str, *args: Any) -> Any:
        async with self._session.post(f"{self._url}/kit/queue", json={"call": name, "args": args}) as answer:
            answer.raise_for_status()
            return (await answer.json())["result"]

    async def submit(self, prompt: dict[str, Any], prompt_id: str) -> Queued | Refused:
        result = await self._call("submit", prompt, prompt_id, {})
        kind = {"Queued": Queued, "Refused": Refused}[result.pop("type")]
        return kind(**result)

    async def cancel(self, prompt_id: str) -> bool:
        return bool(await self._call("cancel", prompt_id))

    async def live(self) -> tuple[list[str], list[str]]:
        running, waiting = await self._call("live")
        return running, waiting

    async def outcome(self, prompt_id: str) -> Outcome | None:
        result = await self._call("outcome", prompt_id)
        if result is None:
            return None
        del result["type"]
        return Outcome(**{**result, "traceback": tuple(result["traceback"])})

    async def forget_outcome(self, prompt_id: str) -> None:
        await self._call("forget_outcome", prompt_id)

    async def close(self) -> None:
        await self._session.close()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
async def host(request: pytest.FixtureRequest) -> Any:
    if request.param == "fake":
        made: FakeHost | RealHost = FakeHost()
    else:
        made = RealHost(request.getfixturevalue("fleet").workers[0].url)
    yield made
    await made.close()


def image(delay_s: float = 0.0) -> dict[str, Any]:
    salt = new_id()
    inputs = {"seed": 1, "width": 64, "height": 64, "batch": 1, "delay_s": delay_s, "salt": salt}
    return {
        "1": {"class_type": "KitImage", "inputs": inputs},
        "3": {"class_type": "KitHash", "inputs": {"any": ["1", 0], "prefix": "contract"}},
    }


async def until(condition: Callable[[], Any]) -> Any:
    async def turn() -> Any:
        while not (found := await condition()):
            await asyncio.sleep(0.01)
        return found

    return await asyncio.wait_for(turn(), WAIT_S)


async def ended(host: Any, prompt_id: str) -> Outcome:
    async def look() -> Outcome | None:
        await host.live()
        return await host.outcome(prompt_id)

    return await until(look)


async def running(host: Any, prompt_id: str) -> None:
    async def look() -> bool:
        return prompt_id in (await host.live())[0]

    await until(look)


async def test_a_valid_prompt_is_queued_runs_and_succeeds(host: Any) -> None:
    prompt_id = new_id()
    assert isinstance(await host.submit(image(), prompt_id), Queued)
    assert (await ended(host, prompt_id)).status == "success"


async def test_an_invalid_prompt_is_refused_and_leaves_nothing(host: Any) -> None:
    prompt_id = new_id()
    prompt = image()
    prompt["1"]["class_type"] = "NoSuchNode"
    answer = await host.submit(prompt, prompt_id)
    assert isinstance(answer, Refused)
    assert answer.error["message"]
    live = await host.live()
    assert prompt_id not in live[0] + live[1]


async def test_a_waiting_prompt_is_cancelled_without_a_trace(host: Any) -> None:
    first, second = new_id(), new_id()
    await host.submit(image(delay_s=30.0), first)
    await running(host, first)
    await host.submit(image(delay_s=30.0), second)
    assert second in (await host.live())[1]
    assert await host.cancel(second)
    assert second not in (await host.live())[1]
    assert first in (await host.live())[0]
    assert await host.cancel(first)
    assert (await ended(host, first)).status == "interrupted"


async def test_a_failing_prompt_tells_exception_and_node(host: Any) -> None:
    prompt_id = new_id()
    prompt = image()
    fail = {"image": ["1", 0], "message": "planned", "only_worker": ""}
    prompt["2"] = {"class_type": "KitFail", "inputs": fail}
    prompt["3"]["inputs"]["any"] = ["2", 0]
    await host.submit(prompt, prompt_id)
    outcome = await ended(host, prompt_id)
    assert (outcome.status, outcome.node_id, outcome.node_type) == ("error", "2", "KitFail")
    assert outcome.exception_type.endswith("RuntimeError")
    assert "planned" in outcome.message
    assert outcome.traceback


async def test_an_unknown_prompt_cannot_be_cancelled_and_has_no_outcome(host: Any) -> None:
    unknown = new_id()
    assert not await host.cancel(unknown)
    assert await host.outcome(unknown) is None


async def test_a_prompt_that_was_forgotten_can_run_again_under_its_id(host: Any) -> None:
    prompt_id = new_id()
    await host.submit(image(), prompt_id)
    await ended(host, prompt_id)
    await host.forget_outcome(prompt_id)
    assert await host.outcome(prompt_id) is None
    assert isinstance(await host.submit(image(), prompt_id), Queued)
    assert (await ended(host, prompt_id)).status == "success"
    await host.forget_outcome(new_id())
