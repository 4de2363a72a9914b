"""What item k of a stage sees: seeds, values by worker, lines of text, names of models.

The nodes use the same functions when they run, so that a plan and a node never disagree.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .prompt import is_link, unwrap

#: The host's samplers take seeds of 64 bits. Beyond the last one, counting goes on at 0.
SEED_SPAN = 2**64

DEFAULT_TYPE = "STRING"

_TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
_LINE_END = re.compile(r"\r\n|\r|\n")

#: How many lists may lie around one model name: a saved name is seen bare, as ``["name"]`` and as ``[["name"]]``.
_MAX_NAME_NESTING = 4


class CannotCoerce(ValueError):
    """A value that its declared type cannot hold. It never leaves this room: the default takes its place."""


def seed_for(seed: int, k: int) -> int:
    """The seed of item ``k`` (0, 1, …): ``seed + k``, counting on at 0 after 2^64 - 1. Item 0 has ``seed`` itself."""
    return seed if k == 0 else (seed + k) % SEED_SPAN


def whole_number(value: Any) -> int | None:
    """``value`` as the whole number that the host would read from it, or None where the host would refuse it."""
    try:
        return int(unwrap(value))
    except (TypeError, ValueError, OverflowError):
        return None


def is_true(value: Any) -> bool:
    """How older prompts and scripts write a switch: true, "1", "true", "yes", "on", or a number that is not zero."""
    value = unwrap(value)
    if isinstance(value, str):
        return value.strip().lower() in _TRUE_WORDS
    if isinstance(value, (int, float)):
        return value != 0
    return False


def lines_of(text: Any) -> list[str]:
    """The lines of ``text`` that hold more than blanks, without the blanks around them."""
    lines = _LINE_END.split(text if isinstance(text, str) else str(text))
    return [line.strip() for line in lines if line.strip()]


def line_for(text: Any, k: int) -> str:
    """The line of item ``k``: lines are dealt in turn, from the first again after the last; "" where there is none."""
    return dealt_line(lines_of(text), k)


def dealt_line(lines: Sequence[str], k: int) -> str:
    """The same, for lines that are known already."""
    return lines[k % len(lines)] if lines else ""


def model_name(text: Any) -> str | None:
    """The one name in ``text``, given bare or inside lists of one; None when it is linked or not a single name."""
    if is_link(text):
        return None
    name = unwrap(text)
    for _ in range(_MAX_NAME_NESTING):
        if not isinstance(name, list) or len(name) != 1:
            break
        name = name[0]
    if isinstance(name, str):
        return name
    return str(name) if isinstance(name, (int, float)) else None


def coerce(value: Any, type_name: str) -> Any:
    """``value`` as ``type_name``: INT (by way of float, truncated), FLOAT, STRING and COMBO (text); others unchanged.

    Raises:
        CannotCoerce: no such number, or one that JSON cannot carry (infinite, not a number).
    """
    if type_name in ("INT", "FLOAT"):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise CannotCoerce(type_name) from error
        if not math.isfinite(number):
            raise CannotCoerce(type_name)
        return int(number) if type_name == "INT" else number
    if type_name in ("STRING", "COMBO") and isinstance(value, (int, float)):
        return str(value)
    return value


def _parsed(text: str) -> Any:
    """JSON, or Python's notation: the host turns an object that it finds in a text input into the latter."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


@dataclass(frozen=True)
class ValueMap:
    """The values of a Distributed Value node by worker: first by id, then by 1-based position among the workers.

    ``type_name`` is STRING, INT, FLOAT, COMBO, or a type nobody knows, whose values stay as they are.
    """

    type_name: str = DEFAULT_TYPE
    by_id: Mapping[str, Any] = field(default_factory=dict)
    by_position: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, worker_values: Any) -> ValueMap:
        """Read the node's ``worker_values``: JSON text, the object itself or its Python notation. Anything else is an empty map."""
        data = unwrap(worker_values)
        if isinstance(data, str):
            data = _parsed(data)
        if not isinstance(data, dict):
            return cls()
        by_id = data.get("_by_worker_id")
        type_name = data.get("_type", DEFAULT_TYPE)
        return cls(
            type_name=type_name if isinstance(type_name, str) else "",
            by_id=by_id if isinstance(by_id, dict) else {},
            by_position={key: value for key, value in data.items() if not key.startswith("_")},
        )

    def default(self, default_value: Any) -> Any:
        """The default in the map's type, or as it stands when that type cannot hold it."""
        default_value = unwrap(default_value)
        try:
            return coerce(default_value, self.type_name)
        except CannotCoerce:
            return default_value

    def own(self, worker_id: str, position: int) -> tuple[bool, Any]:
        """``(True, value)`` when the map holds a usable value for the worker, else ``(False, None)``.

        An entry under the worker's id decides, even an empty one; only without it the position (from 1) counts. Empty
        values and the number 0 mean "no value" (the text "0" is one), and so does what the type cannot hold.
        """
        value = self.by_id[worker_id] if worker_id in self.by_id else self.by_position.get(str(position))
        if not value:
            return False, None
        try:
            return True, coerce(value, self.type_name)
        except CannotCoerce:
            return False, None

    def only_type(self) -> str:
        """``worker_values`` text that keeps the type and drops every worker: what an item's prompt carries."""
        return json.dumps({"_type": self.type_name})
