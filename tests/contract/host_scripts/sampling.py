"""Run by `servers.on_host`: tiles redrawn by the pack beside the same done by the host's own nodes, with the tiny model.

Reported are digests, [ours, theirs] for each case, and a few numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.samplers
import comfy.sd
import comfy.utils
import numpy as np
import torch
from blake3 import blake3
from comfy_extras.nodes_custom_sampler import BasicScheduler, KSamplerSelect, SamplerCustom
from flotilla.host import sampling as host
from flotilla.upscale.geometry import Box, Size
from flotilla.upscale.one_tile import STEADY_SAMPLERS, Models, Sampling, redraw
from flotilla.upscale.pixels import quantise
from flotilla.upscale.place import Place
from servers.on_host import report

import nodes
from devtools.tiny_model.build import build
from devtools.tiny_model.conditioning import encode_scene

SETTINGS = {"seed": 7, "steps": 3, "cfg": 2.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 0.5}


def conditioning(boats: int | None, time: str | None) -> list[Any]:
    context, pooled = encode_scene(boats, time)
    return [[torch.tensor(context), {"pooled_output": torch.tensor(pooled)}]]


def tiny_models(folder: Path, **more: Any) -> Models:
    files = build(folder)
    return Models(
        model=comfy.sd.load_diffusion_model(str(files.diffusion_model)),
        positive=conditioning(2, "dusk"),
        negative=conditioning(None, None),
        vae=comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(files.vae))),
        **more,
    )


def sampling(**changes: Any) -> Sampling:
    return Sampling(**{**SETTINGS, "tiled_decode": False, **changes})


def place(width: int, height: int, frames: int = 1, tiles: int = 1, *, parity: bool = True) -> Place:
    size = Size(width, height)
    crops = tuple(Box(width * tile, 0, width * (tile + 1), height) for tile in range(tiles))
    canvas = Size(width * tiles, height)
    return Place(canvas, canvas, crops, size, 0, frames, frames, parity, "redraw")


def picture(count: int, width: int, height: int) -> np.ndarray:
    """Smooth colours, each picture another."""
    y, x = np.mgrid[0:height, 0:width] / 64.0
    waves = [
        np.stack([np.sin(x * c + k), np.cos(y * c - k), np.sin(x + y + c * k)], -1) for k, c in enumerate((1, 2, 3, 5))
    ]
    return np.stack([(127.5 * (wave + 1.0)).astype(np.uint8) for wave in waves])[[k % 4 for k in range(count)]]


def digest(pixels: Any) -> str:
    array = np.ascontiguousarray(pixels)
    return f"{array.dtype}{array.shape}{blake3(array.tobytes()).hexdigest()}"


def by_nodes(models: Models, pixels: np.ndarray, *, tiled: bool = False, **changes: Any) -> torch.Tensor:
    """VAEEncode, KSampler, VAEDecode."""
    settings = {**SETTINGS, **changes}
    tensor = torch.from_numpy(pixels.astype(np.float32) / 255.0 if pixels.dtype == np.uint8 else pixels)
    (latent,) = nodes.VAEEncode().encode(models.vae, tensor)
    (latent,) = nodes.KSampler().sample(
        models.model,
        settings["seed"],
        settings["steps"],
        settings["cfg"],
        settings["sampler_name"],
        settings["scheduler"],
        models.positive,
        models.negative,
        latent,
        settings["denoise"],
    )
    decoded: torch.Tensor = (
        nodes.VAEDecodeTiled().decode(models.vae, latent, 512)
        if tiled
        else nodes.VAEDecode().decode(models.vae, latent)
    )[0]
    return decoded


def like_nodes(models: Models) -> dict[str, list[str]]:
    """Cases that must be equal bit for bit."""
    one, three, four, odd, wide = (
        picture(1, 64, 48),
        picture(3, 64, 64),
        picture(4, 32, 32),
        picture(1, 100, 60),
        picture(1, 576, 32),
    )
    floats = one.astype(np.float32) / np.float32(255) * np.float32(0.99)
    cases = {
        "one": (redraw(models, sampling(), place(64, 48), one), by_nodes(models, one)),
        "batch": (redraw(models, sampling(), place(64, 64, 3), three), by_nodes(models, three)),
        "group": (redraw(models, sampling(), place(32, 32, 2, 2), four), by_nodes(models, four)),
        "ancestral batch": (
            redraw(models, sampling(sampler_name="euler_ancestral"), place(64, 64, 3), three),
            by_nodes(models, three, sampler_name="euler_ancestral"),
        ),
        "odd size": (redraw(models, sampling(), place(100, 60), odd), by_nodes(models, odd)),
        "tiled": (
            redraw(models, sampling(tiled_decode=True), place(576, 32), wide),
            by_nodes(models, wide, tiled=True),
        ),
        "own mode": (redraw(models, sampling(), place(64, 48, parity=False), one), by_nodes(models, one)),
    }
    pairs = {name: [digest(ours), digest(quantise(theirs))] for name, (ours, theirs) in cases.items()}
    ours, theirs = redraw(models, sampling(), place(64, 48), floats), by_nodes(models, floats)
    pairs["floats"] = [digest(ours), digest(theirs.numpy())]
    return pairs


def custom(models: Models) -> list[str]:
    """A custom sampler, beside SamplerCustom."""
    pixels = picture(2, 64, 48)
    sampler = KSamplerSelect.execute("dpmpp_2s_ancestral").args[0]
    sigmas = BasicScheduler.execute(models.model, "simple", 3, 0.6).args[0]
    with_sampler = Models(
        models.model, models.positive, models.negative, models.vae, custom_sampler=sampler, custom_sigmas=sigmas
    )
    ours = redraw(with_sampler, sampling(), place(64, 48, 2), pixels)
    (latent,) = nodes.VAEEncode().encode(models.vae, torch.from_numpy(pixels.astype(np.float32) / 255.0))
    made = SamplerCustom.execute(
        models.model, True, 7, 2.0, models.positive, models.negative, sampler, sigmas, latent
    ).args[0]
    (theirs,) = nodes.VAEDecode().decode(models.vae, made)
    return [digest(ours), digest(quantise(theirs))]


def furthest(models: Models, name: str) -> int:
    """In an own mode: how far, in 8-bit levels, the pictures of a chunk are from what they are alone."""
    pixels, how = picture(2, 32, 32), sampling(sampler_name=name)
    chunk = redraw(models, how, place(32, 32, 2, parity=False), pixels)
    second = redraw(models, how, place(32, 32, parity=False), pixels[1:])
    return int(np.abs(chunk[1].astype(int) - second[0]).max())


def spread_in_batch(models: Models, name: str) -> int:
    """How far two equal pictures with equal noise come apart in one batch of the host's sampler, in 8-bit levels."""
    pixels = np.repeat(picture(1, 32, 32), 2, axis=0)
    latent = {**host.encode(models.vae, torch.from_numpy(pixels / np.float32(255))), "batch_index": [0, 0]}
    made = host.sample(models.model, models.positive, models.negative, latent, **{**SETTINGS, "sampler_name": name})
    first, second = quantise(host.decode(models.vae, made, tiled=False), clamp=True).astype(int)
    return int(np.abs(first - second).max())


def steps_shown(models: Models) -> list[tuple[int, int]]:
    """What the progress bar of the running node is told: (value, total)."""
    shown: list[tuple[int, int]] = []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, *_, **__: shown.append((value, total)))
    try:
        redraw(models, sampling(denoise=1.0), place(32, 32), picture(1, 32, 32))
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    return shown


@torch.inference_mode()
def main() -> None:
    models = tiny_models(Path.cwd() / "models")
    known = set(comfy.samplers.KSampler.SAMPLERS)
    names = sorted((STEADY_SAMPLERS & known) | {"euler_ancestral", "dpmpp_2m_sde"})
    report(
        {
            "like nodes": like_nodes(models),
            "custom": custom(models),
            "furthest": {name: furthest(models, name) for name in names},
            "spread": {name: spread_in_batch(models, name) for name in names},
            "unknown": sorted(STEADY_SAMPLERS - known),
            "steps": steps_shown(models),
        }
    )


main()
