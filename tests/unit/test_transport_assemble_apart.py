"""Items that are not joined: each keeps its values, in order."""

from __future__ import annotations

import pytest
import torch
from fakes.deliveries import deliver, image, sound
from flotilla.transport.assemble import Assembly
from flotilla.transport.values import AUDIO, IMAGE, JSON, LATENT, Value
from flotilla.utils.errors import NotFound


def test_apart_items_may_be_unlike_and_keep_their_values_in_order() -> None:
    assembly = Assembly(4, joined=False)
    latent = {"samples": image(2, 1, (4, 2, 2)), "type": "t"}
    deliver(assembly, 2, {"value.0": Value(LATENT, latent), "value.1": Value(JSON, {"a": [1, "x"]})})
    deliver(assembly, 0, {"value.0": Value(IMAGE, image(0, 1))})
    assembly.put_local(1, {f"value.{n}": Value(IMAGE, image(n, 1, (5 + n, 4, 3))) for n in range(12)})
    entries = assembly.entries()
    assert list(entries) == [0, 1, 2]
    assert torch.equal(entries[0][0], image(0, 1))
    assert [part.shape[1] for part in entries[1]] == list(range(5, 17)), "not in the order of texts: 10 after 9"
    assert torch.equal(entries[2][0]["samples"], latent["samples"])
    assert entries[2][0]["type"] == "t"
    assert entries[2][1] == {"a": [1, "x"]}
    with pytest.raises(NotFound):
        assembly.entries()


def test_apart_items_of_nothing() -> None:
    assembly = Assembly(2, joined=False)
    deliver(assembly, 0, {})
    assembly.put_local(1, {"value.0": Value(JSON, None), "value.1": Value(AUDIO, None), **sound(3)})
    entries = assembly.entries()
    assert entries[0] == ()
    assert entries[1][:2] == (None, None)
    assert entries[1][2]["sample_rate"] == 44_100
    with pytest.raises(NotFound):
        Assembly(1, joined=False).entries()


def test_entries_are_ordinary_tensors_of_their_own() -> None:
    source = image(0, 1)
    with torch.inference_mode():
        assembly = Assembly(1, joined=False)
        assembly.put_local(0, {"value.0": Value(IMAGE, source)})
        (entry,) = assembly.entries()[0]
    entry.add_(1)
    assert torch.equal(source, image(0, 1))
