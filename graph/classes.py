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
UPSCALE = "UltimateSDUpscaleDistributed"
UPSCALE_MODEL = "DistributedUpscale"

#: Written into the prompts of items, never offered to people.
DELIVER = "FlotillaDeliver"
OFFSET = "FlotillaOffset"
ITEM_CONSTANT = "FlotillaItem"
PICK = "FlotillaPick"
TILE = "FlotillaTile"
MODEL_TILE = "FlotillaModelTile"
PREPARE = "FlotillaPrepare"
INPUT = "FlotillaInput"
CONSTANT = "FlotillaConstant"

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
        UPSCALE,
        UPSCALE_MODEL,
        "DistributedEmptyImage",
        "ImageBatchDivider",
        "AudioBatchDivider",
    }
)

#: What an older orchestrator put into the inputs of classes that are ours.
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

    With ``tiles`` the items are parts of one picture, which are known only when the node is reached: then
    ``image_input`` is where the picture comes in, ``model_inputs`` are, in the order in which they are walked, those
    that whoever computes a tile needs, and all of the former but ``data_inputs`` is empty.
    """

    data_inputs: frozenset[str]
    control_inputs: frozenset[str] = frozenset()
    route_input: str = ""
    joins: bool = True
    tiles: bool = False
    image_input: str = ""
    model_inputs: tuple[str, ...] = ()


_ROUTE_INPUT = "load_balance"
_COLLECTOR_CONTROLS = frozenset({_ROUTE_INPUT, ITEMS_INPUT, ON_FAILURE_INPUT})
_MODEL_INPUTS = ("model", "positive", "negative", "vae", "custom_sampler", "custom_sigmas", "upscale_model")


def _tiled(image_input: str) -> StageClass:
    return StageClass(
        data_inputs=frozenset({image_input}), tiles=True, image_input=image_input, model_inputs=_MODEL_INPUTS
    )


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
    UPSCALE: _tiled("upscaled_image"),
    UPSCALE_MODEL: _tiled("image"),
}

#: Classes of stages whose items are tiles.
TILE_CLASSES = frozenset(name for name, stage in STAGE_CLASSES.items() if stage.tiles)


def is_own(class_type: str) -> bool:
    """True when every participant has this class, because the pack itself brings it."""
    return class_type in _OWN_CLASSES or class_type.startswith(_INTERNAL_PREFIX)


def is_leftover(class_type: str, input_name: str) -> bool:
    """True for an input that older software wrote into prompts and that has no meaning any more."""
    if class_type == VALUE and input_name.startswith(_SCREEN_ONLY_PREFIX):
        return True
    return class_type in _OWN_CLASSES and input_name in _INJECTED_INPUTS
