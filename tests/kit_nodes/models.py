"""Models and the like for tests of upscales: they count, wait, stand still or fail where it is asked for."""

from __future__ import annotations

import copy
from typing import Any

import comfy.model_management
import torch
from blake3 import blake3
from comfy_api.latest import io
from comfy_execution.utils import get_executing_context

from . import scene
from .aims import NO_INDEX, Rounds, is_meant, name_of_this_instance, speed_of
from .makers import CATEGORY, MAX_DELAY_S, MAX_SEED
from .pacing import rest, wait_until
from .passers import MAX_ITEM, output_file
from .records import append_line

MARK_EDGE_PX = 8
"""A tile is a marked one if this much in its middle is white."""

TILE_DIGITS = 12
"""Hexadecimal digits of a hash that make a tile's number in the lines of a count."""

_rounds = Rounds()


def _faults() -> list[io.Input]:
    return [
        io.Float.Input("delay_s", default=0.0, min=0.0, max=MAX_DELAY_S, step=0.01, optional=True),
        io.String.Input("speeds", default="", optional=True),
        io.String.Input(
            "fail", default="", optional=True, tooltip="The message to fail with; empty: it does not fail."
        ),
        io.String.Input("stall", default="", optional=True, tooltip="Stands still until kit_go_<stall>.txt is there."),
        io.String.Input("only_worker", default="", optional=True),
        io.Int.Input("times", default=0, min=0, max=MAX_ITEM, optional=True, tooltip="On each instance; 0: always."),
    ]


def _act(delay_s: float, speeds: str, fail: str, stall: str, only_worker: str, times: int) -> None:
    """Waits, and fails or stands still where that is meant. Stopped by Cancel within a nap."""
    name = name_of_this_instance()
    rest(delay_s / speed_of(name, speeds))
    if not (fail or stall) or not is_meant(name, NO_INDEX, only_worker, ""):
        return
    if _rounds.is_over(f"model {fail} {stall}", times):
        return
    if stall:
        wait_until(output_file("go", stall).exists)
    if fail:
        raise RuntimeError(fail)


class KitSlowModel(io.ComfyNode):
    """A model each of whose calls (one per step, as a rule) takes ``delay_s`` seconds, divided by the instance's speed.

    On those called ``only_worker`` (empty: on all) it fails or stands still, if that is asked for, the first ``times`` times.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitSlowModel",
            display_name="Kit Slow Model",
            category=CATEGORY,
            inputs=[io.Model.Input("model"), *_faults()],
            outputs=[io.Model.Output(display_name="model")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        delay_s: float = 0.0,
        speeds: str = "",
        fail: str = "",
        stall: str = "",
        only_worker: str = "",
        times: int = 0,
    ) -> io.NodeOutput:
        def call(apply_model: Any, asked: dict[str, Any]) -> Any:
            _act(delay_s, speeds, fail, stall, only_worker, times)
            return apply_model(asked["input"], asked["timestep"], **asked["c"])

        slow = model.clone()
        slow.set_model_unet_function_wrapper(call)
        return io.NodeOutput(slow)


class KitWatchVae(io.ComfyNode):
    """A VAE that adds a line to ``kit_count_<name>.txt`` for all that it encodes: the prompt's id, and a number for the pixels.

    Each time it also does what KitSlowModel does; with ``only_marked``, faults are for tiles that are white in their middle.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitWatchVae",
            display_name="Kit Watch VAE",
            category=CATEGORY,
            inputs=[
                io.Vae.Input("vae"),
                io.String.Input("name", default="tiles"),
                *_faults(),
                io.Boolean.Input("only_marked", default=False, optional=True),
            ],
            outputs=[io.Vae.Output(display_name="vae")],
        )

    @classmethod
    def execute(
        cls,
        vae: Any,
        name: str,
        delay_s: float = 0.0,
        speeds: str = "",
        fail: str = "",
        stall: str = "",
        only_worker: str = "",
        times: int = 0,
        only_marked: bool = False,
    ) -> io.NodeOutput:
        watched = copy.copy(vae)

        def encode(pixels: torch.Tensor) -> Any:
            if only_marked and not is_marked(pixels):
                _act(delay_s, speeds, "", "", "", 0)
            else:
                _act(delay_s, speeds, fail, stall, only_worker, times)
            made = vae.encode(pixels)
            context = get_executing_context()
            prompt_id = context.prompt_id if context else "-"
            append_line(output_file("count", name), f"{prompt_id} {number_of(pixels)}")
            return made

        watched.encode = encode
        return io.NodeOutput(watched)


def is_marked(pixels: torch.Tensor) -> bool:
    """Whether the middle of the pictures [n, h, w, 3] is white."""
    top, left = ((side - MARK_EDGE_PX) // 2 for side in pixels.shape[1:3])
    return bool((pixels[:, top : top + MARK_EDGE_PX, left : left + MARK_EDGE_PX] >= 1.0).all())


def number_of(pixels: torch.Tensor) -> int:
    """A number that stands for the pixels."""
    bits = pixels.detach().cpu().contiguous().numpy()
    return int(blake3(bits.tobytes()).hexdigest()[:TILE_DIGITS], 16)


class KitMark(io.ComfyNode):
    """Paints a rectangle of all images white."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        edges = [io.Int.Input(name, default=0, min=0, max=MAX_ITEM) for name in ("x", "y", "width", "height")]
        return io.Schema(
            node_id="KitMark",
            display_name="Kit Mark",
            category=CATEGORY,
            inputs=[io.Image.Input("image"), *edges],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, x: int, y: int, width: int, height: int) -> io.NodeOutput:
        marked = image.clone()
        marked[:, y : y + height, x : x + width] = 1.0
        return io.NodeOutput(marked)


class KitTint(io.ComfyNode):
    """Conditioning that follows from an image's pixels, as a hint's would."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitTint",
            display_name="Kit Tint",
            category=CATEGORY,
            inputs=[io.Conditioning.Input("conditioning"), io.Image.Input("image")],
            outputs=[io.Conditioning.Output(display_name="conditioning")],
        )

    @classmethod
    def execute(cls, conditioning: list[Any], image: torch.Tensor) -> io.NodeOutput:
        strength = float(image.double().mean())
        return io.NodeOutput(
            [
                [cond * strength, {**more, "pooled_output": more["pooled_output"] * strength}]
                for cond, more in conditioning
            ]
        )


class KitDescribe(io.ComfyNode):
    """A text that follows from an image's pixels, as a captioner's would."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitDescribe",
            display_name="Kit Describe",
            category=CATEGORY,
            inputs=[io.Image.Input("image")],
            outputs=[io.String.Output(display_name="text")],
        )

    @classmethod
    def execute(cls, image: torch.Tensor) -> io.NodeOutput:
        return io.NodeOutput(f"boats {number_of(image) % scene.MAX_BOATS + 1}")


class KitScene(io.ComfyNode):
    """The conditioning of a text such as ``boats 3``."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitScene",
            display_name="Kit Scene",
            category=CATEGORY,
            inputs=[io.String.Input("text", default="boats 1")],
            outputs=[io.Conditioning.Output(display_name="conditioning")],
        )

    @classmethod
    def execute(cls, text: str) -> io.NodeOutput:
        cond, pooled = scene.encode_scene(int(text.rsplit(" ", 1)[1]), scene.ANY_TIME)
        return io.NodeOutput([[cond, {"pooled_output": pooled}]])


class Enlarger:
    """An upscale model with the little that the pack and the host ask of one: it doubles, and blurs with odd weights."""

    scale = 2

    def __init__(self, seed: int) -> None:
        weights = torch.rand((3, 1, 3, 3), generator=torch.Generator().manual_seed(seed))
        self.model = torch.nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        self.model.weight = torch.nn.Parameter(weights / weights.sum((2, 3), keepdim=True), requires_grad=False)

    def to(self, device: Any) -> None:
        """As the host's upscale models."""
        self.model.to(device)

    def __call__(self, planes: torch.Tensor) -> torch.Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        doubled = planes.repeat_interleave(self.scale, dim=-1).repeat_interleave(self.scale, dim=-2)
        with torch.no_grad():
            made: torch.Tensor = self.model(doubled)
        return made


class KitUpscaleModel(io.ComfyNode):
    """An upscale model without a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitUpscaleModel",
            display_name="Kit Upscale Model",
            category=CATEGORY,
            inputs=[io.Int.Input("seed", default=0, min=0, max=MAX_SEED)],
            outputs=[io.UpscaleModel.Output(display_name="upscale_model")],
        )

    @classmethod
    def execute(cls, seed: int) -> io.NodeOutput:
        return io.NodeOutput(Enlarger(seed))


NODES: tuple[type[io.ComfyNode], ...] = (
    KitSlowModel,
    KitWatchVae,
    KitMark,
    KitTint,
    KitDescribe,
    KitScene,
    KitUpscaleModel,
)
