"""Whatever a person's graph makes goes through a spool and comes out the same, bit for bit, or within the stated error."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from flotilla.transport.assemble import Assembly
from flotilla.transport.dtypes import TORCH_DTYPES
from flotilla.transport.fetch import read_local
from flotilla.transport.limits import MIB
from flotilla.transport.manifest import BlobManifest
from flotilla.transport.precision import narrow, widen
from flotilla.transport.spool import Spool
from flotilla.transport.values import AUDIO, IMAGE, JSON, LATENT, MASK, Value
from flotilla.utils.errors import InvalidBlob
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def spool() -> Iterator[Spool]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        spool = Spool(
            root / "m", root / "d", memory_cap_bytes=64 * MIB, disk_cap_bytes=64 * MIB, recycle_cap_bytes=64 * MIB
        )
        yield spool
        spool.close()


def through(spool: Spool, values: Mapping[str, Value], precision: str = "exact") -> dict[str, Any]:
    """Write, manifest over the wire, read, join (one item), release."""
    blob = spool.write(values, precision)
    manifest = BlobManifest.from_wire(blob.manifest.to_wire())
    assembly = Assembly(1)
    sink = assembly.sink_for(0, manifest)
    assert sink is not None
    read_local(spool.open(manifest.hash), manifest, sink)
    assert assembly.arrived(sink)
    spool.release(manifest.hash)
    return assembly.finish()


def same_bits(one: torch.Tensor, two: torch.Tensor) -> bool:
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    if one.numel() == 0:
        return True
    raw = [torch.empty(t.shape, dtype=t.dtype).copy_(t.detach()).view(-1).view(torch.uint8) for t in (one, two)]
    return torch.equal(raw[0], raw[1])


@st.composite
def tensors(draw: st.DrawFn, rank: int | None = None, dtypes: tuple[str, ...] = tuple(TORCH_DTYPES)) -> torch.Tensor:
    """Any bits in any type, laid out in any of the ways that torch has."""
    dtype = TORCH_DTYPES[draw(st.sampled_from(dtypes))]
    rank = draw(st.integers(0, 4)) if rank is None else rank
    shape = [draw(st.integers(0 if place else 1, 5)) for place in range(rank)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    layout = draw(st.sampled_from(["plain", "transposed", "strided", "expanded", "grad", "inference"]))
    with torch.inference_mode(layout == "inference"):
        wide = [size * 2 for size in shape] if layout == "strided" else shape[::-1] if layout == "transposed" else shape
        count = math.prod(wide)
        if dtype == torch.bool:
            flat = torch.randint(0, 2, (count,), generator=generator).bool()
        else:
            item_bytes = torch.empty(0, dtype=dtype).element_size()
            flat = torch.randint(0, 256, (count * item_bytes,), generator=generator, dtype=torch.uint8).view(dtype)
        tensor = flat.reshape(wide)
        if layout == "strided":
            tensor = tensor[tuple(slice(None, None, 2) for _ in shape)]
        elif layout == "transposed":
            tensor = tensor.permute(tuple(reversed(range(rank))))
        elif layout == "expanded" and rank:
            tensor = tensor[:1].expand(3, *shape[1:])
    if layout == "grad" and dtype.is_floating_point and tensor.element_size() > 1:
        tensor.requires_grad_()
    return tensor


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(tensor=tensors(rank=4))
def test_image_exact(spool: Spool, tensor: torch.Tensor) -> None:
    assert same_bits(through(spool, {"x": Value(IMAGE, tensor)})["x"], tensor)


@given(tensor=tensors(rank=3))
def test_mask_exact(spool: Spool, tensor: torch.Tensor) -> None:
    assert same_bits(through(spool, {"x": Value(MASK, tensor)})["x"], tensor)


@given(samples=tensors(rank=4), extra=tensors(), facts=json_values)
def test_latent_exact(spool: Spool, samples: torch.Tensor, extra: torch.Tensor, facts: Any) -> None:
    out = through(spool, {"x": Value(LATENT, {"samples": samples, "noise_mask": extra, "facts": facts})})["x"]
    assert same_bits(out["samples"], samples)
    wanted = extra
    if extra.dim() and extra.shape[0] == 1 and samples.shape[0] > 1:
        wanted = extra.expand(samples.shape[0], *extra.shape[1:])
    assert same_bits(out["noise_mask"], wanted)
    assert out["facts"] == facts


@given(waveform=tensors(rank=3), rate=st.integers(1, 2**40))
def test_audio_exact(spool: Spool, waveform: torch.Tensor, rate: int) -> None:
    out = through(spool, {"x": Value(AUDIO, {"waveform": waveform, "sample_rate": rate})})["x"]
    assert same_bits(out["waveform"], waveform)
    assert out["sample_rate"] == rate


@given(value=json_values)
def test_json(spool: Spool, value: Any) -> None:
    assert through(spool, {"x": Value(JSON, value)})["x"] == [value]


@given(batches=st.lists(st.integers(0, 3), min_size=1, max_size=5), order=st.randoms(use_true_random=False))
def test_any_batches_in_any_order_join_by_index(spool: Spool, batches: list[int], order: Any) -> None:
    items = [torch.rand(batch, 2, 3, 3) for batch in batches]
    assembly = Assembly(len(items))
    places = list(range(len(items)))
    order.shuffle(places)
    for place in places:
        values = {"x": Value(IMAGE, items[place])}
        if order.random() < 0.5:
            assert assembly.put_local(place, values)
            continue
        blob = spool.write(values)
        sink = assembly.sink_for(place, blob.manifest)
        assert sink is not None
        read_local(blob.path, blob.manifest, sink)
        assert assembly.arrived(sink)
        spool.release(blob.manifest.hash)
    assert torch.equal(assembly.finish()["x"], torch.cat(items))


@given(
    values=st.lists(st.floats(-65504, 65504, width=64), min_size=1, max_size=50), dtype=st.sampled_from(["F32", "F64"])
)
def test_half_stays_within_the_stated_error(spool: Spool, values: list[float], dtype: str) -> None:
    tensor = torch.tensor(values, dtype=TORCH_DTYPES[dtype]).view(1, -1, 1, 1)
    out = through(spool, {"x": Value(IMAGE, tensor)}, "half")["x"]
    assert out.dtype == tensor.dtype
    error = (out.double() - tensor.double()).abs()
    # From float64 the value may be rounded twice, by way of float32.
    bound = torch.clamp(tensor.double().abs() * 2.0**-11, min=2.0**-25) * (1 + 2.0**-12)
    assert bool((error <= bound).all())


@given(
    values=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50),
    dtype=st.sampled_from(["F16", "BF16", "F32", "F64"]),
    kind=st.sampled_from([IMAGE, MASK]),
)
def test_8bit_stays_within_the_stated_error(spool: Spool, values: list[float], dtype: str, kind: str) -> None:
    tensor = torch.tensor(values).to(TORCH_DTYPES[dtype]).view(1, -1, 1, *([1] if kind == IMAGE else []))
    out = through(spool, {"x": Value(kind, tensor)}, "8bit")["x"]
    assert out.dtype == tensor.dtype
    error = (out.double() - tensor.double()).abs().max().item()
    assert error <= 0.5 / 255 + torch.finfo(tensor.dtype).eps
    levels = (out.double() * 255).round() / 255
    assert torch.equal(levels.to(tensor.dtype), out)


@given(values=st.dictionaries(st.sampled_from(["a", "b", "c"]), tensors(rank=4), min_size=1))
def test_many_values_in_one_blob(spool: Spool, values: dict[str, torch.Tensor]) -> None:
    out = through(spool, {name: Value(IMAGE, tensor) for name, tensor in values.items()})
    assert all(same_bits(out[name], tensor) for name, tensor in values.items())


def test_saturation_and_nan() -> None:
    wild = torch.tensor([1e30, -1e30, math.inf, -math.inf, math.nan])
    half = narrow(wild, torch.float16)
    assert half[:4].tolist() == [65504.0, -65504.0, 65504.0, -65504.0]
    assert bool(half[4].isnan())
    assert narrow(wild, torch.uint8).tolist() == [255, 0, 255, 0, 0]


def test_8bit_levels_are_what_the_formula_says() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    wide = torch.empty(256)
    widen(levels, wide)
    assert torch.equal(wide, torch.arange(256, dtype=torch.float32) / 255)
    assert torch.equal(narrow(wide, torch.uint8), levels)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5) | st.floats(), lambda x: st.lists(x, max_size=4) | st.dictionaries(st.sampled_from(
    ["hash", "size_bytes", "header_bytes", "tensors", "values", "name", "dtype", "shape", "offset", "kind", "extras", "x"]), x, max_size=6)))  # fmt: skip
def test_no_json_makes_a_manifest_fail_otherwise_than_by_name(junk: Any) -> None:
    with pytest.raises(InvalidBlob):
        BlobManifest.from_wire(junk)
