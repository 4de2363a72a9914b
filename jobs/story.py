"""Stories: what the machine was told about a job or a participant lately, in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

Entry = tuple[float, Any]
"""A time of the machine's clock and the event of then."""

MAX_WORDS = 200
"""Characters that one value may take."""

_UNTOLD = frozenset({"result", "items", "indices", "participants", "left_out"})
"""What is long and says little: where a result lies, and all of a plan."""


def told(story: Iterable[Entry]) -> tuple[str, ...]:
    """The story as lines, oldest first: time, event and its particulars. Without results and tracebacks."""
    return tuple(f"{now_s:.3f} {_tell(event)}" for now_s, event in story)


def _tell(event: Any) -> str:
    words = [type(event).__name__]
    for field in fields(event):
        if field.name in _UNTOLD:
            continue
        value = getattr(event, field.name)
        message = getattr(value, "message", None)
        text = f"{value.kind}: {message}" if message is not None else str(value)
        words.append(f"{field.name}={text[:MAX_WORDS]}")
    return " ".join(words)
