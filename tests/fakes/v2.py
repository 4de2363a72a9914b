"""Routes of ``/distributed/v2`` as a client calls them; every answer is held to their shape."""

from __future__ import annotations

import json
from typing import Any

from aiohttp.test_utils import TestClient
from fakes.api import SECRET

V2 = "/distributed/v2"
WORKERS = f"{V2}/workers"
SETTINGS = f"{V2}/settings"


async def call(client: TestClient[Any, Any], method: str, path: str, status: int = 200, **kwargs: Any) -> Any:
    response = await client.request(method, path, **kwargs)
    body = await response.text()
    assert response.status == status, body
    assert response.content_type == "application/json"
    assert SECRET not in body
    value = json.loads(body)
    if status >= 400:
        assert set(value) == {"error"}
        assert set(value["error"]) == {"code", "message", "cure", "details"}
        assert value["error"]["code"] and value["error"]["message"]
    return value
