"""The model side of a stage of tiles: what whoever computes a tile must run, and where the rest of the graph ends.

Walking up from the model inputs of the stage's node, the walk ends at every link that carries plain data. Those are
evaluated once, on the master, and sent: a worker never runs what made an image, and needs none of its files.

    CheckpointLoader ─MODEL─▶ LoraLoader ─MODEL─▶ ┐
                     ─CLIP──▶ TextEncode ─COND──▶ ┤ stage      LoadImage ═IMAGE═▶ ControlNetApply: cut here, "d0"
                                  ▲               ┘            Interrogator ═STRING═▶ TextEncode:   cut here, "d1"

What carries no data by its type, or whose type nobody knows, belongs to the model side, whoever else uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .classes import CONSTANT, INPUT, STAGE_CLASSES, TILE, VARYING_CLASSES
from .items import ItemValues, item_node
from .prompt import Link, Prompt, PromptIndex, copy_json, is_link, quoted, wrapped

BLOB_TYPES = frozenset({"IMAGE", "MASK", "LATENT", "AUDIO"})
"""Outputs that travel as blobs."""

CONSTANT_TYPES = frozenset({"STRING", "INT", "FLOAT", "BOOLEAN", "COMBO", "NUMBER"})
"""Outputs that travel inside of prompts."""

_DATA_TYPES = BLOB_TYPES | CONSTANT_TYPES
_COMBO = "COMBO"

OutputTypes = Callable[[str], Sequence[object] | None]
"""What the outputs of a node class are, one by one, as its host says it: the name of a type, several with commas
between them, or the list of a combo's choices. None: nobody knows the class."""

Source = tuple[str, int]
"""An output: the id of its node, and which one of that node's."""


@dataclass(frozen=True)
class Constant:
    """Data that stand in the prompt itself: any JSON value."""

    value: Any


@dataclass(frozen=True)
class Blob:
    """Data that travel beside the prompt, by the hash of its content."""

    hash: str


DataValue = Constant | Blob


def no_types(_class_type: str) -> None:
    """The `OutputTypes` of somebody who knows no class."""


@dataclass(frozen=True)
class ModelSide:
    """The nodes above the model inputs of the stage's node ``stage_id``.

    ``nodes`` are as a worker runs them, but for links to outputs that are data. ``roots`` are the links of the model
    inputs by name; ``data`` are the outputs to be evaluated on the master by key, ``choices`` the keys of those that
    choose from a list. All of it belongs together: leave it unchanged.
    """

    stage_id: str
    nodes: Prompt
    roots: Mapping[str, list[Any]]
    data: Mapping[str, Source]
    choices: frozenset[str] = frozenset()

    def prompt(
        self,
        values: Mapping[str, DataValue],
        root_class: str,
        root_inputs: Mapping[str, Any],
        names: Collection[str] | None = None,
    ) -> Prompt:
        """A prompt that a worker can queue: these nodes with the data in place, and under the stage's own id a node
        that takes the roots.

        Args:
            values: by key, one for each that `needed` tells of for these ``names``.
            root_class: of the node that takes the roots.
            root_inputs: its other inputs. They are copied, not changed.
            names: which of the roots it takes; None means all. Those that are not connected are passed over.
        """
        roots = self._chosen(names)
        return self._built(values, root_class, {**root_inputs, **roots})

    def probe(self) -> Prompt:
        """What a participant must be able to run, whatever the data will be."""
        return self.prompt(dict.fromkeys(self.data, Blob("")), TILE, {})

    def needed(self, names: Collection[str] | None = None) -> tuple[str, ...]:
        """The keys of the data that these roots (None: all) depend on, in their order."""
        above = self._above(self._chosen(names).values())
        return tuple(key for key, source in self.data.items() if source in above.data)

    def ready(self, known: Collection[str] = ()) -> dict[str, list[Any]]:
        """Links of what can be computed while only the ``known`` data are at hand: roots by their names, and as
        "ready0", "ready1" and so on the outputs that roots which must wait are made of."""
        waiting = self._waiting(known)
        links = {name: list(link) for name, link in self.roots.items() if not self._waits(link, waiting, known)}
        at_hand: dict[Source, None] = {}
        for node_id, node in self.nodes.items():
            if node_id in waiting:
                for link in _links_in(node["inputs"]):
                    if not self._waits(link, waiting, known) and _source(link) not in self._keys:
                        at_hand[_source(link)] = None
        taken = {_source(link) for link in links.values()}
        others = [source for source in at_hand if source not in taken]
        return links | {f"ready{number}": list(source) for number, source in enumerate(others)}

    def prompt_ready(
        self, root_class: str, root_inputs: Mapping[str, Any], known: Mapping[str, DataValue] | None = None
    ) -> Prompt | None:
        """A prompt that computes as much as can be (`ready`), under those names; None when that is nothing."""
        links = self.ready(known or ())
        return self._built(known or {}, root_class, {**root_inputs, **links}) if links else None

    @cached_property
    def _keys(self) -> dict[Source, str]:
        return {source: key for key, source in self.data.items()}

    def _chosen(self, names: Collection[str] | None) -> dict[str, list[Any]]:
        return {name: list(link) for name, link in self.roots.items() if names is None or name in names}

    def _above(self, links: Iterable[list[Any]]) -> _Above:
        """What the links lead to, and all above that."""
        above = _Above(set(), set())
        pending = list(links)
        while pending:
            source = _source(pending.pop())
            if source in self._keys:
                above.data.add(source)
            elif source[0] not in above.nodes:
                above.nodes.add(source[0])
                pending.extend(_links_in(self.nodes[source[0]]["inputs"]))
        return above

    def _waiting(self, known: Collection[str]) -> set[str]:
        """The nodes that depend on data which are not known yet."""
        consumers: dict[str, list[str]] = {}
        pending: list[str] = []
        for node_id, node in self.nodes.items():
            for link in _links_in(node["inputs"]):
                key = self._keys.get(_source(link))
                if key is None:
                    consumers.setdefault(link[0], []).append(node_id)
                elif key not in known:
                    pending.append(node_id)
        waiting: set[str] = set()
        while pending:
            node_id = pending.pop()
            if node_id not in waiting:
                waiting.add(node_id)
                pending.extend(consumers.get(node_id, ()))
        return waiting

    def _waits(self, link: list[Any], waiting: Collection[str], known: Collection[str]) -> bool:
        key = self._keys.get(_source(link))
        return link[0] in waiting if key is None else key not in known

    def _built(self, values: Mapping[str, DataValue], root_class: str, root_inputs: dict[str, Any]) -> Prompt:
        """The node that takes the roots, and what it needs. Raises KeyError for data that are needed and not given."""
        above = self._above(_links_in(root_inputs))
        filled: dict[Source, Any] = {}
        built: Prompt = {}
        for key, source in self.data.items():
            if source not in above.data:
                continue
            value = values[key]
            if isinstance(value, Constant) and key in self.choices:
                # Written in, so that the choice is looked up in the list of whoever runs it, and spelt as there.
                filled[source] = wrapped(value.value) if isinstance(value.value, list) else value.value
                continue
            # Linked, because hosts convert and limit what is written into an input, and not what comes over a link.
            input_id = self._free_id(key)
            built[input_id] = _input_node(value)
            filled[source] = [input_id, 0]
        needed = {node_id: node for node_id, node in self.nodes.items() if node_id in above.nodes}
        needed[self.stage_id] = {"class_type": root_class, "inputs": root_inputs}
        for node_id, node in needed.items():
            inputs = {
                name: filled.get(_source(value), value) if is_link(value) else value
                for name, value in node["inputs"].items()
            }
            built[node_id] = copy_json({**node, "inputs": inputs}, where=f"Node {quoted(node_id)}")
        return built

    def _free_id(self, key: str) -> str:
        input_id = f"{self.stage_id}.{key}"
        while input_id in self.nodes:
            input_id += "."
        return input_id


def _input_node(value: DataValue) -> dict[str, Any]:
    if isinstance(value, Blob):
        return {"class_type": INPUT, "inputs": {"hash": value.hash, "name": "value"}}
    return {"class_type": CONSTANT, "inputs": {"value": wrapped(value.value)}}


@dataclass(frozen=True)
class _Above:
    nodes: set[str]
    data: set[Source]


def model_side(index: PromptIndex, stage_id: str, output_types: OutputTypes) -> ModelSide:
    """The model side of a stage of tiles.

    Nodes that vary from item to item are as in item 0 with the defaults, constant model names in place of the links to
    them. The keys of the data follow from the graph alone: they are numbered as a walk meets them that goes up from
    the roots in their order, and at each node from its inputs in the order of their names.

    Args:
        index: must be free of circles above the stage (`PromptIndex.topological` tells).
        stage_id: a node whose class has ``tiles``.
        output_types: what the master's host says of a class.

    Raises:
        InvalidPrompt: a link leads to a node that is not there.
    """
    inputs = index.inputs_of(stage_id)
    wanted = STAGE_CLASSES[index.class_of(stage_id)].model_inputs
    roots = {name: list(inputs[name]) for name in wanted if is_link(inputs.get(name))}
    types = _Types(index, output_types)
    keys: dict[Source, str] = {}
    built: Prompt = {}
    pending = [(stage_id, name, link) for name, link in reversed(roots.items())]
    while pending:
        node_id, name, value = pending.pop()
        link = Link(name, value[0], value[1])
        index.require_source(node_id, link)
        if types.is_data(link):
            keys.setdefault(_source(value), f"d{len(keys)}")
        elif link.source not in built:
            node = built[link.source] = _plain_node(index, link.source)
            links = [(one, inner) for one, inner in node["inputs"].items() if is_link(inner)]
            pending.extend((link.source, one, inner) for one, inner in sorted(links, reverse=True))
    nodes = {node_id: built[node_id] for node_id in index if node_id in built}
    choices = frozenset(key for (source, slot), key in keys.items() if types.is_choice(Link("", source, slot)))
    return ModelSide(stage_id, nodes, roots, {key: source for source, key in keys.items()}, choices)


def _plain_node(index: PromptIndex, node_id: str) -> dict[str, Any]:
    """The node as it is outside of any item: with the values of a single one that nobody in particular computes."""
    varies = index.class_of(node_id) in VARYING_CLASSES
    values = ItemValues(index, [node_id]).of(0, 1, None) if varies else {}
    return item_node(index, node_id, values)


class _Types:
    """What links carry. Each class is asked about once."""

    def __init__(self, index: PromptIndex, output_types: OutputTypes) -> None:
        self._index = index
        self._output_types = output_types
        self._known: dict[str, Sequence[object] | None] = {}

    def is_data(self, link: Link) -> bool:
        """Whether it is plain data, which the master evaluates."""
        # What a stage gathers exists on the master only: run once more elsewhere, it would be something else.
        return self._index.class_of(link.source) in STAGE_CLASSES or self._names(link) <= _DATA_TYPES

    def is_choice(self, link: Link) -> bool:
        """Whether it is a choice from a list."""
        return _COMBO in self._names(link)

    def _names(self, link: Link) -> frozenset[str]:
        """The names of the types that the link may carry; "" when nobody knows."""
        class_type = self._index.class_of(link.source)
        if class_type not in self._known:
            self._known[class_type] = self._output_types(class_type)
        outputs = self._known[class_type]
        try:
            # Not by length: some packs have outputs that answer for any number.
            output = "" if outputs is None or link.slot < 0 else outputs[link.slot]
        except IndexError:
            output = ""
        if isinstance(output, (list, tuple)):
            return frozenset({_COMBO})
        # Packs have types of texts that claim to equal any other; a plain copy of the letters does not.
        text = str.__str__(output) if isinstance(output, str) else ""
        return frozenset(name.strip() for name in text.split(","))


def _links_in(inputs: Mapping[str, Any]) -> Iterator[list[Any]]:
    return (value for value in inputs.values() if is_link(value))


def _source(link: Sequence[Any]) -> Source:
    return link[0], link[1]
