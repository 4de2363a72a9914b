"""How the values of items become one value: along the batch, along the samples, or as a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..utils.errors import InvalidInput
from .dtypes import TORCH_DTYPES
from .manifest import TensorSpec, tensor_name
from .memory import empty
from .values import AUDIO, DICT_KINDS, JSON, PRIMARY, SAMPLE_RATE

BATCH_INDEX = "batch_index"
_SIZE_CURE = "Make all items the same size, for example with an Upscale Image node before the collector."
_AUDIO_CURE = "Bring all audio to one sample rate and number of channels before the collector."


@dataclass(frozen=True)
class Piece:
    """One item's part of a value: tensors by key ("" for IMAGE and MASK) and its JSON."""

    index: int
    tensors: dict[str, torch.Tensor]
    extras: Any


class Described(Protocol):
    """An item as far as its description goes."""

    index: int
    metas: Mapping[str, Mapping[str, Any]]
    specs: tuple[TensorSpec, ...]


def check_alike(known: Sequence[Described], item: Described) -> None:
    """Raises InvalidInput, naming items and sizes, if ``item`` cannot be joined with the items ``known``."""
    for name, meta in item.metas.items():
        for other in known:
            other_kind = other.metas.get(name, meta)["kind"]
            if other_kind != meta["kind"]:
                raise InvalidInput(
                    f"{name!r} of item {item.index} is {meta['kind']}, of item {other.index} {other_kind}."
                )
        spec = primary_of(item, name)
        twin = next(((other, found) for other in known if (found := primary_of(other, name))), None)
        if spec is not None and twin is not None:
            _check_pair(name, meta["kind"], (item, spec), twin)


def join_batches(name: str, parts: Sequence[tuple[int, torch.Tensor]], layout: torch.Tensor | None) -> torch.Tensor:
    """Tensors [B, ...] of items in their order along the batch.

    ``layout`` is the shared memory [items, B, ...] in which parts may lie at their index: where all fit it, the
    result is a view of it and only parts that lie elsewhere are copied. Raises InvalidInput if sizes differ.
    """
    filled = [(index, part) for index, part in parts if part.numel()]
    if not filled:
        return parts[0][1]
    first_index, first = filled[0]
    for index, part in filled:
        if part.shape[1:] != first.shape[1:]:
            raise _size_error(name, index, tuple(part.shape), first_index, tuple(first.shape))
    if layout is not None and all(part.dtype == layout.dtype and part.shape == layout.shape[1:] for _, part in filled):
        # Ascending: a part only ever moves down, into a place whose own part has moved before.
        for place, (_, part) in enumerate(filled):
            if part.data_ptr() != layout[place].data_ptr():
                layout[place].copy_(part)
        return layout[: len(filled)].flatten(0, 1)
    if len(filled) == 1:
        return first
    dtype = first.dtype
    for _, part in filled:
        dtype = torch.promote_types(dtype, part.dtype)
    joined = empty((sum(part.shape[0] for _, part in filled), *first.shape[1:]), dtype)
    row = 0
    for _, part in filled:
        joined[row : row + part.shape[0]].copy_(part)
        row += part.shape[0]
    return joined


def join_latents(name: str, pieces: Sequence[Piece], layout: torch.Tensor | None) -> dict[str, Any]:
    """LATENT dicts along the batch.

    A tensor that every item has, with one row per sample or one for all (a noise mask), is joined as well; so is
    ``batch_index``. Whatever else there is comes from the first item.
    """
    primary = PRIMARY["LATENT"]
    first = pieces[0]
    batches = [piece.tensors[primary].shape[0] for piece in pieces]
    joined: dict[str, Any] = {primary: join_batches(name, [(p.index, p.tensors[primary]) for p in pieces], layout)}
    for key, tensor in first.tensors.items():
        if key == primary:
            continue
        rows = _rows_per_item(key, pieces, batches)
        joined[key] = join_batches(f"{name}.{key}", rows, None) if rows else tensor
    joined.update({key: extra for key, extra in first.extras.items() if key != BATCH_INDEX})
    # A list shorter than the batch would make the sampler fail, so it is whole or not there.
    lists = [piece.extras.get(BATCH_INDEX) for piece in pieces]
    whole = [isinstance(entry, list) and len(entry) == batch for entry, batch in zip(lists, batches, strict=True)]
    if all(whole):
        joined[BATCH_INDEX] = [number for entry in lists for number in entry or []]
    return joined


def join_audio(pieces: Sequence[Piece]) -> dict[str, Any]:
    """AUDIO dicts along the samples; silence of no length changes nothing. Everything else is the first item's."""
    primary = PRIMARY[AUDIO]
    filled = [piece for piece in pieces if piece.tensors[primary].numel()] or [pieces[0]]
    first = filled[0]
    waveforms = [piece.tensors[primary] for piece in filled]
    waveform = waveforms[0] if len(waveforms) == 1 else torch.cat(waveforms, dim=-1)
    return {**first.tensors, **first.extras, primary: waveform}


def primary_of(item: Described, name: str) -> TensorSpec | None:
    """The main tensor of a value; None for JSON, for a value that is not there, and for one without elements."""
    meta = item.metas.get(name)
    if meta is None or meta["kind"] == JSON or meta.get("empty"):
        return None
    wanted = tensor_name(name, PRIMARY[meta["kind"]] if meta["kind"] in DICT_KINDS else "")
    for spec in item.specs:
        if spec.name == wanted and spec.size_bytes:
            return spec
    return None


def _check_pair(name: str, kind: str, one: tuple[Described, TensorSpec], two: tuple[Described, TensorSpec]) -> None:
    (item, spec), (other, other_spec) = one, two
    try:
        torch.promote_types(TORCH_DTYPES[spec.restore_dtype], TORCH_DTYPES[other_spec.restore_dtype])
    except RuntimeError:
        raise InvalidInput(
            f"{name!r} of item {item.index} is {spec.restore_dtype}, of item {other.index} {other_spec.restore_dtype}."
        ) from None
    if kind != AUDIO:
        if spec.shape[1:] != other_spec.shape[1:]:
            raise _size_error(name, item.index, spec.shape, other.index, other_spec.shape)
        return
    rates = [entry.metas[name]["extras"][SAMPLE_RATE] for entry in (item, other)]
    if spec.shape[:-1] != other_spec.shape[:-1] or rates[0] != rates[1]:
        raise InvalidInput(
            f"{name!r} of item {item.index} is audio of {rates[0]} Hz with {_audio(spec)}, "
            f"of item {other.index} of {rates[1]} Hz with {_audio(other_spec)}.",
            cure=_AUDIO_CURE,
        )


def _audio(spec: TensorSpec) -> str:
    return f"{spec.shape[1]} channels in a batch of {spec.shape[0]}"


def _size_error(
    name: str, index: int, shape: tuple[int, ...], other: int, other_shape: tuple[int, ...]
) -> InvalidInput:
    sizes = ["×".join(str(size) for size in entry[1:]) for entry in (shape, other_shape)]
    return InvalidInput(f"{name!r} of item {index} is {sizes[0]}, of item {other} {sizes[1]}.", cure=_SIZE_CURE)


def _rows_per_item(key: str, pieces: Sequence[Piece], batches: Sequence[int]) -> list[tuple[int, torch.Tensor]]:
    """The tensor ``key`` of every item with one row per sample; empty if some item has none that could be."""
    rows = []
    for piece, batch in zip(pieces, batches, strict=True):
        tensor = piece.tensors.get(key)
        if tensor is None or tensor.dim() == 0 or tensor.shape[0] not in (1, batch):
            return []
        rows.append((piece.index, tensor if tensor.shape[0] == batch else tensor.expand(batch, *tensor.shape[1:])))
    return rows
