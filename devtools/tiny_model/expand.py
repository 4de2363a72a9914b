"""From the shipped weights to the ones that ComfyUI loads, and back to small files after training. NumPy only.

What is shipped is what was trained (``network.py``) in half precision. ComfyUI's classes have more weights: the rest is
zeros, or copies where several blocks share what was trained once. Nothing is computed, so the bytes are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from .conditioning import CONDITION_WIDTH, MAX_BOATS, scene_places
from .preview import SCALE, SHIFT

Array = npt.NDArray[Any]
Weights = dict[str, Array]

AUTOENCODER_FILE = "autoencoder.safetensors"
FLOW_FILE = "flow.safetensors"
SIZE_LIMIT_BYTES = 5_000_000

TAESD_WIDTH = 64
LATENT_CHANNELS = 16
PICTURE_CHANNELS = 3
KERNEL = 3

# (position, inputs, outputs, has a bias) of the single convolutions, and the positions of the blocks, in TAESD's sequences.
_ENCODER_CONVOLUTIONS = (
    (0, PICTURE_CHANNELS, TAESD_WIDTH, True),
    (2, TAESD_WIDTH, TAESD_WIDTH, False),
    (6, TAESD_WIDTH, TAESD_WIDTH, False),
    (10, TAESD_WIDTH, TAESD_WIDTH, False),
    (14, TAESD_WIDTH, LATENT_CHANNELS, True),
)
_ENCODER_BLOCKS = (1, 3, 4, 5, 7, 8, 9, 11, 12, 13)
_DECODER_CONVOLUTIONS = (
    (1, LATENT_CHANNELS, TAESD_WIDTH, True),
    (7, TAESD_WIDTH, TAESD_WIDTH, False),
    (12, TAESD_WIDTH, TAESD_WIDTH, False),
    (17, TAESD_WIDTH, TAESD_WIDTH, False),
    (19, TAESD_WIDTH, PICTURE_CHANNELS, True),
)
_DECODER_BLOCKS = (3, 4, 5, 8, 9, 10, 13, 14, 15, 18)
_BLOCK_CONVOLUTIONS = (0, 2, 4)

FLOW_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
_CONDITION_FIRST = "y_embedder.0.weight"
# Places of the pooled vector behind the last one in use are always zero; their weights are not worth shipping.
USED_CONDITION_WIDTH = max(scene_places(MAX_BOATS, None)) + 1


def _padded(narrow: Array | None, shape: tuple[int, ...]) -> Array:
    """``narrow`` in the low corner of zeros of ``shape``, float16."""
    full = np.zeros(shape, np.float16)
    if narrow is not None:
        full[tuple(slice(0, length) for length in narrow.shape)] = narrow
    return full


def _taesd_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    parts = (
        ("taesd_encoder", _ENCODER_CONVOLUTIONS, _ENCODER_BLOCKS),
        ("taesd_decoder", _DECODER_CONVOLUTIONS, _DECODER_BLOCKS),
    )
    for part, convolutions, blocks in parts:
        for place, inputs, outputs, has_bias in convolutions:
            yield f"{part}.{place}.weight", (outputs, inputs, KERNEL, KERNEL)
            if has_bias:
                yield f"{part}.{place}.bias", (outputs,)
        for place in blocks:
            for inner in _BLOCK_CONVOLUTIONS:
                yield f"{part}.{place}.conv.{inner}.weight", (TAESD_WIDTH, TAESD_WIDTH, KERNEL, KERNEL)
                yield f"{part}.{place}.conv.{inner}.bias", (TAESD_WIDTH,)


def expand_autoencoder(narrow: Mapping[str, Array]) -> Weights:
    """The weights of a TAESD with 16 latent channels, as VAELoader wants them.

    Raises ValueError when ``narrow`` holds a weight that a TAESD has no place for.
    """
    full = {name: _padded(narrow.get(name), shape) for name, shape in _taesd_shapes()}
    if unknown := set(narrow) - set(full):
        raise ValueError(f"no place in a TAESD for {sorted(unknown)}")
    full["vae_scale"] = np.asarray(SCALE, np.float32)
    full["vae_shift"] = np.asarray(SHIFT, np.float32)
    return full


def _linear(narrow: Mapping[str, Array], source: str, target: str) -> Weights:
    return {f"{target}.{kind}": np.asarray(narrow[f"{source}.{kind}"], np.float16) for kind in ("weight", "bias")}


def _silent_linear(target: str, outputs: int, inputs: int) -> Weights:
    return {
        f"{target}.weight": np.zeros((outputs, inputs), np.float16),
        f"{target}.bias": np.zeros(outputs, np.float16),
    }


def _picture_stream(narrow: Mapping[str, Array], source: str, target: str) -> Weights:
    weights: Weights = {}
    for name, place in (("qkv", "attn.qkv"), ("proj", "attn.proj"), ("fc1", "mlp.fc1"), ("fc2", "mlp.fc2")):
        weights |= _linear(narrow, f"{source}.{name}", f"{target}.{place}")
    for name in ("ln_q", "ln_k"):
        weights[f"{target}.attn.{name}.weight"] = np.asarray(narrow[f"{source}.{name}"], np.float16)
    weights[f"{target}.adaLN_modulation.1.weight"] = np.asarray(narrow["modulation.weight"], np.float16)
    weights[f"{target}.adaLN_modulation.1.bias"] = np.asarray(narrow[f"{source}.modulation_bias"], np.float16)
    return weights


def _text_stream(target: str, hidden: int, head: int, last: bool) -> Weights:
    """A text stream that says nothing: zero keys and values. The last block's has no output of its own."""
    weights = _silent_linear(f"{target}.attn.qkv", 3 * hidden, hidden)
    for name in ("ln_q", "ln_k"):
        weights[f"{target}.attn.{name}.weight"] = np.ones(head, np.float16)
    weights |= _silent_linear(f"{target}.adaLN_modulation.1", (2 if last else 6) * hidden, hidden)
    if not last:
        weights |= _silent_linear(f"{target}.attn.proj", hidden, hidden)
        weights |= _silent_linear(f"{target}.mlp.fc1", 4 * hidden, hidden)
        weights |= _silent_linear(f"{target}.mlp.fc2", hidden, 4 * hidden)
    return weights


def expand_flow(narrow: Mapping[str, Array]) -> Weights:
    """The weights of an SD3-type MMDiT, as UNETLoader wants them."""
    hidden = narrow["x_embedder.weight"].shape[0]
    head = narrow["layers.0.ln_q"].shape[0]
    depth = hidden // head
    weights = _linear(narrow, "x_embedder", "x_embedder.proj")
    for name in ("t_embedder", "y_embedder"):
        for place in (0, 2):
            weights |= _linear(narrow, f"{name}.{place}", f"{name}.mlp.{place}")
    weights |= _silent_linear("context_embedder", hidden, CONDITION_WIDTH)
    for index in range(depth):
        block = f"joint_blocks.{index}"
        weights |= _picture_stream(narrow, f"layers.{index}", f"{block}.x_block")
        weights |= _text_stream(f"{block}.context_block", hidden, head, last=index == depth - 1)
    weights |= _linear(narrow, "final_linear", "final_layer.linear")
    weights |= _linear(narrow, "final_modulation", "final_layer.adaLN_modulation.1")
    return {FLOW_PREFIX + name: value for name, value in weights.items()}


def join_checkpoint(flow: Weights, autoencoder: Weights) -> Weights:
    """Both in one file, as CheckpointLoaderSimple wants them; such a checkpoint has no text encoder."""
    return flow | {VAE_PREFIX + name: value for name, value in autoencoder.items()}


def load_shipped(weights_dir: Path) -> tuple[Weights, Weights]:
    """The autoencoder's and the flow transformer's shipped weights, float16, in the shapes of ``network.py``.

    Raises OSError when a file cannot be read.
    """
    autoencoder, flow = load_file(weights_dir / AUTOENCODER_FILE), load_file(weights_dir / FLOW_FILE)
    flow[_CONDITION_FIRST] = _padded(flow[_CONDITION_FIRST], (flow[_CONDITION_FIRST].shape[0], CONDITION_WIDTH))
    return autoencoder, flow


def save_shipped(autoencoder: Mapping[str, Any], flow: Mapping[str, Any], out_dir: Path) -> int:
    """Writes trained states (tensors that NumPy understands) in half precision; returns the bytes written.

    Raises ValueError when the files would be larger than the repository may carry.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    halves = [
        {name: np.array(value, dtype=np.float16) for name, value in state.items()} for state in (autoencoder, flow)
    ]
    halves[1][_CONDITION_FIRST] = np.ascontiguousarray(halves[1][_CONDITION_FIRST][:, :USED_CONDITION_WIDTH])
    total = 0
    for name, half in zip((AUTOENCODER_FILE, FLOW_FILE), halves, strict=True):
        save_file({key: np.ascontiguousarray(value) for key, value in half.items()}, out_dir / name)
        total += (out_dir / name).stat().st_size
    if total >= SIZE_LIMIT_BYTES:
        raise ValueError(f"shipped weights take {total} bytes, the limit is {SIZE_LIMIT_BYTES}")
    return total
