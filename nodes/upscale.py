"""The upscale nodes: one picture, cut into tiles that are redrawn on all participants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..graph.classes import UPSCALE, UPSCALE_MODEL
from ..host.execution import executing_node_id, executing_prompt_id
from ..host.node_api import io
from ..runtime import context
from ..runtime.tile_stage import TileStage
from ..upscale.work import Models
from .tiles import pack_nodes
from .upscale_flow import UpscaleFlow
from .upscale_inputs import (
    MODEL_INPUTS,
    Asked,
    model_inputs,
    new_inputs,
    old_inputs,
    unknown_choice,
    upscaled_image_input,
)

CATEGORY = "image/upscaling"


class UltimateSDUpscaleDistributed(io.ComfyNode):
    """Redraws an upscaled picture tile by tile, as Ultimate SD Upscale does, on all participants at once."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=UPSCALE,
            display_name="Ultimate SD Upscale Distributed (No Upscale)",
            category=CATEGORY,
            description=(
                "Redraws a picture that is large already, tile by tile, on all participants. The pixels are the same "
                "however many take part; the modes linear and chess give those of Ultimate SD Upscale."
            ),
            inputs=[upscaled_image_input("upscaled_image"), *model_inputs(), *old_inputs(), *new_inputs()],
            outputs=[io.Image.Output("IMAGE", display_name="IMAGE")],
            hidden=[io.Hidden.prompt],
            enable_expand=True,
        )

    @classmethod
    def validate_inputs(cls, mode: Any = None, seam_fix_mode: Any = None) -> bool | str:
        """In place of the host's own look at these two, which knows nothing of what old workflows left there."""
        return unknown_choice(mode=mode, seam_fix_mode=seam_fix_mode) or True

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> str:
        """The result follows from the inputs, unless it may lack tiles."""
        return _fingerprint()

    @classmethod
    def check_lazy_status(cls, **inputs: Any) -> list[str]:
        """The master loads models only if it computes tiles."""
        return _wanted_models(_current_stage(), inputs)

    @classmethod
    async def execute(cls, **inputs: Any) -> io.NodeOutput:
        return await _upscale("upscaled_image", inputs, cls.hidden.prompt or {})


class DistributedUpscale(io.ComfyNode):
    """The same, with an enlargement in front: by an upscale model, or plain."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=UPSCALE_MODEL,
            display_name="Distributed Upscale",
            category=CATEGORY,
            description=(
                "Enlarges a picture, with an upscale model if one is connected, and redraws it tile by tile. Both are "
                "spread over all participants."
            ),
            inputs=[
                upscaled_image_input("image"),
                *model_inputs(),
                io.Float.Input(
                    "upscale_by", default=2.0, min=0.05, max=16.0, step=0.05, tooltip="How many times as wide and high."
                ),
                *old_inputs(),
                io.UpscaleModel.Input(
                    "upscale_model", optional=True, lazy=True, tooltip="ESRGAN and the like. Without it: plain Lanczos."
                ),
                *new_inputs(),
            ],
            outputs=[io.Image.Output("IMAGE", display_name="IMAGE")],
            hidden=[io.Hidden.prompt],
            enable_expand=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> str:
        """As for the node without an enlargement."""
        return _fingerprint()

    @classmethod
    def check_lazy_status(cls, **inputs: Any) -> list[str]:
        """As for the node without an enlargement."""
        return _wanted_models(_current_stage(), inputs)

    @classmethod
    async def execute(cls, **inputs: Any) -> io.NodeOutput:
        return await _upscale("image", inputs, cls.hidden.prompt or {})


class FlotillaUpscale(io.ComfyNode):
    """Goes on where an upscale node had to wait for something: for what its model side needs, or for models."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FlotillaUpscale",
            display_name="Continue Upscale",
            category="flotilla/internal",
            is_dev_only=True,
            enable_expand=True,
            inputs=[
                io.String.Input("stage"),
                io.String.Input("session"),
                io.Boolean.Input("goes_on"),
                io.AnyType.Input("data", optional=True),
                *model_inputs(optional=True),
                io.Sampler.Input("custom_sampler", optional=True, lazy=True),
                io.Sigmas.Input("custom_sigmas", optional=True, lazy=True),
                io.UpscaleModel.Input("upscale_model", optional=True, lazy=True),
            ],
            outputs=[io.Image.Output("IMAGE", display_name="IMAGE")],
            hidden=[io.Hidden.prompt],
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> float:
        """Never equal to itself: what it gives depends on the job, not on its inputs."""
        return float("nan")

    @classmethod
    def check_lazy_status(cls, stage: str, goes_on: bool, **inputs: Any) -> list[str]:
        """Everything where it goes on for want of models; else as for the node that people placed."""
        return _wanted_models(None if goes_on else _running(stage), inputs)

    @classmethod
    async def execute(cls, stage: str, session: str, goes_on: bool, data: Any = None, **inputs: Any) -> io.NodeOutput:
        run = _running(stage)
        if data is not None and not run.data:  # the first of a list brings it for all
            run.set_data(dict(zip(run.side.data, data, strict=True)))
        models = _models(inputs) if goes_on or run.takes_part else None
        return await _go(run, run.sessions.pop(session), models, cls.hidden.prompt or {})


async def _upscale(image_name: str, inputs: Mapping[str, Any], prompt: Mapping[str, Any]) -> io.NodeOutput:
    stage = _current_stage()
    models = _models(inputs)
    has_model = models.upscale_model is not None if stage is None else "upscale_model" in stage.side.roots
    node_id = (executing_node_id() or "") if stage is None else stage.plan.node_id
    flow = UpscaleFlow(Asked.of(inputs), inputs[image_name], has_upscale_model=has_model, node_id=node_id, stage=stage)
    if stage is None:
        outcome = await flow.run(models)
        if outcome is None:
            raise RuntimeError("an upscale that has its models asks for them")
        return outcome
    if stage.side.data and not stage.data:
        nodes, packed = pack_nodes(stage)
        return _going_on(stage, flow, nodes, goes_on=False, data=packed, **_links(stage, prompt))
    return await _go(stage, flow, models if stage.takes_part else None, prompt)


async def _go(stage: TileStage, flow: UpscaleFlow, models: Models | None, prompt: Mapping[str, Any]) -> io.NodeOutput:
    outcome = await flow.run(models)
    if outcome is not None:
        return outcome
    if models is not None:
        raise RuntimeError("an upscale that has its models asks for them")
    return _going_on(stage, flow, {}, goes_on=True, **_links(stage, prompt))


def _going_on(stage: TileStage, flow: UpscaleFlow, nodes: dict[str, Any], **inputs: Any) -> io.NodeOutput:
    """The output is that of a node that is added, which goes on with the picture."""
    added = stage.free_id("upscale")
    shown = stage.plan.node_id
    stage.sessions[added] = flow
    nodes[added] = {
        "class_type": "FlotillaUpscale",
        "inputs": {"stage": shown, "session": added, **inputs},
        "override_display_id": shown,
    }
    return io.NodeOutput([added, 0], expand=nodes)


def _links(stage: TileStage, prompt: Mapping[str, Any]) -> dict[str, Any]:
    """What leads to the model inputs of the node that people placed."""
    inputs = prompt.get(stage.plan.node_id, {}).get("inputs", {})
    return {name: inputs[name] for name in MODEL_INPUTS if isinstance(inputs.get(name), list)}


def _models(inputs: Mapping[str, Any]) -> Models:
    return Models(**{name: inputs.get(name) for name in MODEL_INPUTS})


def _wanted_models(stage: TileStage | None, inputs: Mapping[str, Any]) -> list[str]:
    if stage is not None and not stage.takes_part:
        return []
    return [name for name in MODEL_INPUTS if name in inputs and inputs[name] is None]


def _current_stage() -> TileStage | None:
    stage = context.stage_of(executing_prompt_id(), executing_node_id())
    return stage if isinstance(stage, TileStage) else None


def _running(stage_id: str) -> TileStage:
    stage = context.stage_of(executing_prompt_id(), stage_id)
    if not isinstance(stage, TileStage):
        raise RuntimeError("this node runs only in jobs of Flotilla")
    return stage


def _fingerprint() -> str:
    stage = _current_stage()
    return stage.fingerprint if stage is not None else ""
