"""Lets a test outside make this worker repeat itself: with ``POST /kit/twice {"on": true}`` it says of each finished item
twice that it is finished, the second time a moment later."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from aiohttp import web
from server import PromptServer

LINK_MODULE = ".workers.heart"
SECOND_TIME_S = 0.25

_repeating: set[asyncio.Task[None]] = set()


def _link_class() -> Any:
    return next(module for name, module in sys.modules.items() if name.endswith(LINK_MODULE)).LiveLink


def _repeat(send: Any) -> Any:
    """``send`` of links, with finished items said twice."""

    async def again(link: Any, message: Any) -> None:
        await asyncio.sleep(SECOND_TIME_S)
        await send(link, message)

    async def twice(link: Any, message: Any) -> None:
        await send(link, message)
        if type(message).__name__ == "ItemFinished":
            task = asyncio.create_task(again(link, message))
            _repeating.add(task)
            task.add_done_callback(_repeating.discard)

    twice.once = send  # type: ignore[attr-defined]
    return twice


def register() -> None:
    """Adds the route. Must run while the host imports packs."""

    @PromptServer.instance.routes.post("/kit/twice")
    async def twice(request: web.Request) -> web.Response:
        link = _link_class()
        link.send = getattr(link.send, "once", link.send)
        if (await request.json())["on"]:
            link.send = _repeat(link.send)
        return web.json_response({})
