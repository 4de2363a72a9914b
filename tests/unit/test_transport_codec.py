"""The blob file and its manifest: what honest ones look like, and that hostile ones are refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import safetensors.torch
import torch
from blake3 import blake3
from flotilla.transport.codec import METADATA, RESTORE_KEY, VALUES_KEY, BlobPlan, decode_header, plan_blob
from flotilla.transport.limits import TransportLimits
from flotilla.transport.manifest import LENGTH_BYTES, BlobManifest
from flotilla.transport.values import AUDIO, IMAGE, JSON, LATENT, MASK, Value
from flotilla.utils.errors import InvalidBlob, InvalidInput, TooLarge

RATE = 44_100


def blob(values: dict[str, Value], precision: str = "exact") -> tuple[bytes, BlobPlan, BlobManifest]:
    plan = plan_blob(values, precision)
    data = b"".join(plan.chunks())
    return data, plan, plan.manifest(blake3(data).hexdigest())


def some_values() -> dict[str, Value]:
    torch.manual_seed(1)
    return {
        "images": Value(IMAGE, torch.rand(2, 5, 4, 3)),
        "mask": Value(MASK, torch.rand(5, 4)),
        "latent": Value(
            LATENT, {"samples": torch.rand(2, 4, 3, 3), "noise_mask": torch.ones(1, 3, 3), "type": "x", "n": [1, (2,)]}
        ),
        "audio": Value(AUDIO, {"waveform": torch.rand(1, 2, 10), "sample_rate": RATE}),
        "none": Value(IMAGE, None),
        "facts": Value(JSON, {"a": [1, None, True, 0.5, "ä\ud800"]}),
    }


def header_of(table: object) -> bytes:
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def table_of(plan: BlobPlan) -> dict[str, Any]:
    return dict(json.loads(plan.header[LENGTH_BYTES:]))


def test_safetensors_reads_the_file(tmp_path: Any) -> None:
    values = some_values()
    data, _, manifest = blob(values)
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    tensors = safetensors.torch.load_file(path)
    assert set(tensors) == {spec.name for spec in manifest.tensors}
    assert torch.equal(tensors["images"], values["images"].data)
    assert torch.equal(tensors["latent/noise_mask"], values["latent"].data["noise_mask"])
    with safetensors.safe_open(path, "pt") as file:
        assert json.loads(file.metadata()[VALUES_KEY])["audio"]["extras"] == {"sample_rate": RATE}


def test_tensors_start_aligned() -> None:
    _, plan, manifest = blob({"m": Value(MASK, torch.ones(1, 3, 3).bool()), "i": Value(IMAGE, torch.rand(1, 3, 3, 3))})
    assert manifest.header_bytes % 64 == 0
    assert [spec.name for spec in plan.specs] == ["i", "m"]  # the wider type first


def test_manifest_survives_the_wire() -> None:
    _, plan, manifest = blob(some_values(), "8bit")
    wire = json.loads(json.dumps(manifest.to_wire()))
    assert BlobManifest.from_wire(wire) == manifest
    assert decode_header(plan.header, manifest.size_bytes) == (manifest.tensors, manifest.values)


def test_equal_values_give_equal_bytes() -> None:
    assert blob(some_values())[2].hash == blob(some_values())[2].hash


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Value("MODEL", 1), "MODEL"),
        (Value(IMAGE, [1, 2]), "list"),
        (Value(IMAGE, torch.rand(4, 4, 3)), "3 dimensions"),
        (Value(MASK, torch.rand(1, 4, 4, 3)), "4 dimensions"),
        (Value(IMAGE, torch.rand(1, 4, 4, 3, dtype=torch.complex64)), "complex64"),
        (Value(IMAGE, torch.rand(1, 4, 4, 3).to_sparse()), "sparse"),
        (Value(IMAGE, torch.empty(1, 4, 4, 3, device="meta")), "without data"),
        (Value(LATENT, torch.rand(1, 4, 8, 8)), "not a dict"),
        (Value(LATENT, {"type": "x"}), "samples"),
        (Value(LATENT, {"samples": torch.tensor(1.0)}), "no batch"),
        (
            Value(LATENT, {"samples": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)}),
            "nested",
        ),
        (Value(LATENT, {"samples": torch.rand(1, 4, 8, 8), "hook": object()}), "x.hook"),
        (Value(LATENT, {"samples": torch.rand(1, 4, 8, 8), 5: 1}), "key 5"),
        (Value(AUDIO, {"waveform": torch.rand(1, 2, 5)}), "sample_rate"),
        (Value(AUDIO, {"waveform": torch.rand(1, 2, 5), "sample_rate": 0}), "above zero"),
        (Value(AUDIO, {"waveform": torch.rand(1, 2, 5), "sample_rate": True}), "True"),
        (Value(AUDIO, {"waveform": torch.rand(1, 2, 5), "sample_rate": 44100.5}), "44100.5"),
        (Value(JSON, float("nan")), "nan"),
        (Value(JSON, [float("inf")]), "inf"),
        (Value(JSON, {1: 2}), "key 1"),
        (Value(JSON, {"a": {2}}), "set"),
        (Value(JSON, 10**5000), "64 bits"),
    ],
)
def test_what_cannot_travel_is_named(value: Value, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        plan_blob({"x": value})


def test_depth_of_json_is_capped() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidInput, match="nested deeper"):
        plan_blob({"x": Value(JSON, deep)})
    while deep:  # a chain this long must be taken apart by hand, or freeing it recurses
        deep = deep.pop()


@pytest.mark.parametrize("name", ["", "a/b", "../x", "__metadata__", "1a", "a b", "x" * 65, "ä"])
def test_names_of_values_are_checked(name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot name"):
        plan_blob({name: Value(JSON, 1)})


def test_unknown_precision() -> None:
    with pytest.raises(InvalidInput, match="4bit") as caught:
        plan_blob(some_values(), "4bit")
    assert "half" in caught.value.cure


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (TransportLimits(max_values=5), InvalidInput),
        (TransportLimits(max_tensors=4), InvalidInput),
        (TransportLimits(max_rank=3), InvalidInput),
        (TransportLimits(max_blob_bytes=1000), TooLarge),
        (TransportLimits(max_header_bytes=500), TooLarge),
        (TransportLimits(max_json_bytes=20), TooLarge),
    ],
)
def test_caps_hold_when_writing(limits: TransportLimits, error: type[Exception]) -> None:
    with pytest.raises(error):
        plan_blob(some_values(), limits=limits)


def test_caps_hold_when_reading() -> None:
    _, plan, manifest = blob(some_values())
    for limits in (
        TransportLimits(max_values=5),
        TransportLimits(max_tensors=4),
        TransportLimits(max_rank=3),
        TransportLimits(max_blob_bytes=1000),
        TransportLimits(max_header_bytes=500),
        TransportLimits(max_json_depth=2),
    ):
        with pytest.raises(InvalidBlob):
            BlobManifest.from_wire(manifest.to_wire(), limits)
        with pytest.raises(InvalidBlob):
            decode_header(plan.header, manifest.size_bytes, limits)


HOSTILE_FIELDS: list[tuple[str, Any]] = [
    ("hash", "../../etc/passwd"),
    ("hash", "A" * 64),
    ("hash", "0" * 64 + "\n"),
    ("hash", 5),
    ("size_bytes", -1),
    ("size_bytes", True),
    ("size_bytes", 1.5),
    ("size_bytes", "10"),
    ("size_bytes", 2**63),
    ("header_bytes", 8),
    ("header_bytes", None),
    ("tensors", {}),
    ("tensors", [[]]),
    ("values", []),
    ("values", {"images": 5}),
    ("values", {}),
]


@pytest.mark.parametrize(("field", "bad"), HOSTILE_FIELDS)
def test_hostile_manifest_field(field: str, bad: Any) -> None:
    _, _, manifest = blob(some_values())
    with pytest.raises(InvalidBlob):
        BlobManifest.from_wire({**manifest.to_wire(), field: bad})
    wire = manifest.to_wire()
    del wire[field]
    with pytest.raises(InvalidBlob):
        BlobManifest.from_wire(wire)


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("name", "nobody"),
        ("name", 7),
        ("name", "latent/" + "x" * 1000),
        ("dtype", "F31"),
        ("dtype", []),
        ("dtype", "F64"),
        ("shape", "22"),
        ("shape", [2, 4, 3]),
        ("shape", [-2, -4, 3, 3]),
        ("shape", [True, 4, 18, 1]),
        ("shape", [2, 4, 3, 3.0]),
        ("shape", [2**40, 2**40, 2**40, 2**40]),
        ("shape", [0, 2**62, 1, 1]),
        ("shape", [1] * 17),
        ("offset", 4),
        ("offset", -4),
        ("size_bytes", 0),
        ("restore_dtype", "U8"),
        ("restore_dtype", None),
    ],
)
def test_hostile_tensor_row(field: str, bad: Any) -> None:
    _, _, manifest = blob({"latent": some_values()["latent"]})
    wire = manifest.to_wire()
    wire["tensors"][0][field] = bad
    with pytest.raises(InvalidBlob):
        BlobManifest.from_wire(wire)


@pytest.mark.parametrize("junk", [None, 5, "x", [], [{}], {}])
def test_manifest_of_another_type(junk: Any) -> None:
    with pytest.raises(InvalidBlob):
        BlobManifest.from_wire(junk)


@pytest.mark.parametrize(
    "values",
    [
        {"audio": {"kind": "AUDIO", "extras": {}}},
        {"audio": {"kind": "AUDIO", "extras": {"sample_rate": 0}}},
        {"audio": {"kind": "AUDIO", "extras": {"sample_rate": 44100, "waveform": 1}}},
        {"audio": {"kind": "AUDIO"}},
        {"audio": {"kind": "IMAGE"}},
        {"audio": {"kind": "LATENT", "extras": {}}},
        {"audio": {"kind": "JSON", "json": 1}},
        {"audio": {"kind": "AUDIO", "empty": True}},
        {"audio": {"kind": "MODEL"}},
        {"audio": {"kind": ["AUDIO"]}},
        {"audio": {"kind": "AUDIO", "extras": {"sample_rate": 44100, "": 1}}},
        {"audio": {"kind": "AUDIO", "extras": {"sample_rate": 44100}}, "more": {"kind": "IMAGE"}},
        {"audio": {"kind": "AUDIO", "extras": {"sample_rate": 44100}}, "more": {"kind": "JSON"}},
    ],
)
def test_values_must_fit_the_tensors(values: dict[str, Any]) -> None:
    _, _, manifest = blob({"audio": some_values()["audio"]})
    with pytest.raises(InvalidBlob):
        BlobManifest.from_wire({**manifest.to_wire(), "values": values})


def test_tensor_listed_twice() -> None:
    _, _, manifest = blob({"a": Value(IMAGE, torch.rand(1, 1, 1, 1))})
    spec = manifest.tensors[0]
    twice = replace(
        manifest,
        tensors=(spec, replace(spec, offset=spec.size_bytes)),
        size_bytes=manifest.size_bytes + spec.size_bytes,
    )
    with pytest.raises(InvalidBlob, match="twice"):
        BlobManifest.from_wire(twice.to_wire())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x05\0\0",
        b"\xff" * 8 + b"{}",
        header_of(b""),
        header_of(b"{"),
        header_of(b"[]"),
        header_of(b"\xff\xfe"),
        header_of(b"[" * 200_000),
        header_of(b'{"a":' * 100_000),
        header_of(b'{"x": NaN}'),
        header_of({"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}),
    ],
)
def test_hostile_header_bytes(raw: bytes) -> None:
    with pytest.raises(InvalidBlob):
        decode_header(raw, len(raw) + 4)


def test_keys_that_come_twice_in_a_header() -> None:
    _, plan, manifest = blob({"a": Value(IMAGE, torch.rand(1, 1, 1, 1))})
    row = json.dumps(table_of(plan)["a"])
    metadata = json.dumps(table_of(plan)[METADATA])
    good = header_of(f'{{"__metadata__":{metadata},"a":{row}}}'.encode())
    assert decode_header(good, len(good) + 4)[0] == manifest.tensors
    bad = header_of(f'{{"__metadata__":{metadata},"a":{row},"a":{row}}}'.encode())
    with pytest.raises(InvalidBlob, match="ValueError"):
        decode_header(bad, len(bad) + 4)


@pytest.mark.parametrize(
    "change",
    [
        {"data_offsets": [4, 0]},
        {"data_offsets": [0, 8]},
        {"data_offsets": [0]},
        {"data_offsets": None},
        {"data_offsets": [-4, 0]},
        {"shape": [1, 1, 1, 2]},
        {"dtype": "I8"},
    ],
)
def test_hostile_row_in_a_header(change: dict[str, Any]) -> None:
    _, plan, _ = blob({"a": Value(IMAGE, torch.rand(1, 1, 1, 1))})
    table = table_of(plan)
    table["a"].update(change)
    raw = header_of(table)
    with pytest.raises(InvalidBlob):
        decode_header(raw, len(raw) + 4)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {VALUES_KEY: "{}", RESTORE_KEY: "{}"},
        {VALUES_KEY: '{"a":{"kind":"IMAGE"}}'},
        {VALUES_KEY: '{"a":{"kind":"IMAGE"}}', RESTORE_KEY: '{"b":"F32"}'},
        {VALUES_KEY: '{"a":{"kind":"IMAGE"}}', RESTORE_KEY: '{"a":"U8"}'},
        {VALUES_KEY: '{"a":{"kind":"IMAGE","kind":"IMAGE"}}', RESTORE_KEY: "{}"},
        {VALUES_KEY: {"a": {"kind": "IMAGE"}}, RESTORE_KEY: "{}"},
    ],
)
def test_hostile_metadata(metadata: Any) -> None:
    _, plan, _ = blob({"a": Value(IMAGE, torch.rand(1, 1, 1, 1))})
    raw = header_of({**table_of(plan), METADATA: metadata})
    with pytest.raises(InvalidBlob):
        decode_header(raw, len(raw) + 4)


def test_overlap_and_gap_are_refused() -> None:
    _, plan, _ = blob({"a": Value(IMAGE, torch.rand(1, 1, 1, 1)), "b": Value(IMAGE, torch.rand(1, 1, 1, 1))})
    for ends in ([0, 4], [2, 6], [5, 9]):
        table = table_of(plan)
        table["b"]["data_offsets"] = ends
        raw = header_of(table)
        with pytest.raises(InvalidBlob):
            decode_header(raw, len(raw) + 8)
