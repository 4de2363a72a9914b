"""Lets a test outside drive what the pack shows on this host's screens, and look at what the pack sees of previews.

``POST /kit/screen`` with ``{"call": "listens" | "send_event" | "send_text" | "send_preview", "args": [...]}`` answers
what the call gave. In ``args`` the text `NOT_JSON` stands for something that JSON cannot hold, at any depth, and a text
beginning with `BYTES` for bytes in base64. ``"call": "latest_preview"`` answers the preview without its picture.
"""

from __future__ import annotations

import base64
import sys
from typing import Any

from aiohttp import web
from server import PromptServer

NOT_JSON = "<not json>"
BYTES = "base64:"


def _module(name: str) -> Any:
    return next(module for full, module in sys.modules.items() if full.endswith(name))


def _meant(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _meant(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_meant(one) for one in value]
    if value == NOT_JSON:
        return object()
    if isinstance(value, str) and value.startswith(BYTES):
        return base64.b64decode(value[len(BYTES) :])
    return value


def _latest_preview(prompt_id: str) -> dict[str, Any] | None:
    preview = _module(".host.previews").latest_preview(prompt_id)
    if preview is None:
        return None
    return {"node_id": preview.node_id, "size": preview.image.size, "max_px": preview.max_px, "number": preview.number}


def register() -> None:
    """Adds the route. Must run while the host imports packs."""

    @PromptServer.instance.routes.post("/kit/screen")
    async def drive(request: web.Request) -> web.Response:
        body = await request.json()
        args = _meant(body["args"])
        if body["call"] == "latest_preview":
            return web.json_response({"result": _latest_preview(*args)})
        return web.json_response({"result": getattr(_module(".host.screen").Screen(), body["call"])(*args)})
