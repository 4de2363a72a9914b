"""Writes the tiny model into a ComfyUI models folder, in the form that ComfyUI's own loaders accept.

    python -m devtools.tiny_model.build MODELS_DIR

=========================================================  ======================
file                                                       loader
=========================================================  ======================
``diffusion_models/flotilla_tiny.safetensors``             UNETLoader
``vae/flotilla_tiny_vae.safetensors``                      VAELoader
``checkpoints/flotilla_tiny_ckpt.safetensors``             CheckpointLoaderSimple (MODEL and VAE; CLIP is None)
=========================================================  ======================

The latent has 16 channels (EmptySD3LatentImage). Width and height are multiples of 16, best 128 x 128. Conditioning is made
by :func:`encode_scene`, whose module says how to restate it elsewhere.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import save

from .conditioning import encode_scene
from .expand import Weights, expand_autoencoder, expand_flow, join_checkpoint, load_shipped

__all__ = ["TinyModelFiles", "build", "encode_scene"]

WEIGHTS_DIR = Path(__file__).parent / "weights"
DIFFUSION_MODEL_NAME = "flotilla_tiny.safetensors"
VAE_NAME = "flotilla_tiny_vae.safetensors"
CHECKPOINT_NAME = "flotilla_tiny_ckpt.safetensors"


@dataclass(frozen=True)
class TinyModelFiles:
    """Where the model was written; the file names are what the loaders' lists show."""

    diffusion_model: Path
    vae: Path
    checkpoint: Path


def _write(path: Path, weights: Weights) -> None:
    """Writes ``path`` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(save(weights))
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def build(models_dir: Path) -> TinyModelFiles:
    """Builds the model's files below ``models_dir`` (about 25 MB) from the shipped weights; same bytes every time.

    Raises OSError when the shipped weights cannot be read or a file cannot be written.
    """
    files = TinyModelFiles(
        diffusion_model=models_dir / "diffusion_models" / DIFFUSION_MODEL_NAME,
        vae=models_dir / "vae" / VAE_NAME,
        checkpoint=models_dir / "checkpoints" / CHECKPOINT_NAME,
    )
    shipped_autoencoder, shipped_flow = load_shipped(WEIGHTS_DIR)
    autoencoder, flow = expand_autoencoder(shipped_autoencoder), expand_flow(shipped_flow)
    _write(files.diffusion_model, flow)
    _write(files.vae, autoencoder)
    _write(files.checkpoint, join_checkpoint(flow, autoencoder))
    return files


def main() -> None:
    """Command line: build into the folder given and print the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models_dir", type=Path, help="ComfyUI's models folder")
    files = build(parser.parse_args().models_dir)
    for path in (files.diffusion_model, files.vae, files.checkpoint):
        print(path)


if __name__ == "__main__":
    main()
