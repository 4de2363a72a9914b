"""The two small networks in the form in which they are trained.

Both are sub-networks of larger ones that ComfyUI knows: the autoencoder is a TAESD with most of its 64 channels left out,
the transformer is an SD3-type MMDiT without its text stream. ``expand.py`` fills the missing weights with zeros (and with
copies, for the modulation that all blocks share), which changes nothing in what they compute.

Parameter names are ComfyUI's wherever the parameter exists there.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT_CHANNELS = 16
LATENT_LIMIT = 3.0
HEAD_WIDTH = 64
DEPTH = 3
HIDDEN = HEAD_WIDTH * DEPTH
PATCH = 2
CONDITION_WIDTH = 64
TIME_FREQUENCIES = 256
TIME_SCALE = 1000.0
NORM_EPS = 1e-6
POSITION_SPAN = 7.5

# Channels at 1, 1/2, 1/4 and 1/8 of the picture's size: edges need few, the coarse stages decide what things are.
WIDTHS = (16, 32, 48, 48)


class Block(nn.Module):
    """TAESD's residual block: three 3x3 convolutions, [N, width, h, w] to the same shape, never negative."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(width, width, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


def _conv(wide_in: int, wide_out: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(wide_in, wide_out, 3, padding=1, stride=stride, bias=bias)


class _Squash(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / LATENT_LIMIT) * LATENT_LIMIT


class Autoencoder(nn.Module):
    """Pictures [N, 3, H, W] in 0 to 1 and latents [N, 16, H/8, W/8]; H and W are multiples of 8.

    The positions in both sequences are those of TAESD. A plain ReLU stands where TAESD has a further block: that is what a
    block with zero weights computes.
    """

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = WIDTHS
        self.taesd_encoder = nn.Sequential(
            *(_conv(3, a), Block(a)),
            *(_conv(a, b, 2, bias=False), Block(b), nn.ReLU(), nn.ReLU()),
            *(_conv(b, c, 2, bias=False), Block(c), nn.ReLU(), nn.ReLU()),
            *(_conv(c, d, 2, bias=False), Block(d), Block(d), nn.ReLU()),
            _conv(d, LATENT_CHANNELS),
        )
        self.taesd_decoder = nn.Sequential(
            *(_Squash(), _conv(LATENT_CHANNELS, d), nn.ReLU()),
            *(Block(d), Block(d), Block(d), nn.Upsample(scale_factor=2), _conv(d, c, bias=False)),
            *(Block(c), Block(c), nn.ReLU(), nn.Upsample(scale_factor=2), _conv(c, b, bias=False)),
            *(Block(b), Block(b), nn.ReLU(), nn.Upsample(scale_factor=2), _conv(b, a, bias=False)),
            *(Block(a), _conv(a, 3)),
        )

    def encode(self, pictures: Tensor) -> Tensor:
        return self.taesd_encoder(pictures)  # type: ignore[no-any-return]

    def decode(self, latents: Tensor) -> Tensor:
        return self.taesd_decoder(latents)  # type: ignore[no-any-return]


def _positions_1d(width: int, places: Tensor) -> Tensor:
    rates = 1.0 / 10000 ** (torch.arange(width // 2, dtype=torch.float32) / (width / 2.0))
    angles = places.reshape(-1, 1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def position_embedding(rows: int, columns: int) -> Tensor:
    """What the host adds to the tokens of a model that ships no ``pos_embed``: [rows * columns, HIDDEN].

    The short side always spans 0 to 15, so the layout of a scene scales with the picture.
    """
    short = min(rows, columns)
    reach_y, reach_x = rows / short * POSITION_SPAN, columns / short * POSITION_SPAN
    ys = torch.linspace(POSITION_SPAN - reach_y, POSITION_SPAN + reach_y, rows)
    xs = torch.linspace(POSITION_SPAN - reach_x, POSITION_SPAN + reach_x, columns)
    grid_y, grid_x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.cat([_positions_1d(HIDDEN // 2, grid_x), _positions_1d(HIDDEN // 2, grid_y)], dim=1)


def time_embedding(timesteps: Tensor) -> Tensor:
    """Sinusoids of timesteps [N] in 0 to 1000: [N, TIME_FREQUENCIES], cosines first."""
    half = TIME_FREQUENCIES // 2
    rates = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
    angles = timesteps[:, None].float() * rates[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _two_layers(wide_in: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(wide_in, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN))


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift.unsqueeze(1), x, 1 + scale.unsqueeze(1))


def _normalise(x: Tensor) -> Tensor:
    return F.layer_norm(x, (HIDDEN,), eps=NORM_EPS)


class Layer(nn.Module):
    """The picture half of one MMDiT block; tokens [N, L, HIDDEN], modulation [N, 6 * HIDDEN]."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(HIDDEN, 3 * HIDDEN)
        self.proj = nn.Linear(HIDDEN, HIDDEN)
        self.ln_q = nn.Parameter(torch.ones(HEAD_WIDTH))
        self.ln_k = nn.Parameter(torch.ones(HEAD_WIDTH))
        self.fc1 = nn.Linear(HIDDEN, 4 * HIDDEN)
        self.fc2 = nn.Linear(4 * HIDDEN, HIDDEN)
        self.modulation_bias = nn.Parameter(torch.zeros(6 * HIDDEN))

    def attend(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, DEPTH, HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        q = F.rms_norm(q, (HEAD_WIDTH,), self.ln_q.to(q.dtype), NORM_EPS)
        k = F.rms_norm(k, (HEAD_WIDTH,), self.ln_k.to(k.dtype), NORM_EPS)
        # The text stream of the expanded model has zero weights: each of its tokens is a key and a value of zeros.
        k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        # Written out: with so few tokens this is faster on a CPU than the fused kernel, above all backwards.
        shares = torch.softmax(q @ k.transpose(-2, -1) * HEAD_WIDTH**-0.5, dim=-1)
        mixed = shares.to(v.dtype) @ v
        return self.proj(mixed.transpose(1, 2).reshape(n, length, HIDDEN))  # type: ignore[no-any-return]

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        parts = (modulation + self.modulation_bias).chunk(6, dim=1)
        x = x + parts[2].unsqueeze(1) * self.attend(_modulate(_normalise(x), parts[0], parts[1]))
        inner = F.gelu(self.fc1(_modulate(_normalise(x), parts[3], parts[4])), approximate="tanh")
        return x + parts[5].unsqueeze(1) * self.fc2(inner)  # type: ignore[no-any-return]


class FlowTransformer(nn.Module):
    """Velocity (noise minus latent) of noisy latents [N, 16, h, w]; h and w are even.

    ``sigmas`` [N] is the share of noise, 0 to 1; ``condition`` [N, 64] is the pooled vector of ``scene_code.py``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.x_embedder = nn.Conv2d(LATENT_CHANNELS, HIDDEN, PATCH, stride=PATCH)
        self.t_embedder = _two_layers(TIME_FREQUENCIES)
        self.y_embedder = _two_layers(CONDITION_WIDTH)
        self.modulation = nn.Linear(HIDDEN, 6 * HIDDEN, bias=False)
        self.layers = nn.ModuleList([Layer() for _ in range(DEPTH)])
        self.final_modulation = nn.Linear(HIDDEN, 2 * HIDDEN)
        self.final_linear = nn.Linear(HIDDEN, PATCH * PATCH * LATENT_CHANNELS)
        for silent in (self.modulation, self.final_modulation, self.final_linear):
            nn.init.zeros_(silent.weight)
        nn.init.zeros_(self.final_linear.bias)

    def forward(self, latents: Tensor, sigmas: Tensor, condition: Tensor) -> Tensor:
        n, _, height, width = latents.shape
        rows, columns = height // PATCH, width // PATCH
        x = self.x_embedder(latents).flatten(2).transpose(1, 2) + position_embedding(rows, columns)
        c = F.silu(self.t_embedder(time_embedding(sigmas * TIME_SCALE)) + self.y_embedder(condition))
        shared = self.modulation(c)
        for layer in self.layers:
            x = layer(x, shared)
        shift, scale = self.final_modulation(c).chunk(2, dim=1)
        x = self.final_linear(_modulate(_normalise(x), shift, scale))
        x = x.reshape(n, rows, columns, PATCH, PATCH, LATENT_CHANNELS)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(n, LATENT_CHANNELS, height, width)  # type: ignore[no-any-return]
