"""Taking time inside a node as a sampler does: with progress, and stopped at once by Cancel."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.utils

NAP_S = 0.05
"""The longest time between two looks at the host's interrupt flag."""


def spend(delay_s: float, steps: int | None = None, preview_of: Callable[[float], Any] | None = None) -> None:
    """Lasts ``delay_s`` seconds and reports ``steps`` steps (default: one per nap) on the running node.

    ``preview_of`` makes a picture for each step, from the share that is done (0 to 1), as the host wants previews.

    Raises the host's InterruptProcessingException within one nap of Cancel.
    """
    comfy.model_management.throw_exception_if_processing_interrupted()
    if steps is None:
        steps = math.ceil(delay_s / NAP_S)
    if steps < 1:
        return
    bar = comfy.utils.ProgressBar(steps)
    started_s = time.monotonic()
    for step in range(1, steps + 1):
        _sleep_until(started_s + delay_s * step / steps)
        bar.update_absolute(step, preview=preview_of(step / steps) if preview_of is not None else None)


def rest(delay_s: float) -> None:
    """Lasts ``delay_s`` seconds and reports nothing. Stopped by Cancel as `spend` is."""
    comfy.model_management.throw_exception_if_processing_interrupted()
    _sleep_until(time.monotonic() + delay_s)


def wait_until(over: Callable[[], bool]) -> None:
    """Lasts until ``over`` says so, and reports nothing. Stopped by Cancel within one nap, as `spend` is."""
    while not over():
        _sleep_until(time.monotonic() + NAP_S)


def _sleep_until(end_s: float) -> None:
    while (left_s := end_s - time.monotonic()) > 0:
        time.sleep(min(left_s, NAP_S))
        comfy.model_management.throw_exception_if_processing_interrupted()
