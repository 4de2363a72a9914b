"""What the pack relies on of a host's screens, held against the fake one and against those of a real ComfyUI."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fakes.host import FakeScreen
from flotilla.utils.ids import new_id

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

from fleetkit.fixtures import fleet  # noqa: F401

WAIT_S = 20.0
NOT_JSON = "<not json>"
JPEG = b"\xff\xd8 no picture, but the host does not look \xff\xd9"
PREVIEW_IMAGE, TEXT, PREVIEW_IMAGE_WITH_METADATA = 1, 3, 4
NEVER = "flotilla.never"


@dataclass
class Seen:
    """What one client was sent, and what it can take."""

    client_id: str
    metadata: bool
    events: list[tuple[str, Any]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    previews: list[tuple[bytes, dict[str, Any]]] = field(default_factory=list)

    def named(self, name: str) -> list[Any]:
        return [data for told, data in self.events if told == name]


class FakeHost:
    """The fake, whose clients look into its lists."""

    def __init__(self) -> None:
        self.screen = FakeScreen()

    async def connect(self) -> Seen:
        seen = Seen(new_id(), metadata=True)
        self.screen.clients.add(seen.client_id)
        return seen

    async def call(self, name: str, *args: Any) -> Any:
        return getattr(self.screen, name)(*(object() if arg == {"x": NOT_JSON} else arg for arg in args))

    async def catch_up(self, seen: Seen) -> None:
        mine = (None, seen.client_id)
        seen.events = [(name, data) for name, data, client in self.screen.events if client in mine]
        seen.texts = [(node_id, text) for node_id, text, client in self.screen.texts if client in mine]
        seen.previews = [
            (jpeg, {"node_id": node_id, "prompt_id": prompt_id})
            for jpeg, node_id, prompt_id, client in self.screen.previews
            if client in mine
        ]

    async def close(self) -> None:
        pass


class RealHost:
    """A ComfyUI whose screens are driven through the kit's route, and watched as a browser does."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = aiohttp.ClientSession()
        self._readers: list[asyncio.Task[None]] = []

    async def connect(self, *, metadata: bool = True) -> Seen:
        seen = Seen(new_id(), metadata)
        socket = await self._session.ws_connect(f"{self._url}/ws?clientId={seen.client_id}")
        await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": metadata}})
        self._readers.append(asyncio.create_task(self._read(socket, seen)))
        await until(lambda: seen.named("feature_flags"))
        return seen

    async def _read(self, socket: aiohttp.ClientWebSocketResponse, seen: Seen) -> None:
        async for message in socket:
            if message.type == aiohttp.WSMsgType.TEXT:
                told = json.loads(message.data)
                seen.events.append((told["type"], told["data"]))
                continue
            (kind,) = struct.unpack(">I", message.data[:4])
            (number,) = struct.unpack(">I", message.data[4:8])
            rest = message.data[8:]
            if kind == TEXT:
                seen.texts.append((rest[:number].decode(), rest[number:].decode()))
            elif kind == PREVIEW_IMAGE:
                seen.previews.append((rest, {}))
            elif kind == PREVIEW_IMAGE_WITH_METADATA:
                seen.previews.append((rest[number:], json.loads(rest[:number])))

    async def call(self, name: str, *args: Any) -> Any:
        sent = ["base64:" + base64.b64encode(arg).decode() if isinstance(arg, bytes) else arg for arg in args]
        async with self._session.post(f"{self._url}/kit/screen", json={"call": name, "args": sent}) as answer:
            answer.raise_for_status()
            return (await answer.json())["result"]

    async def queue(self, prompt: dict[str, Any], client_id: str) -> str:
        body = {"prompt": prompt, "client_id": client_id}
        async with self._session.post(f"{self._url}/prompt", json=body) as answer:
            answer.raise_for_status()
            return str((await answer.json())["prompt_id"])

    async def catch_up(self, seen: Seen) -> None:
        """Waits until everything sent so far has come: what is sent later comes later."""
        name = f"flotilla.{new_id()}"
        await self.call("send_event", name, {}, seen.client_id)
        await until(lambda: seen.named(name))

    async def close(self) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        await self._session.close()


async def until(condition: Callable[[], Any]) -> None:
    async def turn() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(turn(), WAIT_S)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
async def host(request: pytest.FixtureRequest) -> Any:
    if request.param == "fake":
        made: FakeHost | RealHost = FakeHost()
    else:
        made = RealHost(request.getfixturevalue("fleet").workers[0].url)
    yield made
    await made.close()


@pytest.fixture
async def real(request: pytest.FixtureRequest) -> Any:
    made = RealHost(request.getfixturevalue("fleet").workers[0].url)
    yield made
    await made.close()


async def test_only_connected_clients_listen(host: Any) -> None:
    seen = await host.connect()
    assert await host.call("listens", seen.client_id)
    assert not await host.call("listens", new_id())
    assert not await host.call("listens", "")


async def test_an_event_reaches_everybody_or_the_one_it_is_for(host: Any) -> None:
    first, second = await host.connect(), await host.connect()
    assert await host.call("send_event", "flotilla.all", {"n": 1})
    assert await host.call("send_event", "flotilla.one", {"n": 2}, first.client_id)
    for seen in (first, second):
        await host.catch_up(seen)
    assert first.named("flotilla.all") == second.named("flotilla.all") == [{"n": 1}]
    assert (first.named("flotilla.one"), second.named("flotilla.one")) == ([{"n": 2}], [])


@pytest.mark.parametrize("data", [{"x": NOT_JSON}, {"x": float("nan")}, {"x": [float("inf")]}])
async def test_what_is_not_json_is_not_sent_and_the_server_lives_on(host: Any, data: Any) -> None:
    seen = await host.connect()
    assert await host.call("send_event", NEVER, data) is False
    assert await host.call("send_event", "flotilla.after", {"\ud800": "ÿ"})
    await host.catch_up(seen)
    assert seen.named(NEVER) == []
    assert seen.named("flotilla.after") == [{"\ud800": "ÿ"}]


async def test_a_text_is_shown_on_its_node_to_its_client(host: Any) -> None:
    seen, other = await host.connect(), await host.connect()
    await host.call("send_text", "12:3", "2 of 24 items are missing", seen.client_id)
    await host.call("send_text", "12:3", "to nobody", "")
    await host.call("send_text", "12:3", "to a stranger", new_id())
    for one in (seen, other):
        await host.catch_up(one)
    assert seen.texts == [("12:3", "2 of 24 items are missing")]
    assert other.texts == []


async def test_a_picture_is_shown_on_its_node_to_its_client(host: Any) -> None:
    seen, other = await host.connect(), await host.connect()
    await host.call("send_preview", JPEG, "12:3", "prompt", "")
    await host.call("send_preview", JPEG, "12:3", "prompt", new_id())
    await host.call("send_preview", JPEG, "12:3", "prompt", seen.client_id)
    for one in (seen, other):
        await host.catch_up(one)
    ((jpeg, metadata),) = seen.previews
    assert jpeg == JPEG
    assert {key: metadata[key] for key in ("node_id", "prompt_id")} == {"node_id": "12:3", "prompt_id": "prompt"}
    assert other.previews == []


# The real host alone


@pytest.mark.integration
async def test_a_picture_has_the_metadata_that_the_host_s_own_have(real: RealHost) -> None:
    seen = await real.connect()
    prompt_id = await real.queue(steps(3), seen.client_id)
    await until(lambda: seen.previews)
    (_jpeg, own) = seen.previews[0]
    await until(lambda: seen.named("execution_success"))
    seen.previews.clear()
    await real.call("send_preview", JPEG, "2", prompt_id, seen.client_id)
    await real.catch_up(seen)
    assert seen.previews == [(JPEG, own)]


@pytest.mark.integration
async def test_a_client_without_metadata_gets_pictures_of_the_node_at_work_alone(real: RealHost) -> None:
    seen = await real.connect(metadata=False)
    prompt_id = await real.queue(slow(), seen.client_id)
    await until(lambda: any(data["node"] == "1" for data in seen.named("executing")))
    await real.call("send_preview", JPEG, "1", prompt_id, seen.client_id)
    await real.call("send_preview", JPEG, "3", prompt_id, seen.client_id)
    await real.catch_up(seen)
    assert seen.previews == [(JPEG, {})]
    await until(lambda: seen.named("execution_success"))


@pytest.mark.integration
async def test_the_running_prompt_s_pictures_are_seen_and_the_host_s_own_clients_miss_nothing(real: RealHost) -> None:
    watching = await real.connect()
    for _prompt in range(2):  # the host makes a new registry for each
        watching.previews.clear()
        watching.events.clear()
        prompt_id = await real.queue(steps(40, delay_s=2.0), watching.client_id)
        newest: list[dict[str, Any]] = []
        while not watching.named("execution_success"):
            preview = await real.call("latest_preview", prompt_id)
            if preview is not None:
                newest.append(preview)
            assert await real.call("latest_preview", new_id()) is None
            await asyncio.sleep(0.05)
        numbers = [preview["number"] for preview in newest]
        assert numbers == sorted(numbers)
        assert len(set(numbers)) >= 5
        assert {(preview["node_id"], tuple(preview["size"])) for preview in newest} == {("2", (64, 64))}
        assert len(watching.previews) == 40
        assert len(watching.named("progress_state")) > 40


def steps(count: int, delay_s: float = 0.3) -> dict[str, Any]:
    picture = {"seed": 1, "width": 64, "height": 64, "batch": 1, "delay_s": 0.0, "salt": new_id()}
    return {
        "1": {"class_type": "KitImage", "inputs": picture},
        "2": {"class_type": "KitSteps", "inputs": {"image": ["1", 0], "delay_s": delay_s, "steps": count}},
        "3": {"class_type": "KitHash", "inputs": {"any": ["2", 0], "prefix": "contract"}},
    }


def slow() -> dict[str, Any]:
    prompt = steps(1)
    prompt["1"]["inputs"]["delay_s"] = 2.0
    return prompt
