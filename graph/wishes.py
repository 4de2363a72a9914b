"""What the user asks of a stage: how to fan out, how many items, and what a missing item means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

from ..utils.errors import InvalidPrompt
from .classes import ITEMS_INPUT, ON_FAILURE_INPUT, STAGE_CLASSES
from .prompt import PromptIndex, is_link, quoted, unwrap
from .values import is_true

Way = Literal["one_each", "pull", "route", "tiles"]
OnFailure = Literal["fail", "partial"]

MAX_ITEMS = 100_000
"""Most items of one stage. The node's input has the same cap."""

ON_FAILURE: tuple[OnFailure, ...] = ("fail", "partial")


@dataclass(frozen=True)
class StageWishes:
    """``items`` is the number of items for the way *pull*; the other ways find it themselves, and it is 0."""

    way: Way
    items: int
    on_failure: OnFailure

    @classmethod
    def of(cls, index: PromptIndex, node_id: str) -> StageWishes:
        """What the inputs of a stage node say. A number of items wins over ``load_balance``; tiles are not counted.

        Raises:
            InvalidPrompt: the number of items, or what to do on failure, is linked or makes no sense.
        """
        inputs = index.inputs_of(node_id)
        stage = STAGE_CLASSES[index.class_of(node_id)]
        if stage.tiles:
            return cls("tiles", 0, _on_failure(index, node_id, inputs.get(ON_FAILURE_INPUT)))
        items = _items(index, node_id, inputs.get(ITEMS_INPUT))
        on_failure = _on_failure(index, node_id, inputs.get(ON_FAILURE_INPUT))
        if items:
            return cls("pull", items, on_failure)
        route = inputs.get(stage.route_input)
        return cls("route" if is_true(route) else "one_each", 0, on_failure)


def asks_for_items(inputs: object) -> bool:
    """True when the inputs of a stage node ask for a number of items, or for something that is none. Never raises."""
    if not isinstance(inputs, dict):
        return False
    return unwrap(inputs.get(ITEMS_INPUT)) not in (None, 0, "0", "")


def _items(index: PromptIndex, node_id: str, value: Any) -> int:
    number = _whole(unwrap(value))
    if not is_link(value) and number is not None and 0 <= number <= MAX_ITEMS:
        return number
    problem = "comes from another node" if is_link(value) else f"is {quoted(str(unwrap(value)))}"
    raise InvalidPrompt(
        f"The number of items of {index.label(node_id)} {problem}.",
        cure=f"Write a whole number from 0 to {MAX_ITEMS} into its input {quoted(ITEMS_INPUT)}.",
        details={"node_id": node_id, "class_type": index.class_of(node_id), "input": ITEMS_INPUT},
    )


def _whole(value: Any) -> int | None:
    """The whole number that ``value`` is or spells; nothing and the empty text are 0."""
    if value is None or value == "":
        return 0
    if isinstance(value, float) and not value.is_integer():
        return None
    if not isinstance(value, (int, float, str)):
        return None
    try:
        return int(value)
    except ValueError:
        return None


def _on_failure(index: PromptIndex, node_id: str, value: Any) -> OnFailure:
    text = unwrap(value)
    if text is None:
        return "fail"
    if not is_link(value) and text in ON_FAILURE:
        return cast(OnFailure, text)
    problem = "comes from another node" if is_link(value) else f"is {quoted(str(text))}"
    raise InvalidPrompt(
        f"What {index.label(node_id)} is to do on failure {problem}.",
        cure=f"Write {' or '.join(quoted(one) for one in ON_FAILURE)} into its input {quoted(ON_FAILURE_INPUT)}.",
        details={"node_id": node_id, "class_type": index.class_of(node_id), "input": ON_FAILURE_INPUT},
    )
