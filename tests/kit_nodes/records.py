"""What a value between two nodes holds: its tensors and plain values by name, their hashes, files of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from safetensors import safe_open
from safetensors.torch import save_file

ROOT_NAME = "value"
"""The name of a tensor or value that came as it is, in no dict or list."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VALUES_KEY = "values"


@dataclass
class Record:
    """A value taken apart: ``tensors`` and JSON ``values``, both by dotted name ("0.1.pooled_output")."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


def take_apart(value: Any) -> Record:
    """Every tensor and plain value in ``value`` (a tensor, a number, a text, or dicts and lists of them).

    Tensors come back on the CPU, contiguous, in their dtype; what is neither stands as ``<its type's name>``.
    """
    record = Record()
    _collect(value, "", record)
    return record


def _collect(value: Any, name: str, record: Record) -> None:
    if isinstance(value, torch.Tensor):
        record.tensors[name or ROOT_NAME] = value.detach().cpu().contiguous()
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _collect(inner, f"{name}.{key}" if name else str(key), record)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            _collect(inner, f"{name}.{index}" if name else str(index), record)
    elif value is None or isinstance(value, (bool, int, float, str)):
        record.values[name or ROOT_NAME] = value
    else:
        record.values[name or ROOT_NAME] = f"<{type(value).__name__}>"


def tensor_hash(tensor: torch.Tensor) -> str:
    """BLAKE3 of the tensor's bytes in row order, as 64 hexadecimal digits. Shape and dtype are not part of it."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return str(blake3(memoryview(flat.view(torch.uint8).numpy())).hexdigest())


def describe(record: Record) -> dict[str, Any]:
    """The record as JSON: ``{"tensors": {name: {blake3, rows, shape, dtype}}, "values": {name: value}}``.

    ``rows`` are the hashes of the tensor's slices along its first dimension: one for each image of a batch.
    """
    tensors = {
        name: {
            "blake3": tensor_hash(tensor),
            "rows": [tensor_hash(row) for row in tensor] if tensor.ndim else [],
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
        }
        for name, tensor in record.tensors.items()
    }
    return {"tensors": tensors, "values": record.values}


def file_name(kind: str, name: str, suffix: str) -> str:
    """``kit_<kind>_<name><suffix>``. Raises ValueError unless ``name`` is 1 to 64 letters, digits, ``-`` and ``_``."""
    if not _PLAIN_NAME.fullmatch(name):
        raise ValueError(f"not a plain name for a file: {name!r}")
    return f"kit_{kind}_{name}{suffix}"


def write_description(path: Path, description: Mapping[str, Any]) -> None:
    """Writes JSON in one step: a reader sees the old file or the whole new one."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(description, indent=1), encoding="utf-8")
    draft.replace(path)


def write_record(path: Path, record: Record) -> None:
    """Writes the record as safetensors, in one step. The plain values travel as JSON in the file's metadata."""
    draft = path.with_name(f".{path.name}.tmp")
    # The format refuses tensors that share memory, and an image may well come twice.
    owned = {name: tensor.clone() for name, tensor in record.tensors.items()}
    save_file(owned, draft, metadata={_VALUES_KEY: json.dumps(record.values)})
    draft.replace(path)


def read_record(path: Path) -> Record:
    """What `write_record` wrote. Raises safetensors' own error where the file is something else."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        return Record(tensors, json.loads((file.metadata() or {}).get(_VALUES_KEY, "{}")))


def append_line(path: Path, line: str) -> None:
    """Adds one line in a single write, so that writers in other threads and processes never mix theirs into it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)
