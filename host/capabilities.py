"""What this instance can run: node classes, and the choices of their combo inputs (models, samplers, ...)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable
from typing import Any

from comfy_api.internal import _ComfyNodeInternal, first_real_override

import nodes

from ..utils.log import get_logger

log = get_logger("host")

SLICE_NODES = 8
"""Node classes asked per turn of the loop: asking some takes milliseconds, and HTTP must go on meanwhile."""


Choices = dict[str, dict[str, tuple[str, ...]]]
"""Node class → input → the texts that its combo offers."""


async def read_capabilities() -> tuple[frozenset[str], Choices]:
    """The names of all node classes, and the choices of their combos.

    Runs on the server's loop in small slices: packs expect their ``INPUT_TYPES`` to be called there.
    """
    classes = frozenset(nodes.NODE_CLASS_MAPPINGS)
    options: Choices = {}
    for position, name in enumerate(sorted(classes)):
        if position % SLICE_NODES == 0:
            await asyncio.sleep(0)
        options.update(choices_of([name])[1])
    return classes, options


def choices_of(class_names: Iterable[str]) -> tuple[frozenset[str], Choices]:
    """The same for some classes only, as they are this very moment; names that the host does not know are left out.

    A class whose ``INPUT_TYPES`` fails is listed without choices.
    """
    known = frozenset(class_names) & nodes.NODE_CLASS_MAPPINGS.keys()
    options: Choices = {}
    for name in known:
        try:
            choices = _choices(nodes.NODE_CLASS_MAPPINGS[name])
        except Exception as error:
            log.debug("a node class does not tell its inputs", node_class=name, error=error)
            continue
        if choices:
            options[name] = choices
    return known, options


def output_types(class_name: str) -> tuple[object, ...] | None:
    """The types of a node class's outputs, as the host says them: a name, or the list of a combo's choices. None for a
    class that the host does not know, or that does not tell."""
    node_class = nodes.NODE_CLASS_MAPPINGS.get(class_name)
    try:
        return None if node_class is None else tuple(node_class.RETURN_TYPES)
    except Exception as error:
        log.debug("a node class does not tell its outputs", node_class=class_name, error=error)
        return None


def _choices(node_class: Any) -> dict[str, tuple[str, ...]]:
    """The combos whose values the host itself compares with the list: not those that a node's own validation takes over
    (image loaders do), since for them the list does not decide."""
    own, takes_all = _validated_by_node(node_class)
    if takes_all:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    input_types = node_class.INPUT_TYPES()
    for section in ("required", "optional"):
        for name, spec in (input_types.get(section) or {}).items():
            values = _combo_values(spec) if name not in own else None
            if values is not None:
                found[name] = values
    return found


def _validated_by_node(node_class: Any) -> tuple[frozenset[str], bool]:
    if issubclass(node_class, _ComfyNodeInternal):
        function = first_real_override(node_class, "validate_inputs")
    else:
        function = getattr(node_class, "VALIDATE_INPUTS", None)
    if function is None:
        return frozenset(), False
    spec = inspect.getfullargspec(function)
    return frozenset(spec.args), spec.varkw is not None


def _combo_values(spec: Any) -> tuple[str, ...] | None:
    if not isinstance(spec, (tuple, list)) or not spec:
        return None
    values = spec[0]
    if values == "COMBO" and len(spec) > 1 and isinstance(spec[1], dict):
        values = spec[1].get("options")
        if spec[1].get("multiselect") or spec[1].get("remote"):
            return None
    if not isinstance(values, (list, tuple)):
        return None
    return tuple(value for value in values if isinstance(value, str))
