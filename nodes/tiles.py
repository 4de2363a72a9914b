"""Nodes of upscales that only a plan or a running upscale puts into prompts. They show in no menu."""

from __future__ import annotations

import json
from typing import Any

from ..graph.classes import CONSTANT, INPUT, MODEL_TILE, PREPARE, TILE
from ..host.execution import executing_prompt_id
from ..host.node_api import io
from ..host.upscalers import run_tile
from ..runtime import context
from ..runtime.tile_stage import TileStage
from ..transport.values import Value
from ..upscale.clips import frame_hint, is_video
from ..upscale.one_tile import Sampling
from ..upscale.place import Place
from ..upscale.redraw_work import redrawn
from ..upscale.work import PIXELS, Models, result_of
from ..utils.errors import InvalidInput
from .gathering import kind_of

CATEGORY = "flotilla/internal"

PACKED = 16
"""Values that one node packs."""

READY = 64
"""Things besides its own inputs that a preparation can have computed."""


class FlotillaTile(io.ComfyNode):
    """Redraws the pixels that a master has sent, and hands them over."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=TILE,
            display_name="Redraw Tile",
            category=CATEGORY,
            is_output_node=True,
            is_dev_only=True,
            inputs=[
                io.Model.Input("model", optional=True),
                io.Conditioning.Input("positive", optional=True),
                io.Conditioning.Input("negative", optional=True),
                io.Vae.Input("vae", optional=True),
                io.Sampler.Input("custom_sampler", optional=True),
                io.Sigmas.Input("custom_sigmas", optional=True),
                io.String.Input(PIXELS),
                io.String.Input("place"),
                io.String.Input("sampling"),
                io.String.Input("made_of"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> float:
        """Never equal to itself: a tile that is wanted again is delivered again."""
        return float("nan")

    @classmethod
    def execute(cls, pixels: str, place: str, sampling: str, made_of: str, **models: Any) -> io.NodeOutput:
        where = Place.from_json(json.loads(place))
        given = Models(**models)
        values = context.input_values(executing_prompt_id(), pixels)
        made = redrawn(given, Sampling.from_json(json.loads(sampling)), where, values)
        hint = frame_hint(given.vae, where.frames, given.model) if where.all_frames > 1 else ""
        context.deliver(executing_prompt_id(), result_of(made, made_of, hint))
        return io.NodeOutput()


class FlotillaModelTile(io.ComfyNode):
    """Enlarges the pixels that a master has sent, and hands them over."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=MODEL_TILE,
            display_name="Enlarge Tile",
            category=CATEGORY,
            is_output_node=True,
            is_dev_only=True,
            inputs=[io.UpscaleModel.Input("upscale_model"), io.String.Input(PIXELS), io.String.Input("made_of")],
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> float:
        """Never equal to itself: a tile that is wanted again is delivered again."""
        return float("nan")

    @classmethod
    def execute(cls, upscale_model: Any, pixels: str, made_of: str) -> io.NodeOutput:
        values = context.input_values(executing_prompt_id(), pixels)
        made = run_tile(upscale_model, values[PIXELS].data)
        context.deliver(executing_prompt_id(), result_of(made, made_of))
        return io.NodeOutput()


class FlotillaPrepare(io.ComfyNode):
    """Has everything loaded that tiles will need, and tells the master what it is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=PREPARE,
            display_name="Prepare for Tiles",
            category=CATEGORY,
            is_output_node=True,
            is_dev_only=True,
            inputs=[
                io.Model.Input("model", optional=True),
                io.Conditioning.Input("positive", optional=True),
                io.Conditioning.Input("negative", optional=True),
                io.Vae.Input("vae", optional=True),
                io.Sampler.Input("custom_sampler", optional=True),
                io.Sigmas.Input("custom_sigmas", optional=True),
                io.UpscaleModel.Input("upscale_model", optional=True),
                *(io.AnyType.Input(f"ready{number}", optional=True) for number in range(READY)),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> float:
        """Never equal to itself: every master wants to be told."""
        return float("nan")

    @classmethod
    def execute(cls, vae: Any = None, model: Any = None, **_loaded: Any) -> io.NodeOutput:
        facts = {"video": is_video(vae, model)} if vae is not None else {}
        context.prepared(executing_prompt_id(), facts)
        return io.NodeOutput()


class FlotillaInput(io.ComfyNode):
    """A value that a master has sent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=INPUT,
            display_name="Value from Master",
            category=CATEGORY,
            is_dev_only=True,
            inputs=[io.String.Input("hash"), io.String.Input("name")],
            outputs=[io.AnyType.Output("value", display_name="value")],
        )

    @classmethod
    def execute(cls, **inputs: str) -> io.NodeOutput:
        return io.NodeOutput(context.input_values(executing_prompt_id(), inputs["hash"])[inputs["name"]].data)


class FlotillaConstant(io.ComfyNode):
    """A value that stands in the prompt, given on as it is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=CONSTANT,
            display_name="Constant",
            category=CATEGORY,
            is_dev_only=True,
            inputs=[io.AnyType.Input("value")],
            outputs=[io.AnyType.Output("value", display_name="value")],
        )

    @classmethod
    def execute(cls, value: Any) -> io.NodeOutput:
        return io.NodeOutput(value)


class FlotillaPack(io.ComfyNode):
    """Collects, on the master, what the model side of an upscale needs of the rest of the graph."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FlotillaPack",
            display_name="Pack Values",
            category=CATEGORY,
            is_dev_only=True,
            is_input_list=True,
            inputs=[
                io.AnyType.Input("before", optional=True),
                *(io.AnyType.Input(f"value{slot}", optional=True) for slot in range(PACKED)),
            ],
            outputs=[io.AnyType.Output("values", display_name="values")],
        )

    @classmethod
    def execute(cls, before: list[Any] | None = None, **values: list[Any]) -> io.NodeOutput:
        packed: list[Value] = list(before[0]) if before else []
        for slot in range(len(values)):
            entries = values[f"value{slot}"]
            if len(entries) != 1:
                raise InvalidInput(
                    "A list leads to the prompts, masks or hints of an upscale, and it takes one of each.",
                    cure="Take one entry of the list, or join its entries, in front of the node that uses it.",
                )
            packed.append(Value(kind_of(entries[0], len(packed)), entries[0]))
        return io.NodeOutput(packed)


def pack_nodes(stage: TileStage) -> tuple[dict[str, Any], list[Any]]:
    """Nodes to add that collect what the stage's model side needs, in the order of its keys, and the link to all of it."""
    sources = [list(source) for source in stage.side.data.values()]
    nodes: dict[str, Any] = {}
    link: list[Any] = []
    for start in range(0, len(sources), PACKED):
        inputs = {f"value{slot}": source for slot, source in enumerate(sources[start : start + PACKED])}
        if link:
            inputs["before"] = link
        node_id = stage.free_id("pack")
        nodes[node_id] = {
            "class_type": "FlotillaPack",
            "inputs": inputs,
            "override_display_id": stage.plan.node_id,
        }
        link = [node_id, 0]
    return nodes, link


NODES: list[type[io.ComfyNode]] = [
    FlotillaTile,
    FlotillaModelTile,
    FlotillaPrepare,
    FlotillaInput,
    FlotillaConstant,
    FlotillaPack,
]
