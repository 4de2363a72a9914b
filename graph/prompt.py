"""API-format prompts as data: shape, links, order.

A prompt is ``{node_id: {"class_type": str, "inputs": {name: constant | [node_id, slot]}, "_meta"?: {...}}}``. Node ids
are opaque texts; they may hold colons and dots. Nothing here recurses, so a long chain of nodes is no risk, and every
walk visits a node once.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..utils.errors import InvalidPrompt

Prompt = dict[str, dict[str, Any]]

#: How deep lists and objects may nest inside one node. Real nodes stay below ten; the host's own tools overflow later.
MAX_VALUE_DEPTH = 128

#: Longest piece of foreign text (an id, a class, a value) quoted in a message.
MAX_QUOTED_CHARS = 120

_WRAPPER_KEY = "__value__"
_ID_PIECE = re.compile(r"[0-9]+|[^0-9]+")


@dataclass(frozen=True)
class Link:
    """One connection: input ``name`` of a node takes output ``slot`` of node ``source``."""

    name: str
    source: str
    slot: int


def is_link(value: object) -> bool:
    """True for ``[node_id, slot]``: a list of exactly one text and one whole number."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    )


def unwrap(value: Any) -> Any:
    """The constant inside ``{"__value__": constant}``, the host's way to write a list that is not a link."""
    if isinstance(value, dict) and _WRAPPER_KEY in value:
        return value[_WRAPPER_KEY]
    return value


def wrapped(value: Any) -> dict[str, Any]:
    """``{"__value__": value}``: a list or an object that the host is to take as a constant."""
    return {_WRAPPER_KEY: value}


def quoted(text: str) -> str:
    """``text`` in double quotes, shortened, on one line: fit for a message."""
    flat = " ".join(text.split())
    if len(flat) > MAX_QUOTED_CHARS:
        flat = flat[: MAX_QUOTED_CHARS - 1] + "…"
    return f'"{flat}"'


def natural_key(node_id: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key that puts "9" before "10" and "12:3" before "12:20". Total: equal keys mean equal ids."""
    pieces: list[tuple[int, int, str]] = []
    for piece in _ID_PIECE.findall(node_id):
        if piece[0] in "0123456789":
            digits = piece.lstrip("0")
            # Length first, then text, is the numeric order, without the cost and the limit of huge numbers.
            pieces.append((0, len(digits), digits))
        else:
            pieces.append((1, 0, piece))
    return tuple(pieces), node_id


def copy_json(value: Any, *, where: str) -> Any:
    """A copy of ``value`` that shares no list and no object with it.

    Raises:
        InvalidPrompt: it nests deeper than `MAX_VALUE_DEPTH` (``where`` names the place).
    """
    result: list[Any] = [None]
    pending: list[tuple[Any, Any, Any, int]] = [(value, result, 0, 0)]
    while pending:
        source, target, key, depth = pending.pop()
        if depth > MAX_VALUE_DEPTH:
            raise InvalidPrompt(f"{where} holds a value that is nested more than {MAX_VALUE_DEPTH} levels deep.")
        if isinstance(source, dict):
            # Keys are set in their order now, values filled in later: the copy keeps the order.
            target[key] = copied = dict.fromkeys(source)
            pending.extend((inner, copied, name, depth + 1) for name, inner in source.items())
        elif isinstance(source, list):
            target[key] = items = [None] * len(source)
            pending.extend((inner, items, place, depth + 1) for place, inner in enumerate(source))
        else:
            target[key] = source
    return result[0]


class PromptIndex:
    """A prompt with its links both ways.

    The prompt is read, never changed and not copied: the owner must leave it alone while the index is in use. Links to
    nodes that do not exist are noticed by the walks that meet them, not before, because the host judges the rest.

    Raises:
        InvalidPrompt: the prompt is not an object of nodes with an ``inputs`` object each; the message names the node.
    """

    def __init__(self, prompt: object) -> None:
        if not isinstance(prompt, dict):
            raise InvalidPrompt("The prompt is not an object of nodes.", cure="Export the workflow in API format.")
        self.prompt: Prompt = prompt
        self._links: dict[str, tuple[Link, ...]] = {}
        consumers: dict[str, dict[str, None]] = {}
        for node_id, node in prompt.items():
            self._check_node(node_id, node)
            links = tuple(Link(name, value[0], value[1]) for name, value in node["inputs"].items() if is_link(value))
            self._links[node_id] = links
            for link in links:
                consumers.setdefault(link.source, {})[node_id] = None
        self._consumers = {source: tuple(users) for source, users in consumers.items()}

    @staticmethod
    def _check_node(node_id: object, node: object) -> None:
        if not isinstance(node_id, str):
            raise InvalidPrompt(f"The id of a node must be a text, not {type(node_id).__name__}.")
        if not isinstance(node, dict):
            raise InvalidPrompt(f"Node {quoted(node_id)} is not an object.", details={"node_id": node_id})
        class_type = node.get("class_type")
        if not isinstance(class_type, str):
            # The host words a missing class well; only a class that cannot be compared is stopped here.
            if class_type is not None:
                raise InvalidPrompt(
                    f"The class of node {quoted(node_id)} is not a text.",
                    details={"node_id": node_id},
                )
            class_type = ""
        inputs = node.get("inputs")
        if not isinstance(inputs, dict) or not all(isinstance(name, str) for name in inputs):
            raise InvalidPrompt(
                f"The inputs of node {quoted(node_id)} ({class_type}) are not an object of named values.",
                details={"node_id": node_id, "class_type": class_type},
            )

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._links

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[str]:
        return iter(self._links)

    def class_of(self, node_id: str) -> str:
        """The class of a node; "" when the prompt does not say."""
        self._require(node_id)
        return self.prompt[node_id].get("class_type") or ""

    def inputs_of(self, node_id: str) -> Mapping[str, Any]:
        """The inputs of a node as they stand in the prompt. Do not change them."""
        self._require(node_id)
        inputs: dict[str, Any] = self.prompt[node_id]["inputs"]
        return inputs

    def links_of(self, node_id: str) -> tuple[Link, ...]:
        """The linked inputs of a node, in the order of its inputs."""
        self._require(node_id)
        return self._links[node_id]

    def consumers(self, node_id: str) -> tuple[str, ...]:
        """The nodes that take at least one output of this node, each once."""
        self._require(node_id)
        return self._consumers.get(node_id, ())

    def by_class(self, names: Iterable[str]) -> tuple[str, ...]:
        """The nodes whose class is among ``names``, in the natural order of their ids."""
        wanted = frozenset(names)
        return tuple(sorted((n for n in self._links if self.class_of(n) in wanted), key=natural_key))

    def upstream(self, ids: Iterable[str]) -> set[str]:
        """The given nodes and everything they depend on.

        Raises:
            InvalidPrompt: a link on the way leads to a node that is not in the prompt.
        """
        seen: set[str] = set()
        pending = list(ids)
        for node_id in pending:
            self._require(node_id)
        while pending:
            node_id = pending.pop()
            if node_id in seen:
                continue
            seen.add(node_id)
            for link in self._links[node_id]:
                self.require_source(node_id, link)
                pending.append(link.source)
        return seen

    def downstream(self, ids: Iterable[str]) -> set[str]:
        """The given nodes and everything that depends on them."""
        seen: set[str] = set()
        pending = list(ids)
        for node_id in pending:
            self._require(node_id)
        while pending:
            node_id = pending.pop()
            if node_id not in seen:
                seen.add(node_id)
                pending.extend(self._consumers.get(node_id, ()))
        return seen

    def topological(self, ids: Iterable[str] | None = None) -> tuple[str, ...]:
        """The nodes (all, or the given ones with links among them), every node after those it takes from.

        Among nodes that are ready together the natural order of ids decides, so the result does not depend on the
        order in which the prompt lists its nodes.

        Raises:
            InvalidPrompt: nodes depend on each other in a circle, or a link leads nowhere.
        """
        chosen = set(self._links if ids is None else ids)
        waits_for: dict[str, int] = {}
        for node_id in chosen:
            for link in self.links_of(node_id):
                self.require_source(node_id, link)
            waits_for[node_id] = len({link.source for link in self._links[node_id]} & chosen)
        ready = [(natural_key(node_id), node_id) for node_id, count in waits_for.items() if count == 0]
        heapq.heapify(ready)
        order: list[str] = []
        while ready:
            _, node_id = heapq.heappop(ready)
            order.append(node_id)
            for consumer in self._consumers.get(node_id, ()):
                if consumer in chosen:
                    waits_for[consumer] -= 1
                    if waits_for[consumer] == 0:
                        heapq.heappush(ready, (natural_key(consumer), consumer))
        if len(order) < len(chosen):
            self._raise_circle(chosen.difference(order))
        return tuple(order)

    def label(self, node_id: str) -> str:
        """``node "7" (KSampler)``: how messages name a node."""
        return f"node {quoted(node_id)} ({self.class_of(node_id) or 'no class'})"

    def require_source(self, node_id: str, link: Link) -> None:
        """Raise `InvalidPrompt` when the link leads to a node that is not there."""
        if link.source not in self._links:
            raise InvalidPrompt(
                f"Input {quoted(link.name)} of {self.label(node_id)} is connected to node {quoted(link.source)}, "
                "which is not in the prompt.",
                cure="Connect that input again.",
                details={"node_id": node_id, "class_type": self.class_of(node_id), "input": link.name},
            )

    def _require(self, node_id: str) -> None:
        if node_id not in self._links:
            raise InvalidPrompt(f"There is no node {quoted(node_id)} in the prompt.", details={"node_id": node_id})

    def _raise_circle(self, stuck: set[str]) -> None:
        # Every stuck node has a stuck source: walking up must come round.
        node_id = min(stuck, key=natural_key)
        path: dict[str, None] = {}
        while node_id not in path:
            path[node_id] = None
            node_id = next(link.source for link in self._links[node_id] if link.source in stuck)
        members = list(path)
        circle = members[members.index(node_id) :]
        raise InvalidPrompt(
            f"The nodes of this prompt depend on each other in a circle of {len(circle)}: "
            f"{self.label(circle[0])} takes from itself in the end.",
            cure="Remove one of the connections of the circle.",
            details={"node_id": circle[0], "class_type": self.class_of(circle[0]), "circle_size": len(circle)},
        )
