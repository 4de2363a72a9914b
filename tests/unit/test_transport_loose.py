"""Results that are handed over one by one: whole values, each place once, memory that goes with them."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.spools import MakeSpool, picture, spools_in
from flotilla.transport.limits import MIB
from flotilla.transport.local_read import read_local
from flotilla.transport.loose import LooseItems, read_values
from flotilla.transport.uses import StoredBlob
from flotilla.transport.values import AUDIO, IMAGE, JSON, LATENT, Value
from flotilla.utils.errors import InvalidBlob, InvalidInput, NotFound


@pytest.fixture
def make_spool(tmp_path: Path) -> Any:
    with spools_in(tmp_path) as make:
        yield make


class Taker:
    """Remembers what has landed."""

    def __init__(self) -> None:
        self.landed: list[tuple[int, dict[str, Value]]] = []
        self.fault: Exception | None = None

    def __call__(self, place: int, values: dict[str, Value]) -> None:
        if self.fault is not None:
            raise self.fault
        self.landed.append((place, values))


def bring(items: LooseItems, place: int, blob: StoredBlob) -> bool:
    sink = items.sink_for(place, blob.manifest)
    if sink is None:
        return False
    read_local(blob.path, blob.manifest, sink)
    return items.arrived(sink)


def test_every_kind_of_value_arrives_as_it_was(make_spool: MakeSpool) -> None:
    latent = {"samples": torch.rand(1, 4, 2, 2), "noise_mask": torch.rand(1, 2, 2), "type": "audio"}
    values = {
        "pixels": Value(IMAGE, torch.randint(0, 255, (2, 3, 4, 3), dtype=torch.uint8)),
        "latent": Value(LATENT, latent),
        "sound": Value(AUDIO, {"waveform": torch.rand(1, 2, 5), "sample_rate": 44_100}),
        "none": Value(IMAGE, None),
        "about": Value(JSON, {"hints": ["a"]}),
    }
    taker = Taker()
    assert bring(LooseItems(taker), 7, make_spool().write(values))
    ((place, found),) = taker.landed
    assert place == 7
    assert {name: value.kind for name, value in found.items()} == {name: value.kind for name, value in values.items()}
    assert found["pixels"].data.dtype == torch.uint8
    assert torch.equal(found["pixels"].data, values["pixels"].data)
    assert {key: found["latent"].data[key] for key in ("type",)} == {"type": "audio"}
    assert all(torch.equal(found["latent"].data[key], latent[key]) for key in ("samples", "noise_mask"))  # type: ignore[call-overload]
    assert found["sound"].data["sample_rate"] == 44_100
    assert found["none"].data is None
    assert found["about"].data == {"hints": ["a"]}


def test_less_precision_is_restored(make_spool: MakeSpool) -> None:
    image = torch.rand(1, 8, 8, 3)
    taker = Taker()
    bring(LooseItems(taker), 0, make_spool().write({"pixels": Value(IMAGE, image)}, "8bit"))
    found = taker.landed[0][1]["pixels"].data
    assert found.dtype == torch.float32
    assert torch.equal(found, (image * 255.0).round() / 255.0)


def test_the_first_delivery_wins_and_shares_no_memory(make_spool: MakeSpool) -> None:
    taker = Taker()
    items = LooseItems(taker)
    blob = make_spool().write(picture(1))
    first, second = items.sink_for(3, blob.manifest), items.sink_for(3, blob.manifest)
    assert first is not None
    assert second is not None
    read_local(blob.path, blob.manifest, second)
    assert items.arrived(second)
    before = taker.landed[0][1]["images"].data.clone()
    first["images"][:] = bytes(len(first["images"]))  # the slower one still writes
    assert not items.arrived(first)
    assert torch.equal(taker.landed[0][1]["images"].data, before)
    assert items.sink_for(3, blob.manifest) is None
    assert not items.put_local(3, picture(2))
    assert len(taker.landed) == 1


def test_a_delivery_that_was_abandoned_leaves_the_place_open(make_spool: MakeSpool) -> None:
    taker = Taker()
    items = LooseItems(taker)
    blob = make_spool().write(picture(1))
    sink = items.sink_for(0, blob.manifest)
    assert sink is not None
    items.abandon(sink)
    assert bring(items, 0, blob)
    assert [place for place, _ in taker.landed] == [0]


def test_what_nobody_can_use_fails_and_leaves_the_place_open(make_spool: MakeSpool) -> None:
    taker = Taker()
    items = LooseItems(taker)
    blob = make_spool().write(picture(1))
    taker.fault = InvalidInput("Other pixels were wanted.")
    with pytest.raises(InvalidInput):
        bring(items, 0, blob)
    taker.fault = None
    assert items.put_local(0, picture(2))
    assert torch.equal(taker.landed[0][1]["images"].data, picture(2)["images"].data)


def test_memory_goes_with_the_values(make_spool: MakeSpool) -> None:
    taken: list[weakref.ref[torch.Tensor]] = []
    items = LooseItems(lambda _place, values: taken.append(weakref.ref(values["images"].data)))
    spool = make_spool(memory_cap_bytes=100 * MIB)
    for place in range(3):
        assert bring(items, place, spool.write(picture(place, 33 * MIB)))
    assert [reference() for reference in taken] == [None] * 3


def test_values_of_a_file_are_read_and_checked(make_spool: MakeSpool) -> None:
    blob = make_spool().write(picture(1))
    assert torch.equal(read_values(blob.path, blob.manifest)["images"].data, picture(1)["images"].data)
    data = bytearray(blob.path.read_bytes())
    data[-1] ^= 1
    blob.path.write_bytes(data)
    with pytest.raises(InvalidBlob):
        read_values(blob.path, blob.manifest)
    blob.path.unlink()
    with pytest.raises(NotFound):
        read_values(blob.path, blob.manifest)
