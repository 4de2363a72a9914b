"""Run by `servers.on_host`: whole upscales by the pack beside the plain whole-canvas oracle, both with the tiny model.

The oracle (`property/upscale_oracle.py`) is driven by the host's own nodes: VAEEncode, KSampler, VAEDecode. Reported are
digests, [ours, theirs] for each case.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import numpy as np
import torch
from blake3 import blake3
from flotilla.nodes.upscale_inputs import Asked
from flotilla.upscale.work import Models, result_of
from servers.on_host import report

import nodes
from devtools.tiny_model.build import build
from devtools.tiny_model.conditioning import encode_scene

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "property"))
from upscale_oracle import Wishes, upscale

SETTINGS = {"seed": 7, "steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 0.5}
TILE, PADDING, BLUR = 64, 16, 4

CASES: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
    "linear": ((1, 136, 208), {"mode": "linear"}),
    "chess, batch of 3": ((3, 136, 130), {"mode": "chess"}),
    "linear, fitted tiles": ((1, 136, 208), {"mode": "linear", "force_uniform_tiles": False}),
    "linear, odd size": ((1, 101, 171), {"mode": "linear", "padding": 0, "mask_blur": 0}),
    "chess, tiles in batches": ((2, 136, 144), {"mode": "chess", "tile_batch": 3}),
    "bands": ((1, 128, 136), {"mode": "none", "seam_fix_mode": "Band Pass", "seam_fix_width": 24}),
    "half tiles and crossings": ((1, 128, 136), {"mode": "linear", "seam_fix_mode": "Half Tile + Intersections"}),
    "seam blur and padding": (
        (2, 128, 130),
        {"mode": "chess", "seam_fix_mode": "Half Tile", "seam_fix_mask_blur": 16, "seam_fix_padding": 32},
    ),
}


def conditioning(boats: int | None, time: str | None) -> list[Any]:
    context, pooled = encode_scene(boats, time)
    return [[torch.tensor(context), {"pooled_output": torch.tensor(pooled)}]]


def picture(shape: tuple[int, int, int]) -> torch.Tensor:
    count, height, width = shape
    y, x = np.mgrid[0:height, 0:width] / 48.0
    waves = [np.stack([np.sin(x * 3 + k), np.cos(y * 2 - k), np.sin(x + y + 2 * k)], -1) for k in range(count)]
    noise = np.random.default_rng(5).uniform(-0.1, 0.1, (count, height, width, 3))
    return torch.from_numpy(np.clip(np.stack(waves) * 0.45 + 0.5 + noise, 0.0, 1.0).astype(np.float32))


def ours(models: Models, image: torch.Tensor, more: dict[str, Any]) -> np.ndarray:
    asked = Asked.of(
        {
            **SETTINGS,
            "tile_width": TILE,
            "tile_height": TILE,
            "padding": PADDING,
            "mask_blur": BLUR,
            "force_uniform_tiles": True,
            "tiled_decode": False,
            **more,
        }
    )
    work = asked.work(image, image, False)
    ready = work.start()
    while ready:
        place = ready.pop()  # not the order of the reference
        made = work.compute(place, models, work.cut(place))
        ready += work.arrived(place, result_of(made, ""))
    return work.result().numpy()


def theirs(models: Models, image: torch.Tensor, more: dict[str, Any]) -> np.ndarray:
    def sample(pixels: np.ndarray, _stage: str) -> np.ndarray:
        tensor = torch.from_numpy(pixels.astype(np.float32) / 255.0)
        (latent,) = nodes.VAEEncode().encode(models.vae, tensor)
        (latent,) = nodes.KSampler().sample(
            models.model,
            positive=models.positive,
            negative=models.negative,
            latent_image=latent,
            **SETTINGS,
        )
        (decoded,) = nodes.VAEDecode().decode(models.vae, latent)
        return decoded.numpy()

    names = {"force_uniform_tiles": "uniform", "seam_fix_mode": "seam_mode", "seam_fix_width": "seam_width"}
    names |= {"seam_fix_mask_blur": "seam_blur", "seam_fix_padding": "seam_padding"}
    wishes = {"padding": PADDING, "mask_blur": BLUR, **{names.get(name, name): value for name, value in more.items()}}
    return upscale(image.numpy(), Wishes(tile=(TILE, TILE), **wishes), sample)


def digest(pixels: np.ndarray) -> str:
    return f"{pixels.dtype}{pixels.shape}{blake3(np.ascontiguousarray(pixels).tobytes()).hexdigest()}"


def main() -> None:
    files = build(Path.cwd())
    models = Models(
        model=comfy.sd.load_diffusion_model(str(files.diffusion_model)),
        positive=conditioning(2, "dusk"),
        negative=conditioning(None, None),
        vae=comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(files.vae))),
    )
    found = {}
    for name, (shape, more) in CASES.items():
        image = picture(shape)
        found[name] = [digest(run(models, image, more)) for run in (ours, theirs)]
    report(found)


with torch.inference_mode():
    main()
