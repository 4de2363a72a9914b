"""Lets a test outside drive the pack's own view of this host's prompt queue, for the contract with the fake one.

``POST /kit/queue`` with ``{"call": "submit" | "cancel" | "live" | "outcome" | "forget_outcome", "args": [...]}`` answers what the call gave.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from aiohttp import web
from server import PromptServer

QUEUE_MODULE = ".host.queue"


def _queue() -> Any:
    module = next(module for name, module in sys.modules.items() if name.endswith(QUEUE_MODULE))
    return module.ComfyQueue()


def register() -> None:
    """Adds the route. Must run while the host imports packs."""

    @PromptServer.instance.routes.post("/kit/queue")
    async def drive(request: web.Request) -> web.Response:
        body = await request.json()
        result = getattr(_queue(), body["call"])(*body["args"])
        if body["call"] == "submit":
            result = await result
        if dataclasses.is_dataclass(result) and not isinstance(result, type):
            result = {"type": type(result).__name__, **dataclasses.asdict(result)}
        return web.json_response({"result": result})
