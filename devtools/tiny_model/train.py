"""Trains the tiny model from nothing but ``scenes.py``: first the autoencoder, then the flow transformer.

    python -m devtools.tiny_model.train --out devtools/tiny_model/weights --minutes 15 --seed 1

With ``--resume`` it goes on from the weights in ``--out``: the encoder stays as it is, so that the latents keep their meaning,
while the decoder and the transformer are trained further.

Seeded, but not reproducible to the bit: the number of steps follows from the time given.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conditioning import CONDITION_WIDTH, scene_places
from .expand import Weights, load_shipped, save_shipped
from .network import Autoencoder, FlowTransformer, Layer
from .optimiser import Muon
from .preview import PREVIEW_BIAS, PREVIEW_FACTORS
from .scenes import draw_scene, pick_scene

AUTOENCODER_SHARE = 0.33
AUTOENCODER_SCENES = 4_000
FLOW_SCENES = 12_000
DRAW_CHUNK = 250
SEED_STRIDE = 1_000_000
PROGRESS_INTERVAL_S = 15.0
DOWNSCALE = 8

CROP_PX = 64
AUTOENCODER_BATCH = 16
AUTOENCODER_MUON_RATE = 6e-3
AUTOENCODER_ADAM_RATE = 2e-3
LATENT_NOISE = 0.10
EDGE_WEIGHT = 0.5
SQUARE_WEIGHT = 4.0
PREVIEW_WEIGHT = 0.05
LATENT_SIZE_WEIGHT = 4e-4

FLOW_BATCH = 64
MUON_RATE = 2e-2
ADAM_RATE = 3e-3
WEIGHT_DECAY = 0.01
WARM_UP_SHARE = 0.02
MEAN_DECAY = 0.998
SHIFT = 2.0
RESUME_RATE = 0.5
DROP_ALL, DROP_TIME, DROP_BOATS = 0.12, 0.10, 0.10


class Clock:
    """Hands out the share of a time budget that is used up, and prints a line now and then."""

    def __init__(self, name: str, budget_s: float) -> None:
        self._name = name
        self._budget_s = budget_s
        self._start_s = time.monotonic()
        self._printed_s = self._start_s

    def shares(self) -> Iterator[float]:
        while (share := (time.monotonic() - self._start_s) / self._budget_s) < 1.0:
            yield share

    def report(self, step: int, **values: float) -> None:
        now_s = time.monotonic()
        if now_s - self._printed_s >= PROGRESS_INTERVAL_S:
            self._printed_s = now_s
            shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
            print(
                f"{self._name}: {now_s - self._start_s:4.0f} of {self._budget_s:.0f} s, step {step}, {shown}",
                flush=True,
            )


def rate_factor(share: float) -> float:
    """Warm-up, then a cosine down to one hundredth."""
    if share < WARM_UP_SHARE:
        return max(share / WARM_UP_SHARE, 0.01)
    return 0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * (share - WARM_UP_SHARE) / (1 - WARM_UP_SHARE))))


def fast_dtype() -> torch.dtype:
    """bfloat16 where the CPU multiplies it in hardware, which halves the time; else float32."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if supported else torch.float32


def mixed_precision() -> torch.autocast:
    """A context in which matrices are multiplied in :func:`fast_dtype`."""
    return torch.autocast("cpu", torch.bfloat16, enabled=fast_dtype() is torch.bfloat16)


def _draw_chunk(first_seed: int) -> npt.NDArray[np.uint8]:
    return np.stack([draw_scene(seed) for seed in range(first_seed, first_seed + DRAW_CHUNK)])


def draw_chunks(first_seed: int, count: int) -> Iterator[tuple[int, Tensor]]:
    """(first seed, pictures uint8 [DRAW_CHUNK, 3, 128, 128]) for ``count`` scenes, drawn by two processes."""
    starts = range(first_seed, first_seed + count, DRAW_CHUNK)
    with ProcessPoolExecutor(max_workers=2) as pool:
        for start, pictures in zip(starts, pool.map(_draw_chunk, starts), strict=True):
            yield start, torch.from_numpy(pictures).permute(0, 3, 1, 2)


def _edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def picture_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Absolute and squared error of pixels, and the error of their differences, which keeps edges sharp."""
    edge = sum((F.l1_loss(a, b) for a, b in zip(_edges(made), _edges(wanted), strict=True)), torch.zeros(()))
    return F.l1_loss(made, wanted) + SQUARE_WEIGHT * F.mse_loss(made, wanted) + EDGE_WEIGHT * edge


def preview_loss(latents: Tensor, pictures: Tensor) -> Tensor:
    """Error of the host's own latent preview against the shrunken picture: previews of the tiny model then show it."""
    shown = (
        torch.einsum("nchw,cr->nrhw", latents, torch.tensor(PREVIEW_FACTORS))
        + torch.tensor(PREVIEW_BIAS)[:, None, None]
    )
    return F.mse_loss(shown, F.avg_pool2d(pictures, DOWNSCALE) * 2 - 1)


def set_rates(optimisers: list[torch.optim.Optimizer], rates: list[float], factor: float) -> None:
    """Sets every optimiser to its own rate times ``factor``."""
    for optimiser, rate in zip(optimisers, rates, strict=True):
        for group in optimiser.param_groups:
            group["lr"] = rate * factor


def starting_rates(optimisers: list[torch.optim.Optimizer], start: Weights | None) -> list[float]:
    """The optimisers' highest learning rates: lower for weights that have been trained before."""
    return [
        float(optimiser.param_groups[0]["lr"]) * (1.0 if start is None else RESUME_RATE) for optimiser in optimisers
    ]


def descend(loss: Tensor, model: nn.Module, optimisers: list[torch.optim.Optimizer]) -> None:
    """One step down the gradient of ``loss``."""
    for optimiser in optimisers:
        optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser in optimisers:
        optimiser.step()


def load_state(model: nn.Module, weights: Weights) -> None:
    """Fills ``model`` with shipped weights."""
    model.load_state_dict({name: torch.from_numpy(value).float() for name, value in weights.items()})


def train_autoencoder(budget_s: float, seed: int, start: Weights | None = None) -> Autoencoder:
    """Trains all of a new autoencoder, or the decoder of the one whose weights are given."""
    pictures = torch.cat([chunk for _, chunk in draw_chunks(seed * SEED_STRIDE, AUTOENCODER_SCENES)])
    torch.manual_seed(seed)
    model = Autoencoder()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if start is not None:
        load_state(model, start)
        model.taesd_encoder.requires_grad_(False)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimisers: list[torch.optim.Optimizer] = [
        Muon([w for w in trained if w.ndim > 1], [], lr=AUTOENCODER_MUON_RATE, dtype=fast_dtype()),
        torch.optim.Adam([w for w in trained if w.ndim == 1], lr=AUTOENCODER_ADAM_RATE, betas=(0.9, 0.99)),
    ]
    rates = starting_rates(optimisers, start)
    clock = Clock("autoencoder", budget_s)
    for step, share in enumerate(clock.shares()):
        set_rates(optimisers, rates, rate_factor(share))
        top, left = (int(v) for v in torch.randint(0, pictures.shape[-1] - CROP_PX + 1, (2,)))
        picked = torch.randint(0, len(pictures), (AUTOENCODER_BATCH,))
        wanted = pictures[picked, :, top : top + CROP_PX, left : left + CROP_PX].float() / 255
        wanted = wanted.contiguous(memory_format=torch.channels_last)
        with mixed_precision():
            latents = model.encode(wanted).float()
            made = model.decode(latents + LATENT_NOISE * torch.randn_like(latents)).float()
        error = picture_loss(made, wanted)
        loss = error + PREVIEW_WEIGHT * preview_loss(latents, wanted) + LATENT_SIZE_WEIGHT * latents.square().mean()
        descend(loss, model, optimisers)
        if step % 20 == 0:
            pixel = float(F.l1_loss(made.detach(), wanted)) * 255
            clock.report(
                step, error=float(error.detach()), pixel_levels=pixel, latent_std=float(latents.detach().std())
            )
    model.eval()
    return model


@torch.no_grad()
def encode_scenes(model: Autoencoder, first_seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Latents bfloat16 [2 * count, 16, 16, 16] of scenes and their mirror images, and their conditions [2 * count, 64]."""
    latents, conditions = [], []
    for start, chunk in draw_chunks(first_seed, count):
        wanted = chunk.float() / 255
        condition = torch.zeros(len(chunk), CONDITION_WIDTH)
        for row in range(len(chunk)):
            scene = pick_scene(start + row)
            condition[row, scene_places(scene.boats, scene.time)] = 1.0
        for side in (wanted, wanted.flip(-1)):
            with mixed_precision():
                latents.append(model.encode(side.contiguous(memory_format=torch.channels_last)).bfloat16())
            conditions.append(condition)
    return torch.cat(latents), torch.cat(conditions)


def drop_conditions(condition: Tensor) -> Tensor:
    """Some rows without the time, some without the boats, some without either: zeros then mean "anything"."""
    dropped = condition.clone()
    luck = torch.rand(len(condition))
    dropped[luck < DROP_ALL + DROP_TIME, :3] = 0
    dropped[(luck < DROP_ALL) | (luck > 1 - DROP_BOATS), 3:] = 0
    return dropped


def make_optimisers(model: FlowTransformer) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for everything else."""
    layers = [layer for layer in model.layers if isinstance(layer, Layer)]
    split = [layer.qkv.weight for layer in layers]
    whole = [weight for layer in layers for weight in (layer.proj.weight, layer.fc1.weight, layer.fc2.weight)]
    taken = {id(weight) for weight in (*split, *whole)}
    others = [weight for weight in model.parameters() if id(weight) not in taken]
    return [
        Muon(whole, split, lr=MUON_RATE, weight_decay=WEIGHT_DECAY, dtype=fast_dtype()),
        torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY),
    ]


def draw_sigmas(count: int) -> Tensor:
    """Shares of noise: logit-normal, shifted towards much noise, where the composition is decided."""
    even = torch.sigmoid(torch.randn(count))
    return SHIFT * even / (1 + (SHIFT - 1) * even)


def train_flow(
    latents: Tensor, conditions: Tensor, budget_s: float, seed: int, start: Weights | None = None
) -> FlowTransformer:
    """Rectified flow on ``latents`` [N, 16, h, w]; returns the running mean of the weights."""
    torch.manual_seed(seed + 1)
    model = FlowTransformer()
    if start is not None:
        load_state(model, start)
    mean = {name: value.clone() for name, value in model.state_dict().items()}
    optimisers = make_optimisers(model)
    rates = starting_rates(optimisers, start)
    clock = Clock("flow", budget_s)
    smooth = 0.0
    for step, share in enumerate(clock.shares()):
        set_rates(optimisers, rates, rate_factor(share))
        picked = torch.randint(0, len(latents), (FLOW_BATCH,))
        clean, noise, sigmas = (
            latents[picked].float(),
            torch.randn(FLOW_BATCH, *latents.shape[1:]),
            draw_sigmas(FLOW_BATCH),
        )
        mixed = torch.lerp(clean, noise, sigmas[:, None, None, None])
        with mixed_precision():
            velocity = model(mixed, sigmas, drop_conditions(conditions[picked])).float()
        loss = F.mse_loss(velocity, noise - clean)
        descend(loss, model, optimisers)
        decay = min(MEAN_DECAY, (step + 1) / (step + 10))
        for name, value in model.state_dict().items():
            mean[name].lerp_(value, 1 - decay)
        smooth = float(loss.detach()) if step == 0 else 0.99 * smooth + 0.01 * float(loss.detach())
        clock.report(step, loss=smooth)
    model.load_state_dict(mean)
    model.eval()
    return model


def train(out_dir: Path, minutes: float, seed: int, resume: bool) -> None:
    """Trains both networks for ``minutes`` in all (drawing comes on top) and writes the shipped weights to ``out_dir``."""
    old_autoencoder, old_flow = load_shipped(out_dir) if resume else (None, None)
    autoencoder = train_autoencoder(minutes * 60 * AUTOENCODER_SHARE, seed, old_autoencoder)
    latents, conditions = encode_scenes(autoencoder, seed * SEED_STRIDE + AUTOENCODER_SCENES, FLOW_SCENES)
    print(f"latents: mean {float(latents.float().mean()):.3f}, std {float(latents.float().std()):.3f}", flush=True)
    flow = train_flow(latents, conditions, minutes * 60 * (1 - AUTOENCODER_SHARE), seed, old_flow)
    total = save_shipped(autoencoder.state_dict(), flow.state_dict(), out_dir)
    print(f"wrote {total} bytes to {out_dir}", flush=True)


def main() -> None:
    """Command line, see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "weights", help="folder for the shipped weights"
    )
    parser.add_argument("--minutes", type=float, default=15.0, help="training time, both networks together")
    parser.add_argument("--seed", type=int, default=1, help="another seed draws other scenes")
    parser.add_argument("--resume", action="store_true", help="go on from the weights in --out")
    options = parser.parse_args()
    train(options.out, options.minutes, options.seed, options.resume)


if __name__ == "__main__":
    main()
