"""What the benchmarks need of a ComfyUI client, and the printing of figures."""

from __future__ import annotations

import json
import statistics
import time
import urllib.request
from pathlib import Path
from typing import Any

POLL_S = 0.01


def call(url: str, data: Any = None, *, method: str | None = None, timeout_s: float = 60.0) -> Any:
    """One JSON request. Raises urllib's errors."""
    body = json.dumps(data).encode() if data is not None else None
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
        content = answer.read()
    return json.loads(content) if content else None


def run_prompt(url: str, prompt: dict[str, Any], *, timeout_s: float = 120.0) -> dict[str, Any]:
    """Queues ``prompt``, waits for its end and returns its history entry. Raises RuntimeError if it failed."""
    prompt_id = call(f"{url}/prompt", {"prompt": prompt})["prompt_id"]
    give_up_s = time.monotonic() + timeout_s
    while time.monotonic() < give_up_s:
        entry: dict[str, Any] | None = call(f"{url}/history/{prompt_id}").get(prompt_id)
        if entry is not None:
            if entry["status"]["status_str"] != "success":
                raise RuntimeError(json.dumps(entry["status"])[:4000])
            return entry
        time.sleep(POLL_S)
    raise RuntimeError(f"the prompt did not end within {timeout_s} s")


def stamps(folder: Path, pattern: str) -> list[float]:
    """The moments, in seconds of `time.monotonic`, that benchmark nodes have stamped (see `bench_nodes`)."""
    return [json.loads(path.read_text(encoding="utf-8"))["monotonic_s"] for path in folder.glob(pattern)]


def row(name: str, values: list[float], unit: str) -> str:
    """``name  min / median / max  unit``."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{name:<44} {low:>9.3f} {middle:>9.3f} {high:>9.3f}  {unit}"


HEADER = f"{'':<44} {'min':>9} {'median':>9} {'max':>9}"
