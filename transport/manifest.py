"""The manifest: what a blob holds, told apart from its bytes, so that memory can stand ready before they come."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..utils.errors import InvalidBlob
from .dtypes import ITEM_BYTES
from .limits import DEFAULT_LIMITS, TransportLimits
from .precision import is_known_narrowing
from .values import (
    AUDIO,
    DICT_KINDS,
    JSON,
    KINDS,
    PLAIN_KINDS,
    PRIMARY,
    RANK,
    SAMPLE_RATE,
    is_key,
    is_value_name,
    json_fault,
)

SEPARATOR = "/"  # between the name of a value and the key of one of its tensors
LENGTH_BYTES = 8  # a safetensors file starts with the length of its JSON header
_HASH = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a blob. ``offset`` counts from the end of the header; ``restore_dtype`` is what it was before
    `precision` narrowed it, and what the receiver makes of it again."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int
    restore_dtype: str


@dataclass(frozen=True)
class BlobManifest:
    """Everything about a blob but its tensors' bytes.

    ``hash`` is the BLAKE3 of the whole file in hex and its name; ``size_bytes`` its length, of which ``header_bytes``
    come before the first tensor; ``values`` maps a name to ``{"kind": …}`` and the JSON parts of that value.
    """

    hash: str
    size_bytes: int
    header_bytes: int
    tensors: tuple[TensorSpec, ...]
    values: dict[str, dict[str, Any]]

    def to_wire(self) -> dict[str, Any]:
        """The manifest as JSON."""
        return {
            "hash": self.hash,
            "size_bytes": self.size_bytes,
            "header_bytes": self.header_bytes,
            "tensors": [{**asdict(spec), "shape": list(spec.shape)} for spec in self.tensors],
            "values": self.values,
        }

    @classmethod
    def from_wire(cls, wire: object, limits: TransportLimits = DEFAULT_LIMITS) -> BlobManifest:
        """The manifest that a peer sent. Raises InvalidBlob unless every number fits every other and every cap."""
        entry = as_mapping(wire, "The manifest")
        blob_hash = entry.get("hash")
        if not is_blob_hash(blob_hash):
            raise InvalidBlob("The manifest's hash is not 64 lowercase hex digits.")
        size_bytes = as_count(entry.get("size_bytes"), "The manifest's size_bytes")
        header_bytes = as_count(entry.get("header_bytes"), "The manifest's header_bytes")
        rows = entry.get("tensors")
        if not isinstance(rows, list):
            raise InvalidBlob("The manifest's tensors are not a list.")
        if len(rows) > limits.max_tensors:
            raise InvalidBlob(f"The manifest lists {len(rows)} tensors; {limits.max_tensors} are allowed.")
        specs = tuple(_spec_from_wire(row, limits) for row in rows)
        values = check_values(entry.get("values"), specs, limits)
        check_layout(specs, size_bytes, header_bytes, limits)
        return cls(str(blob_hash), size_bytes, header_bytes, specs, values)


def is_blob_hash(text: object) -> bool:
    """Whether ``text`` is a BLAKE3 in lowercase hex, which is safe as a file name."""
    return isinstance(text, str) and _HASH.match(text) is not None


def tensor_name(value: str, key: str) -> str:
    """The name in the file of the tensor ``key`` of ``value``; the key is "" for IMAGE and MASK."""
    return f"{value}{SEPARATOR}{key}" if key else value


def split_name(name: str) -> tuple[str, str]:
    """The inverse of `tensor_name`."""
    value, _, key = name.partition(SEPARATOR)
    return value, key


def as_mapping(data: object, what: str) -> Mapping[str, Any]:
    """``data`` if it is a dict, else InvalidBlob."""
    if not isinstance(data, dict):
        raise InvalidBlob(f"{what} is not an object.")
    return data


def as_count(data: object, what: str) -> int:
    """``data`` if it is an int from 0 up, else InvalidBlob. True is no number here."""
    if not isinstance(data, int) or isinstance(data, bool) or data < 0:
        raise InvalidBlob(f"{what} is not a whole number from 0 up.")
    return data


def as_dtype(data: object, what: str) -> str:
    """``data`` if it names an element type that this torch has, else InvalidBlob."""
    if not isinstance(data, str) or data not in ITEM_BYTES:
        raise InvalidBlob(f"{what} is not an element type known here.")
    return data


def as_shape(data: object, what: str, limits: TransportLimits) -> tuple[int, ...]:
    """``data`` as a shape, else InvalidBlob."""
    if not isinstance(data, (list, tuple)) or len(data) > limits.max_rank:
        raise InvalidBlob(f"{what} is not a list of at most {limits.max_rank} sizes.")
    return tuple(as_count(size, what) for size in data)


def size_of(dtype: str, shape: tuple[int, ...], limits: TransportLimits) -> int:
    """Bytes of a tensor. Raises InvalidBlob over the cap, also for shapes with a zero beside an absurd size."""
    total = ITEM_BYTES[dtype]
    for size in shape:
        if size > limits.max_blob_bytes:
            raise InvalidBlob(f"A tensor's shape holds the size {size}, which is over the cap.")
        total *= size
    if total > limits.max_blob_bytes:
        raise InvalidBlob(f"A tensor has {total} bytes; {limits.max_blob_bytes} are allowed.")
    return total


def check_layout(specs: tuple[TensorSpec, ...], size_bytes: int, header_bytes: int, limits: TransportLimits) -> None:
    """Raises InvalidBlob unless header and tensors, in their order, tile the file without a gap or an overlap."""
    if size_bytes > limits.max_blob_bytes:
        raise InvalidBlob(f"The blob has {size_bytes} bytes; {limits.max_blob_bytes} are allowed.")
    if not LENGTH_BYTES < header_bytes <= limits.max_header_bytes:
        raise InvalidBlob(f"The blob's header has {header_bytes} bytes; {limits.max_header_bytes} are allowed.")
    position = 0
    for spec in specs:
        if spec.offset != position:
            raise InvalidBlob(f"Tensor {spec.name!r} starts at byte {spec.offset}, not at {position}.")
        if not is_known_narrowing(spec.dtype, spec.restore_dtype):
            raise InvalidBlob(f"Tensor {spec.name!r}: {spec.dtype} cannot be restored to {spec.restore_dtype}.")
        if spec.size_bytes != size_of(spec.dtype, spec.shape, limits):
            raise InvalidBlob(f"Tensor {spec.name!r} has a size that its type and shape do not have.")
        position += spec.size_bytes
    if header_bytes + position != size_bytes:
        raise InvalidBlob(f"The blob has {size_bytes} bytes, but its parts have {header_bytes + position}.")


def check_values(data: object, specs: tuple[TensorSpec, ...], limits: TransportLimits) -> dict[str, dict[str, Any]]:
    """``data`` as the values of a blob with the tensors ``specs``. Raises InvalidBlob where they do not belong together."""
    values = as_mapping(data, "The blob's list of values")
    if len(values) > limits.max_values:
        raise InvalidBlob(f"The blob holds {len(values)} values; {limits.max_values} are allowed.")
    fault = json_fault(values, limits.max_json_depth)
    if fault:
        raise InvalidBlob(f"The blob's values are not JSON: {fault}.")
    tensors: dict[str, dict[str, TensorSpec]] = {}
    for spec in specs:
        value, key = split_name(spec.name)
        if value not in values or key in tensors.setdefault(value, {}):
            raise InvalidBlob(f"Tensor {spec.name!r} belongs to no value, or is there twice.")
        tensors[value][key] = spec
    return {name: _check_value(name, meta, tensors.get(name, {}), limits) for name, meta in values.items()}


def _check_value(name: str, data: object, tensors: Mapping[str, TensorSpec], limits: TransportLimits) -> dict[str, Any]:
    meta = as_mapping(data, f"Value {name[: limits.max_name_chars]!r}")
    kind = meta.get("kind")
    if not is_value_name(name) or not isinstance(kind, str) or kind not in KINDS:
        raise InvalidBlob("A value of the blob has no allowed name or kind.")
    if kind == JSON or meta.get("empty") is True:
        if tensors or (kind == JSON and "json" not in meta):
            raise InvalidBlob(f"Value {name!r} has tensors that its kind does not have, or no JSON.")
        return {"kind": kind, "json": meta["json"]} if kind == JSON else {"kind": kind, "empty": True}
    if kind in PLAIN_KINDS:
        if set(tensors) != {""}:
            raise InvalidBlob(f"{kind} {name!r} has not exactly one tensor.")
        _check_rank(name, kind, tensors[""])
        return {"kind": kind}
    return _check_dict_value(name, kind, meta, tensors, limits)


def _check_dict_value(
    name: str, kind: str, meta: Mapping[str, Any], tensors: Mapping[str, TensorSpec], limits: TransportLimits
) -> dict[str, Any]:
    assert kind in DICT_KINDS
    extras = as_mapping(meta.get("extras"), f"The extras of {name!r}")
    if PRIMARY[kind] not in tensors or set(extras) & set(tensors):
        raise InvalidBlob(f"{kind} {name!r} lacks the tensor {PRIMARY[kind]!r}, or has a key twice.")
    if not all(is_key(key, limits) for key in [*extras, *tensors]):
        raise InvalidBlob(f"{kind} {name!r} has a key that is not allowed.")
    _check_rank(name, kind, tensors[PRIMARY[kind]])
    if kind == AUDIO and as_count(extras.get(SAMPLE_RATE), f"The {SAMPLE_RATE} of {name!r}") == 0:
        raise InvalidBlob(f"The {SAMPLE_RATE} of {name!r} is 0.")
    return {"kind": kind, "extras": dict(extras)}


def _check_rank(name: str, kind: str, spec: TensorSpec) -> None:
    rank = RANK.get(kind)
    if (rank is not None and len(spec.shape) != rank) or not spec.shape:
        raise InvalidBlob(f"{kind} {name!r} has {len(spec.shape)} dimensions.")


def _spec_from_wire(row: object, limits: TransportLimits) -> TensorSpec:
    entry = as_mapping(row, "A tensor of the manifest")
    name = entry.get("name")
    if not isinstance(name, str) or len(name) > 2 * limits.max_name_chars:
        raise InvalidBlob("A tensor of the manifest has no allowed name.")
    return TensorSpec(
        name=name,
        dtype=as_dtype(entry.get("dtype"), f"The dtype of {name!r}"),
        shape=as_shape(entry.get("shape"), f"The shape of {name!r}", limits),
        offset=as_count(entry.get("offset"), f"The offset of {name!r}"),
        size_bytes=as_count(entry.get("size_bytes"), f"The size of {name!r}"),
        restore_dtype=as_dtype(entry.get("restore_dtype"), f"The restore_dtype of {name!r}"),
    )
