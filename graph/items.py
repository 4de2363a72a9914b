"""What one item of a stage is: the values it sees, and the prompt that a worker queues for it.

The values of an item are plain JSON, one entry for each node of the stage that varies, so that they can be shown,
compared and stored. The prompt of an item follows from the user's prompt, the stage and those values alone: it does
not depend on who runs it.

| node class | its value | in the item's prompt |
| --- | --- | --- |
| DistributedSeed | the seed; ``{"offset": k}`` when the seed is linked | constant seed; FlotillaOffset |
| DistributedValue | the value; ``{"default": "linked"}`` when only the linked default knows it | constant; the link |
| DistributedItem | ``{"index": k, "count": n}`` | FlotillaItem |
| DistributedPrompts | the line; ``{"index": k}`` when the text is linked | constant text; FlotillaPick |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..utils.errors import InvalidPrompt
from . import classes
from .prompt import Prompt, PromptIndex, copy_json, is_link, natural_key, wrapped
from .values import ValueMap, dealt_line, lines_of, model_name, seed_for, whole_number

_LINKED_DEFAULT = {"default": "linked"}

#: A worker taking part: its id and its position among the workers, from 1.
WorkerPlace = tuple[str, int]

_Maker = Callable[[int, int, WorkerPlace | None], Any]


def delivered_inputs(index: PromptIndex, stage_id: str) -> dict[str, Any]:
    """The inputs of a stage node that an item computes and delivers: all links but those that steer the node, and
    constants where data belong.

    Raises:
        InvalidPrompt: there are none, so there is nothing to collect.
    """
    class_type = index.class_of(stage_id)
    stage = classes.STAGE_CLASSES[class_type]
    kept = {
        name: value
        for name, value in index.inputs_of(stage_id).items()
        if name not in stage.control_inputs
        and not classes.is_leftover(class_type, name)
        and (is_link(value) or (name in stage.data_inputs and value is not None))
    }
    if not kept:
        names = ", ".join(sorted(stage.data_inputs))
        raise InvalidPrompt(
            f"Nothing is connected to {index.label(stage_id)}.",
            cure=f"Connect one of its inputs ({names}), or remove the node.",
            details={"node_id": stage_id, "class_type": class_type},
        )
    return kept


def varying_nodes(index: PromptIndex, stage_id: str) -> tuple[str, ...]:
    """The nodes above a stage whose output differs from item to item, in the natural order of their ids."""
    sources = [value[0] for value in delivered_inputs(index, stage_id).values() if is_link(value)]
    above = index.upstream(sources) if sources else set()
    varying = (node_id for node_id in above if index.class_of(node_id) in classes.VARYING_CLASSES)
    return tuple(sorted(varying, key=natural_key))


class ItemValues:
    """Makes the values of items for the given varying nodes.

    Texts and maps are read once, so that ten thousand items cost no more than ten thousand look-ups.
    """

    def __init__(self, index: PromptIndex, nodes: Iterable[str]) -> None:
        self._makers = {node_id: _maker(index, node_id) for node_id in nodes}

    def of(self, k: int, count: int, worker: WorkerPlace | None) -> dict[str, Any]:
        """The values of item ``k`` of ``count``. Without ``worker`` the defaults hold."""
        return {node_id: make(k, count, worker) for node_id, make in self._makers.items()}


def _maker(index: PromptIndex, node_id: str) -> _Maker:
    class_type = index.class_of(node_id)
    if class_type == classes.SEED:
        return _seed_maker(index, node_id)
    if class_type == classes.VALUE:
        return _value_maker(index, node_id)
    if class_type == classes.PROMPTS:
        return _line_maker(index, node_id)
    return lambda k, count, _worker: {"index": k, "count": count}


def _seed_maker(index: PromptIndex, node_id: str) -> _Maker:
    seed = index.inputs_of(node_id).get("seed")
    if is_link(seed):
        return lambda k, _count, _worker: {"offset": k}
    number = whole_number(seed)
    if number is None:
        # What is no number stays as it is: the host refuses it in its own words.
        return lambda _k, _count, _worker: copy_json(seed, where=index.label(node_id))
    return lambda k, _count, _worker: seed_for(number, k)


def _line_maker(index: PromptIndex, node_id: str) -> _Maker:
    text = index.inputs_of(node_id).get("text", "")
    if is_link(text):
        return lambda k, _count, _worker: {"index": k}
    lines = lines_of(text)
    return lambda k, _count, _worker: dealt_line(lines, k)


def _value_maker(index: PromptIndex, node_id: str) -> _Maker:
    inputs = index.inputs_of(node_id)
    values = ValueMap.parse(inputs.get("worker_values"))
    default = inputs.get("default_value", "")

    def make(_k: int, _count: int, worker: WorkerPlace | None) -> Any:
        found, own = values.own(*worker) if worker is not None else (False, None)
        if found:
            return copy_json(own, where=index.label(node_id))
        if is_link(default):
            return dict(_LINKED_DEFAULT)
        return copy_json(values.default(default), where=index.label(node_id))

    return make


def item_prompt(index: PromptIndex, stage_id: str, values: Mapping[str, Any]) -> Prompt:
    """The prompt of one item: the stage node as FlotillaDeliver and what it needs, with the item's values written in.

    Model names given as constants take the place of the links to them, so that the host checks them in the list of
    the node that loads the model. The result shares no list and no object with the user's prompt, which must be free
    of circles above the stage (`PromptIndex.topological` tells).

    Raises:
        InvalidPrompt: nothing is connected to the stage node, or a link leads nowhere.
    """
    built: Prompt = {}
    pending = [stage_id]
    while pending:
        node_id = pending.pop()
        if node_id in built:
            continue
        if node_id == stage_id:
            node = _with_names(index, node_id, classes.DELIVER, delivered_inputs(index, node_id))
        else:
            node = item_node(index, node_id, values)
        pending.extend(value[0] for value in node["inputs"].values() if is_link(value))
        built[node_id] = copy_json(node, where=index.label(node_id))
    return {node_id: built[node_id] for node_id in index if node_id in built}


def item_node(index: PromptIndex, node_id: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A node above the stage as it stands in the item's prompt. The values of its inputs are those of the user's
    prompt, not copies."""
    return _with_names(index, node_id, *_rewritten(index, node_id, values))


def _with_names(index: PromptIndex, node_id: str, class_type: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The node, with constant model names in place of the links to them."""
    resolved = {name: _resolved(index, value) if is_link(value) else value for name, value in inputs.items()}
    node: dict[str, Any] = {"class_type": class_type, "inputs": resolved}
    original = index.prompt[node_id]
    if "_meta" in original:
        node["_meta"] = original["_meta"]
    return node


def _rewritten(index: PromptIndex, node_id: str, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Class and inputs of a node in the item's prompt; the inputs are a new object, their values are not."""
    class_type = index.class_of(node_id)
    inputs = {
        name: value for name, value in index.inputs_of(node_id).items() if not classes.is_leftover(class_type, name)
    }
    if class_type not in classes.VARYING_CLASSES:
        return class_type, inputs
    value = values[node_id]
    if class_type == classes.ITEM:
        return classes.ITEM_CONSTANT, dict(value)
    if class_type == classes.SEED:
        if is_link(inputs.get("seed")):
            return classes.OFFSET, {"value": inputs["seed"], **value}
        inputs["seed"] = value
    elif class_type == classes.PROMPTS:
        if is_link(inputs.get("text")):
            return classes.PICK, {"text": inputs["text"], **value}
        inputs["text"] = value
    else:
        worker_values = inputs.get("worker_values")
        if value != _LINKED_DEFAULT or not is_link(inputs.get("default_value")):
            # Bare, a list of a text and a number would be read as a link.
            inputs["default_value"] = wrapped(value) if isinstance(value, (list, dict)) else value
        if not is_link(worker_values):
            inputs["worker_values"] = ValueMap.parse(worker_values).only_type()
    return class_type, inputs


def _resolved(index: PromptIndex, link: list[Any]) -> Any:
    """The link, or the constant model name at the end of the chain of Distributed Model Name nodes that it starts."""
    source: Any = link
    while is_link(source):
        if index.class_of(source[0]) != classes.MODEL_NAME:
            return link
        source = index.inputs_of(source[0]).get("text")
    name = model_name(source)
    return link if name is None else name
