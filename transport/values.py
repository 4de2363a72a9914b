"""What a blob holds: named values of five kinds.

    IMAGE    float tensor [B, H, W, C]
    MASK     tensor [B, H, W]; [H, W] is taken as a batch of one
    LATENT   dict: "samples" [B, ...], further tensors ("noise_mask"), JSON extras ("type", "batch_index")
    AUDIO    dict: "waveform" [B, C, S], "sample_rate" in Hz, further tensors and JSON extras
    JSON     anything that JSON can say: numbers are finite, keys are strings, tuples come back as lists

A value of a tensor kind may be None: the item has none of it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..utils.errors import InvalidInput
from .dtypes import DTYPE_NAMES
from .limits import DEFAULT_LIMITS, TransportLimits

IMAGE = "IMAGE"
MASK = "MASK"
LATENT = "LATENT"
AUDIO = "AUDIO"
JSON = "JSON"

KINDS = frozenset({IMAGE, MASK, LATENT, AUDIO, JSON})
PLAIN_KINDS = frozenset({IMAGE, MASK})
DICT_KINDS = frozenset({LATENT, AUDIO})
PRIMARY = {LATENT: "samples", AUDIO: "waveform"}
RANK = {IMAGE: 4, MASK: 3, AUDIO: 3}
SAMPLE_RATE = "sample_rate"
MAX_INT_BITS = 64  # a seed; a parser may refuse or bend anything longer

_VALUE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")


@dataclass(frozen=True)
class Value:
    """One value and its kind. ``data`` is a tensor, a mapping or JSON, as the kind says."""

    kind: str
    data: Any


@dataclass(frozen=True)
class Parts:
    """A value taken apart: tensors by key ("" for IMAGE and MASK) and everything else as JSON."""

    tensors: dict[str, torch.Tensor]
    meta: dict[str, Any]


def is_value_name(name: object) -> bool:
    """Whether ``name`` may name a value: a letter, then up to 63 letters, digits, ``_ . -``."""
    return isinstance(name, str) and _VALUE_NAME.match(name) is not None


def is_key(key: object, limits: TransportLimits) -> bool:
    """Whether ``key`` may name an entry of a LATENT or AUDIO dict."""
    return isinstance(key, str) and 0 < len(key) <= limits.max_name_chars and key.isprintable()


def json_fault(value: Any, max_depth: int) -> str:
    """Why ``value`` is not JSON as we send it, or "" if it is. Walks without recursion, so depth cannot hurt."""
    stack: list[tuple[Any, int]] = [(value, 1)]
    while stack:
        here, depth = stack.pop()
        if depth > max_depth:
            return f"it is nested deeper than {max_depth} levels"
        if here is None or isinstance(here, (bool, str)):
            continue
        if isinstance(here, int):
            if here.bit_length() > MAX_INT_BITS:
                return "it holds an integer of more than 64 bits"
        elif isinstance(here, float):
            if not math.isfinite(here):
                return f"{here} is not a finite number"
        elif isinstance(here, (list, tuple)):
            stack.extend((entry, depth + 1) for entry in here)
        elif isinstance(here, dict):
            for key, entry in here.items():
                if not isinstance(key, str):
                    return f"the key {key!r} is not a string"
                stack.append((entry, depth + 1))
        else:
            return f"{type(here).__name__} is no JSON type"
    return ""


def take_apart(name: str, value: Value, limits: TransportLimits = DEFAULT_LIMITS) -> Parts:
    """Splits ``value`` into tensors and JSON. Raises InvalidInput that names what cannot travel."""
    if value.kind not in KINDS:
        raise InvalidInput(f"Value {name!r} has the unknown kind {value.kind!r}.")
    if value.kind == JSON:
        return Parts({}, {"kind": JSON, "json": _as_json(name, value.data, limits)})
    if value.data is None:
        return Parts({}, {"kind": value.kind, "empty": True})
    if value.kind in PLAIN_KINDS:
        tensor = _as_tensor(name, value.data)
        if value.kind == MASK and tensor.dim() == RANK[MASK] - 1:
            tensor = tensor.unsqueeze(0)
        _check_rank(name, value.kind, tensor)
        return Parts({"": tensor}, {"kind": value.kind})
    return _take_dict_apart(name, value, limits)


def _take_dict_apart(name: str, value: Value, limits: TransportLimits) -> Parts:
    if not isinstance(value.data, Mapping):
        raise InvalidInput(f"{value.kind} {name!r} is a {type(value.data).__name__}, not a dict.")
    tensors: dict[str, torch.Tensor] = {}
    extras: dict[str, Any] = {}
    for key in value.data:
        entry = value.data[key]
        if not is_key(key, limits):
            raise InvalidInput(f"{value.kind} {name!r} has the key {key!r}, which cannot be sent.")
        if isinstance(entry, torch.Tensor):
            tensors[key] = _as_tensor(f"{name}.{key}", entry)
        elif key == SAMPLE_RATE and value.kind == AUDIO:
            extras[key] = _as_sample_rate(name, entry)
        else:
            extras[key] = _as_json(f"{name}.{key}", entry, limits)
    primary = PRIMARY[value.kind]
    if primary not in tensors:
        raise InvalidInput(f"{value.kind} {name!r} has no tensor {primary!r}.")
    _check_rank(name, value.kind, tensors[primary])
    if value.kind == AUDIO and SAMPLE_RATE not in extras:
        raise InvalidInput(f"AUDIO {name!r} has no {SAMPLE_RATE}.")
    return Parts(tensors, {"kind": value.kind, "extras": extras})


def _as_tensor(name: str, data: Any) -> torch.Tensor:
    """A plain dense tensor with the same storage. Raises InvalidInput for everything else."""
    if not isinstance(data, torch.Tensor):
        raise InvalidInput(f"{name!r} is a {type(data).__name__}, not a tensor.")
    tensor = data.detach()
    if tensor.is_nested or tensor.layout != torch.strided or tensor.is_quantized:
        raise InvalidInput(f"{name!r} is a nested, sparse or quantized tensor, which cannot be sent.")
    if tensor.dtype not in DTYPE_NAMES:
        raise InvalidInput(f"{name!r} has the type {tensor.dtype}, which cannot be sent.")
    if type(tensor) is not torch.Tensor:
        tensor = tensor.as_subclass(torch.Tensor)
    # A tensor without memory of its own (meta device, wrappers of other tensors) has no bytes to send.
    if tensor.numel() and (tensor.device.type == "meta" or tensor.data_ptr() == 0):
        raise InvalidInput(f"{name!r} is a {type(data).__name__} without data of its own, which cannot be sent.")
    return tensor.resolve_neg()


def _as_json(name: str, data: Any, limits: TransportLimits) -> Any:
    fault = json_fault(data, limits.max_json_depth)
    if fault:
        raise InvalidInput(f"{name!r} cannot be sent: {fault}.")
    return json.loads(json.dumps(data))


def _as_sample_rate(name: str, data: Any) -> int:
    whole = isinstance(data, int) or (isinstance(data, float) and data.is_integer())
    if isinstance(data, bool) or not whole or data <= 0:
        raise InvalidInput(f"AUDIO {name!r} has the {SAMPLE_RATE} {data!r}; it must be a whole number above zero.")
    return int(data)


def _check_rank(name: str, kind: str, tensor: torch.Tensor) -> None:
    rank = RANK.get(kind)
    if rank is not None and tensor.dim() != rank:
        raise InvalidInput(f"{kind} {name!r} has {tensor.dim()} dimensions, not {rank}: {list(tensor.shape)}.")
    if tensor.dim() == 0:
        raise InvalidInput(f"{kind} {name!r} is a single number and has no batch.")
