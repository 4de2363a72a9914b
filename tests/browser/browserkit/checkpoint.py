"""The tiny model as a checkpoint with a text encoder, under the name that a user's workflow asks for.

The host gives an SD3-type checkpoint a text encoder as soon as the file holds anything below ``text_encoders.``. One
without CLIP-L, CLIP-G and T5 encodes every text as zeros, [1, 77, 4096] and pooled [1, 2048], which the tiny model reads
as "any scene". So the file is the tiny checkpoint with two embedders widened by zeros, and one number for the encoder.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

TINY_CHECKPOINT = "flotilla_tiny_ckpt.safetensors"
CONTEXT_WIDTH = 4096
POOLED_WIDTH = 2048

_CONTEXT = "model.diffusion_model.context_embedder.weight"
_POOLED = "model.diffusion_model.y_embedder.mlp.0.weight"
_ENCODER_MARK = "text_encoders.logit_scale"


def write_text_checkpoint(models: Path, name: str) -> Path:
    """Makes ``checkpoints/<name>`` in a models folder that holds the tiny model, and returns its path.

    ``name`` is what the loader's list is to show; with a backslash it is one file name on POSIX systems and a file in a
    folder on Windows. A file that is newer than the tiny model is left alone. Raises OSError where the tiny model is
    missing.
    """
    source = models / "checkpoints" / TINY_CHECKPOINT
    path = models / "checkpoints" / name
    if path.exists() and path.stat().st_mtime >= source.stat().st_mtime:
        return path
    weights = load_file(source)
    for key, width in ((_CONTEXT, CONTEXT_WIDTH), (_POOLED, POOLED_WIDTH)):
        weights[key] = np.pad(weights[key], ((0, 0), (0, width - weights[key].shape[1])))
    weights[_ENCODER_MARK] = np.zeros(1, np.float16)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as stream:
        stream.write(save(weights))
    Path(partial).replace(path)
    return path
