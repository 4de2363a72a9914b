"""Run by `servers.on_host`: pictures enlarged by a small ESRGAN, tile by tile and by the host's own node.

Reported are digests, [ours, theirs] for each case, and what happens when memory runs out.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import folder_paths
import torch
from blake3 import blake3
from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel, UpscaleModelLoader
from flotilla.host.upscalers import run_tile
from flotilla.upscale.geometry import Size
from flotilla.upscale.model_pass import ModelCanvas
from flotilla.upscale.model_plan import ModelPlan
from flotilla.upscale.pixels import quantise
from safetensors.torch import save_file
from servers.on_host import report
from spandrel.architectures.ESRGAN import ESRGAN

MODEL_FILE = "small.safetensors"
GAIN = 20.0  # random weights are small; with this the result also leaves 0..1, where clamping matters
CASES = {
    "one tile": (1, 96, 64),
    "a wide strip": (1, 700, 48),
    "a grid of uneven tiles": (1, 1010, 530),
    "a batch": (2, 60, 530),
}


def load_model(folder: Path) -> Any:
    torch.manual_seed(1)
    network = ESRGAN(num_filters=4, num_blocks=1, scale=2)
    state = {key: value.clone().contiguous() for key, value in network.state_dict().items()}
    last = max(key for key in state if key.endswith("weight") and key.startswith("model."))
    state[last] *= GAIN
    save_file(state, folder / MODEL_FILE)
    folder_paths.add_model_folder_path("upscale_models", str(folder))
    return UpscaleModelLoader.execute(MODEL_FILE)[0]


def picture(batch: int, width: int, height: int) -> torch.Tensor:
    return torch.rand(batch, height, width, 3, generator=torch.Generator().manual_seed(width))


def enlarge(model: Any, image: torch.Tensor, order: random.Random) -> list[Any]:
    """The picture with depth ``float`` and with ``8bit``, from tiles in any order."""
    plan = ModelPlan(Size(image.shape[2], image.shape[1]), image.shape[0])
    canvases = [ModelCanvas(plan, depth=depth) for depth in ("float", "8bit")]
    numbers = list(range(len(plan.tiles)))
    order.shuffle(numbers)
    for number in numbers:
        result = run_tile(model, torch.from_numpy(plan.cut(image, number, "float")))
        for canvas in canvases:
            canvas.put(number, result)
    return [canvas.finish() for canvas in canvases]


def digest(array: Any) -> str:
    return f"{array.dtype} {list(array.shape)} {blake3(array.tobytes()).hexdigest()}"


class RunsOutOfMemory:
    """Doubles a picture, unless it is larger than ``limit_px`` on a side."""

    scale = 2

    def __init__(self, model: Any, limit_px: int) -> None:
        self.patcher, self.model = getattr(model, "patcher", None), model.model
        self.limit_px = limit_px
        self.asked: list[int] = []

    def to(self, _device: Any) -> None:
        pass

    def __call__(self, part: torch.Tensor) -> torch.Tensor:
        self.asked.append(max(part.shape[-2:]))
        if self.asked[-1] > self.limit_px:
            raise torch.cuda.OutOfMemoryError("no room")
        return torch.nn.functional.interpolate(part, scale_factor=2, mode="nearest")


def short_of_memory(model: Any, limit_px: int) -> dict[str, Any]:
    fake = RunsOutOfMemory(model, limit_px)
    pixels = picture(1, 512, 300)
    try:
        result = run_tile(fake, pixels)
    except torch.cuda.OutOfMemoryError:
        return {"asked": sorted(set(fake.asked), reverse=True), "error": True}
    doubled = pixels.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    off = float((result - doubled).abs().max())
    return {"asked": sorted(set(fake.asked), reverse=True), "shape": list(result.shape), "off": off}


def main() -> None:
    model = load_model(Path(sys.argv[1]))
    order = random.Random(3)
    data: dict[str, Any] = {}
    with torch.inference_mode():  # as the host runs its nodes
        for name, (batch, width, height) in CASES.items():
            image = picture(batch, width, height)
            theirs = ImageUpscaleWithModel.execute(model, image)[0]
            exact, rounded = enlarge(model, image, order)
            data[name] = [digest(exact), digest(theirs.numpy())]
            data[f"{name}, 8 bits"] = [digest(rounded), digest(quantise(theirs))]
            data.setdefault("range", []).append([float(theirs.min()), float(theirs.max()), float(theirs.std())])
        data["halved"] = short_of_memory(model, 256)
        data["too little"] = short_of_memory(model, 100)
    report(data)


main()
