"""Values ↔ the bytes of a safetensors file.

The file is what any safetensors reader accepts. ``__metadata__`` holds two texts more: ``flotilla.values``, the JSON
parts of the values, and ``flotilla.restore``, the element types to be restored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..utils.errors import InvalidBlob, InvalidInput, TooLarge
from .chunks import as_bytes, flat_chunks
from .dtypes import DTYPE_NAMES, ITEM_BYTES, TORCH_DTYPES
from .limits import DEFAULT_LIMITS, TransportLimits
from .manifest import (
    LENGTH_BYTES,
    BlobManifest,
    TensorSpec,
    as_count,
    as_dtype,
    as_mapping,
    as_shape,
    check_layout,
    check_values,
    tensor_name,
)
from .precision import narrow, stored_dtype
from .values import Value, is_value_name, take_apart

METADATA = "__metadata__"
VALUES_KEY = "flotilla.values"
RESTORE_KEY = "flotilla.restore"
ALIGN_BYTES = 64  # the first tensor starts on a cache line
_PAD = b" "


@dataclass(frozen=True)
class BlobPlan:
    """A blob before it is written: its layout, its header's bytes and the tensors that will fill it."""

    specs: tuple[TensorSpec, ...]
    values: dict[str, dict[str, Any]]
    sources: dict[str, torch.Tensor]
    header: bytes

    @property
    def size_bytes(self) -> int:
        """Length of the whole file."""
        return len(self.header) + sum(spec.size_bytes for spec in self.specs)

    def chunks(self) -> Iterator[memoryview]:
        """The bytes of the file in order, in pieces that fit a processor's cache."""
        yield memoryview(self.header)
        for spec in self.specs:
            stored = TORCH_DTYPES[spec.dtype]
            for chunk in flat_chunks(self.sources[spec.name]):
                yield as_bytes(narrow(chunk, stored))

    def manifest(self, blob_hash: str) -> BlobManifest:
        """The manifest, once the hash is known."""
        return BlobManifest(blob_hash, self.size_bytes, len(self.header), self.specs, self.values)


def plan_blob(
    values: Mapping[str, Value], precision: str = "exact", limits: TransportLimits = DEFAULT_LIMITS
) -> BlobPlan:
    """Lays ``values`` out as a blob. Copies nothing. Raises InvalidInput that names what cannot travel, and TooLarge."""
    if len(values) > limits.max_values:
        raise InvalidInput(f"{len(values)} values are too many for one blob; {limits.max_values} are allowed.")
    sources: dict[str, torch.Tensor] = {}
    metas: dict[str, dict[str, Any]] = {}
    kinds: dict[str, str] = {}
    for name, value in values.items():
        if not is_value_name(name):
            raise InvalidInput(f"{name!r} cannot name a value.")
        parts = take_apart(name, value, limits)
        metas[name] = parts.meta
        for key, tensor in parts.tensors.items():
            sources[tensor_name(name, key)] = tensor
            kinds[tensor_name(name, key)] = value.kind
    if len(sources) > limits.max_tensors:
        raise InvalidInput(f"{len(sources)} tensors are too many for one blob; {limits.max_tensors} are allowed.")
    specs = _lay_out(sources, kinds, precision, limits)
    header = encode_header(specs, metas)
    plan = BlobPlan(specs, metas, sources, header)
    if len(header) > limits.max_header_bytes or len(_dump(metas)) > limits.max_json_bytes:
        raise TooLarge(f"The values' JSON has {len(_dump(metas))} bytes; {limits.max_json_bytes} are allowed.")
    if plan.size_bytes > limits.max_blob_bytes:
        raise TooLarge(f"The values have {plan.size_bytes} bytes; {limits.max_blob_bytes} are allowed in one blob.")
    return plan


def encode_header(specs: tuple[TensorSpec, ...], values: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The length and the JSON at the start of the file, padded so that tensors are aligned."""
    restore = {spec.name: spec.restore_dtype for spec in specs if spec.restore_dtype != spec.dtype}
    table: dict[str, Any] = {METADATA: {"format": "pt", VALUES_KEY: _dump(values), RESTORE_KEY: _dump(restore)}}
    for spec in specs:
        ends = [spec.offset, spec.offset + spec.size_bytes]
        table[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": ends}
    text = _dump(table).encode("ascii")
    text += _PAD * (-(LENGTH_BYTES + len(text)) % ALIGN_BYTES)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def decode_header(
    data: bytes, size_bytes: int, limits: TransportLimits = DEFAULT_LIMITS
) -> tuple[tuple[TensorSpec, ...], dict[str, dict[str, Any]]]:
    """Tensors and values that a header describes, for a file of ``size_bytes``. Raises InvalidBlob for anything odd."""
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    if len(data) <= LENGTH_BYTES or length != len(data) - LENGTH_BYTES or len(data) > limits.max_header_bytes:
        raise InvalidBlob("The blob's header does not have the length it states, or is over the cap.")
    table = dict(as_mapping(_load(data[LENGTH_BYTES:], "The blob's header"), "The blob's header"))
    metadata = as_mapping(table.pop(METADATA, None), "The header's metadata")
    if len(table) > limits.max_tensors:
        raise InvalidBlob(f"The blob's header lists {len(table)} tensors; {limits.max_tensors} are allowed.")
    restore = as_mapping(_load_text(metadata.get(RESTORE_KEY), limits), "The header's list of restored types")
    specs = [_spec_from_header(name, row, restore, limits) for name, row in table.items()]
    ordered = tuple(sorted(specs, key=lambda spec: (spec.offset, spec.size_bytes)))
    if len(set(restore) - set(table)):
        raise InvalidBlob("The blob's header restores a tensor that it does not list.")
    check_layout(ordered, size_bytes, len(data), limits)
    return ordered, check_values(_load_text(metadata.get(VALUES_KEY), limits), ordered, limits)


def _lay_out(
    sources: Mapping[str, torch.Tensor], kinds: Mapping[str, str], precision: str, limits: TransportLimits
) -> tuple[TensorSpec, ...]:
    """Widest elements first, so that each tensor is aligned to its own type."""
    rows = []
    for name, tensor in sources.items():
        dtype = DTYPE_NAMES[tensor.dtype]
        if tensor.dim() > limits.max_rank:
            raise InvalidInput(f"{name!r} has {tensor.dim()} dimensions; {limits.max_rank} are allowed.")
        rows.append((stored_dtype(precision, kinds[name], dtype), dtype, name, tensor))
    rows.sort(key=lambda row: -ITEM_BYTES[row[0]])
    specs = []
    offset = 0
    for stored, dtype, name, tensor in rows:
        size_bytes = tensor.numel() * ITEM_BYTES[stored]
        specs.append(TensorSpec(name, stored, tuple(tensor.shape), offset, size_bytes, dtype))
        offset += size_bytes
    return tuple(specs)


def _spec_from_header(name: str, row: object, restore: Mapping[str, Any], limits: TransportLimits) -> TensorSpec:
    entry = as_mapping(row, "A tensor in the blob's header")
    ends = entry.get("data_offsets")
    if not isinstance(ends, list) or len(ends) != 2 or len(name) > 2 * limits.max_name_chars:
        raise InvalidBlob("A tensor in the blob's header has no allowed name or no start and end.")
    start = as_count(ends[0], f"The start of {name!r}")
    end = as_count(ends[1], f"The end of {name!r}")
    if end < start:
        raise InvalidBlob(f"Tensor {name!r} ends before it starts.")
    dtype = as_dtype(entry.get("dtype"), f"The dtype of {name!r}")
    shape = as_shape(entry.get("shape"), f"The shape of {name!r}", limits)
    return TensorSpec(name, dtype, shape, start, end - start, as_dtype(restore.get(name, dtype), "A restored type"))


def _dump(data: object) -> str:
    return json.dumps(data, separators=(",", ":"), allow_nan=False)


def _load_text(text: object, limits: TransportLimits) -> Any:
    if not isinstance(text, str) or len(text) > limits.max_json_bytes:
        raise InvalidBlob("A text in the header's metadata is missing or over the cap.")
    return _load(text, "The header's metadata")


def _load(text: str | bytes, what: str) -> Any:
    """JSON that a stranger wrote: nothing twice, no NaN, no depth that a parser could drown in."""
    try:
        return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidBlob(f"{what} is not JSON that can be read: {type(error).__name__}.") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is there twice")
    return table


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
