"""The older extension's configuration routes as a client calls them; every answer is held to their shape."""

from __future__ import annotations

import json
from typing import Any

from aiohttp.test_utils import TestClient

CONFIG = "/distributed/config"
OLDER = {
    "id": "w1",
    "name": "GPU 1",
    "type": "local",
    "host": "localhost",
    "port": 8189,
    "cuda_device": 1,
    "enabled": True,
    "extra_args": "--lowvram",
}


async def get_config(client: TestClient[Any, Any]) -> Any:
    response = await client.get(CONFIG)
    assert response.status == 200
    return await response.json()


async def post(client: TestClient[Any, Any], name: str, body: Any, status: int = 200) -> Any:
    response = await client.post(f"{CONFIG}/{name}" if name else CONFIG, json=body)
    text = await response.text()
    assert response.status == status, text
    assert "hunter2" not in text
    answer = json.loads(text)
    if status < 400:
        assert answer["status"] == "success"
    elif name:
        assert set(answer) == {"error"} and isinstance(answer["error"], str)
    else:
        assert set(answer) == {"status", "error", "message"}
        assert (answer["status"], answer["message"]) == ("error", "; ".join(answer["error"]))
    return answer
