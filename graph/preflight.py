"""Can this participant run that prompt? Told from its node classes and the choices of its lists, before any work.

A worker sends its `Capabilities` over the link; `fit` compares a prompt with them and, where a file name differs only
in separators or case, writes it as the worker spells it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..utils.errors import InvalidInput
from .classes import is_own
from .prompt import Prompt, copy_json, quoted, unwrap, wrapped

#: Caps of the wire form. A very full ComfyUI has some 5,000 classes, 10,000 lists and 20,000 files in one list.
MAX_CLASSES = 50_000
MAX_LISTS = 50_000
MAX_CHOICES_IN_ALL = 2_000_000
MAX_TEXT_CHARS = 4_096

Choices = tuple[str, ...]


@dataclass(frozen=True)
class Capabilities:
    """What one ComfyUI offers.

    ``classes`` are its node classes; ``options`` holds, by class and input, the choices that its host accepts there
    (texts only). An input is to be listed only when its host compares values with the list: one that a node checks by
    itself, as image loaders do with their file, is better left out.
    """

    classes: frozenset[str]
    options: Mapping[str, Mapping[str, Choices]] = field(default_factory=dict)

    def to_wire(self) -> dict[str, Any]:
        """The JSON form, in which equal lists of choices are written once."""
        places: dict[Choices, int] = {}
        options = {
            class_type: {name: places.setdefault(choices, len(places)) for name, choices in inputs.items()}
            for class_type, inputs in self.options.items()
            if inputs
        }
        return {"classes": sorted(self.classes), "lists": [list(choices) for choices in places], "options": options}

    @classmethod
    def from_wire(cls, data: object) -> Capabilities:
        """Read the JSON form of another instance, which may be of a newer version: unknown keys are passed over.

        Raises:
            InvalidInput: it is not of that form, or over a cap.
        """
        form = _object(data, "capabilities")
        names = _texts(form.get("classes"), "classes", MAX_CLASSES)
        raw_lists = _list(form.get("lists", []), "lists", MAX_LISTS)
        lists: list[Choices] = []
        left = MAX_CHOICES_IN_ALL
        for number, raw in enumerate(raw_lists):
            lists.append(_texts(raw, f"lists[{number}]", left))
            left -= len(lists[-1])
        raw_options = _object(form.get("options", {}), "options", MAX_CLASSES)
        inputs_left = MAX_LISTS
        options: dict[str, Mapping[str, Choices]] = {}
        for class_type, raw_inputs in raw_options.items():
            inputs = _object(raw_inputs, f"options of {quoted(class_type)}", inputs_left)
            inputs_left -= len(inputs)
            options[class_type] = {name: _at(lists, place, class_type, name) for name, place in inputs.items()}
        return cls(frozenset(names), MappingProxyType(options))


@dataclass(frozen=True)
class Missing:
    """One thing of a prompt that a participant lacks: the node class (``input_name`` is None), or one choice of it."""

    node_id: str
    class_type: str
    input_name: str | None = None
    value: str | None = None

    @property
    def reason(self) -> str:
        """``lacks node class "Foo"`` or ``has no "x.safetensors" for CheckpointLoaderSimple.ckpt_name``."""
        if self.input_name is None:
            return f"lacks node class {quoted(self.class_type)}"
        return f"has no {quoted(self.value or '')} for {self.class_type}.{self.input_name}"


def fit(prompt: Prompt, capabilities: Capabilities) -> tuple[Prompt, list[Missing]]:
    """The prompt in the participant's spelling, and what the participant lacks for it (nothing: it can run it).

    Texts that stand for a choice of a list are looked up exactly, then with either path separator, then, where that
    leaves one candidate, without regard to case. Linked inputs, numbers and switches are never touched. A node without
    a class is left to the host to report. The result is a copy; the given prompt is not changed.
    """
    fitted: Prompt = {}
    missing: list[Missing] = []
    finder = _Finder()
    for node_id, original in prompt.items():
        node = copy_json(original, where=f"node {quoted(node_id)}")
        fitted[node_id] = node
        class_type = node["class_type"]
        if class_type and class_type not in capabilities.classes and not is_own(class_type):
            missing.append(Missing(node_id, class_type))
            continue
        for name, choices in capabilities.options.get(class_type, {}).items():
            if name in node["inputs"]:
                node["inputs"][name], lacking = finder.fit_value(node["inputs"][name], choices)
                missing.extend(Missing(node_id, class_type, name, value) for value in lacking)
    return fitted, missing


def reasons_of(missing: Iterable[Missing], *, at_most: int = 5) -> str:
    """One line for people: each reason once, the first few of them."""
    reasons = list(dict.fromkeys(one.reason for one in missing))
    more = len(reasons) - at_most
    return "; ".join(reasons[:at_most]) + (f"; and {more} more" if more > 0 else "")


class _Finder:
    """Looks values up in lists of choices. Each list is prepared once, and only as far as it is needed."""

    def __init__(self) -> None:
        # By identity, not by content: hashing a list of 20,000 names for every node would cost more than it saves.
        self._exact: dict[int, frozenset[str]] = {}
        self._folded: dict[int, tuple[dict[str, list[str]], dict[str, list[str]]]] = {}

    def fit_value(self, value: Any, choices: Choices) -> tuple[Any, list[str]]:
        """The value of an input as the participant spells it, and the texts in it that the list does not hold."""
        inner = unwrap(value)
        if isinstance(inner, str):
            found = self._find(inner, choices)
            if found is None:
                return value, [inner]
            return value if found == inner else found, []
        if isinstance(inner, list) and inner is not value:
            # Several choices at once: only the wrapped form is a constant for certain.
            pairs = [(one, self._find(one, choices) if isinstance(one, str) else one) for one in inner]
            return wrapped([one if found is None else found for one, found in pairs]), [
                one for one, found in pairs if isinstance(one, str) and found is None
            ]
        return value, []

    def _find(self, value: str, choices: Choices) -> str | None:
        exact = self._exact.get(id(choices))
        if exact is None:
            exact = self._exact[id(choices)] = frozenset(choices)
        if value in exact:
            return value
        if id(choices) not in self._folded:
            by_path: dict[str, list[str]] = {}
            by_case: dict[str, list[str]] = {}
            for choice in dict.fromkeys(choices):
                by_path.setdefault(_fold_path(choice), []).append(choice)
                by_case.setdefault(_fold_path(choice).casefold(), []).append(choice)
            self._folded[id(choices)] = (by_path, by_case)
        by_path, by_case = self._folded[id(choices)]
        path = _fold_path(value)
        if path in by_path:
            return by_path[path][0]
        candidates = by_case.get(path.casefold(), [])
        return candidates[0] if len(candidates) == 1 else None


def _fold_path(text: str) -> str:
    return text.replace("\\", "/")


def _object(value: object, what: str, cap: int = MAX_CLASSES) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidInput(f"The {what} of a worker are not an object.")
    if len(value) > cap or any(len(key) > MAX_TEXT_CHARS for key in value):
        raise InvalidInput(f"The {what} of a worker are over the cap.", details={"cap": cap})
    return value


def _list(value: object, what: str, cap: int) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidInput(f"The {what} in the capabilities of a worker are not a list.")
    if len(value) > cap:
        raise InvalidInput(f"The {what} in the capabilities of a worker are over the cap.", details={"cap": cap})
    return value


def _texts(value: object, what: str, cap: int) -> Choices:
    texts = tuple(_list(value, what, cap))
    if not all(isinstance(text, str) and len(text) <= MAX_TEXT_CHARS for text in texts):
        raise InvalidInput(
            f"The {what} in the capabilities of a worker must be texts of at most {MAX_TEXT_CHARS} characters."
        )
    return texts


def _at(lists: list[Choices], place: object, class_type: str, name: str) -> Choices:
    if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < len(lists):
        raise InvalidInput(
            f"The capabilities of a worker name a list that is not there for {quoted(class_type)}.{quoted(name)}."
        )
    return lists[place]
