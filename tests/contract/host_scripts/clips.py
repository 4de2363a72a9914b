"""Run by `servers.on_host`: a clip redrawn by a video model. Model and VAE are of Wan's kind, tiny, with weights by chance."""

from __future__ import annotations

from typing import Any

import comfy.sd
import comfy.supported_models
import numpy as np
import torch
from comfy.ldm.wan.model import WanModel
from comfy.ldm.wan.vae import WanVAE
from flotilla.upscale.clips import PICTURE_MODELS, clip_length, frame_hint, is_video
from flotilla.upscale.geometry import Box, Size
from flotilla.upscale.one_tile import Models, Sampling, redraw
from flotilla.upscale.pixels import quantise
from flotilla.upscale.place import Place
from servers.on_host import report

import nodes

EDGE = 32
SETTINGS = {"seed": 7, "steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 0.5}


def by_chance(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(tensor.shape, generator=generator) / max(1, tensor[0].numel()) ** 0.5
        for name, tensor in module.state_dict().items()
    }


def wan_models() -> Models:
    operations = comfy.ops.disable_weight_init
    network = WanModel(dim=128, ffn_dim=128, num_heads=1, num_layers=1, operations=operations)
    text = torch.randn((1, 4, 4096), generator=torch.Generator().manual_seed(5))
    weights = by_chance(WanVAE(dim=16, z_dim=16, temperal_downsample=[False, True, True]))
    vae = comfy.sd.VAE(sd=weights)
    assert weights.keys() == vae.first_stage_model.state_dict().keys()  # else some would be what lay in memory
    return Models(
        model=comfy.sd.load_diffusion_model_state_dict(by_chance(network)),
        positive=[[text, {}]],
        negative=[[torch.zeros_like(text), {}]],
        vae=vae,
    )


def place(frames: int, tiles: int = 1) -> Place:
    crops = tuple(Box(EDGE * tile, 0, EDGE * (tile + 1), EDGE) for tile in range(tiles))
    canvas = Size(EDGE * tiles, EDGE)
    return Place(canvas, canvas, crops, Size(EDGE, EDGE), 0, frames, frames, False, "redraw")


def by_nodes(models: Models, pixels: np.ndarray) -> np.ndarray:
    (latent,) = nodes.VAEEncode().encode(models.vae, torch.from_numpy(pixels.astype(np.float32) / 255.0))
    (latent,) = nodes.common_ksampler(
        models.model, *list(SETTINGS.values())[:5], models.positive, models.negative, latent, denoise=0.5
    )
    return quantise(nodes.VAEDecode().decode(models.vae, latent)[0], clamp=True)


@torch.inference_mode()
def main() -> None:
    models, sampling = wan_models(), Sampling(**SETTINGS, tiled_decode=False)
    clip = np.random.default_rng(1).integers(0, 256, (5, EDGE, EDGE, 3), np.uint8)
    other = np.random.default_rng(2).integers(0, 256, (5, EDGE, EDGE, 3), np.uint8)

    whole, whole_other = by_nodes(models, clip), by_nodes(models, other)
    short = redraw(models, sampling, place(3), clip[:3])
    padded = by_nodes(models, clip[[0, 1, 2, 2, 2]])
    both = redraw(models, sampling, place(5, 2), np.stack([clip, other], 1).reshape(10, EDGE, EDGE, 3))
    both = both.reshape(5, 2, EDGE, EDGE, 3)

    def configuration(name: str) -> Any:
        return getattr(comfy.supported_models, name, None)

    report(
        {
            "is video": is_video(models.vae, models.model),
            "lengths": [clip_length(models.vae, frames) for frames in (1, 2, 5, 6)],
            "hint": frame_hint(models.vae, 6),
            "whole": bool((redraw(models, sampling, place(5), clip) == whole).all()),
            "levels": int(np.unique(whole).size),
            "short": [list(short.shape), bool((short == padded[:3]).all())],
            "single": bool((redraw(models, sampling, place(1), clip[:1]) == by_nodes(models, clip[:1])).all()),
            "both": [bool((both[:, 0] == whole).all()), bool((both[:, 1] == whole_other).all())],
            "picture models": {
                name: configuration(name).latent_format.latent_dimensions
                for name in sorted(PICTURE_MODELS)
                if configuration(name) is not None
            },
            "tiled": list(redraw(models, Sampling(**SETTINGS, tiled_decode=True), place(5), clip).shape),
        }
    )


main()
