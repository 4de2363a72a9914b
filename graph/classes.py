"""The node classes that mean something to planning, by name, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SEED = "DistributedSeed"
VALUE = "DistributedValue"
ITEM = "DistributedItem"
PROMPTS = "DistributedPrompts"
MODEL_NAME = "DistributedModelName"
COLLECTOR = "DistributedCollector"
COLLECTOR_ANY = "DistributedCollectorAny"

#: Written into the prompts of items, never offered to people.
DELIVER = "FlotillaDeliver"
OFFSET = "FlotillaOffset"
ITEM_CONSTANT = "FlotillaItem"
PICK = "FlotillaPick"

_INTERNAL_PREFIX = "Flotilla"

#: Every participant has these: it runs the same pack, or there would be no link to it.
_OWN_CLASSES = frozenset(
    {
        SEED,
        VALUE,
        ITEM,
        PROMPTS,
        MODEL_NAME,
        COLLECTOR,
        COLLECTOR_ANY,
        "DistributedEmptyImage",
        "ImageBatchDivider",
        "AudioBatchDivider",
    }
)

#: Classes whose prompts may carry inputs that an older orchestrator put there.
_MAY_CARRY_INJECTED = _OWN_CLASSES | {"UltimateSDUpscaleDistributed"}

_INJECTED_INPUTS = frozenset(
    {
        "multi_job_id",
        "is_worker",
        "worker_id",
        "master_url",
        "enabled_worker_ids",
        "worker_batch_size",
        "delegate_only",
        "pass_through",
        "tile_indices",
        "dynamic_threshold",
    }
)

#: Widgets that exist on the screen only; exported prompts hold them all the same.
_SCREEN_ONLY_PREFIX = "_dv_"

#: Inputs of every stage class: how many items are wanted, and what missing ones mean.
ITEMS_INPUT = "items"
ON_FAILURE_INPUT = "on_failure"

#: Their output differs from item to item.
VARYING_CLASSES = frozenset({SEED, VALUE, ITEM, PROMPTS})


@dataclass(frozen=True)
class StageClass:
    """What planning has to know of a node class whose work is spread over participants.

    ``data_inputs`` are what an item delivers even when they are constants; ``control_inputs`` steer the node on the
    master and mean nothing in an item's prompt; ``route_input`` is the switch that asks for the way *route*. With
    ``joins`` the items become one value of each kind, otherwise a list of entries.
    """

    data_inputs: frozenset[str]
    control_inputs: frozenset[str]
    route_input: str
    joins: bool


_ROUTE_INPUT = "load_balance"
_COLLECTOR_CONTROLS = frozenset({_ROUTE_INPUT, ITEMS_INPUT, ON_FAILURE_INPUT})


STAGE_CLASSES: Mapping[str, StageClass] = {
    COLLECTOR: StageClass(
        data_inputs=frozenset({"images", "audio", "latent", "mask"}),
        control_inputs=_COLLECTOR_CONTROLS,
        route_input=_ROUTE_INPUT,
        joins=True,
    ),
    COLLECTOR_ANY: StageClass(
        data_inputs=frozenset({"value"}),
        control_inputs=_COLLECTOR_CONTROLS,
        route_input=_ROUTE_INPUT,
        joins=False,
    ),
}


def is_own(class_type: str) -> bool:
    """True when every participant has this class, because the pack itself brings it."""
    return class_type in _OWN_CLASSES or class_type.startswith(_INTERNAL_PREFIX)


def is_leftover(class_type: str, input_name: str) -> bool:
    """True for an input that older software wrote into prompts and that has no meaning any more."""
    if class_type == VALUE and input_name.startswith(_SCREEN_ONLY_PREFIX):
        return True
    return class_type in _MAY_CARRY_INJECTED and input_name in _INJECTED_INPUTS
