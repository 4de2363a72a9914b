"""Items for assemblies, as the network and this process deliver them."""

from __future__ import annotations

import torch
from blake3 import blake3
from flotilla.transport.assemble import Assembly, ItemSink
from flotilla.transport.codec import plan_blob
from flotilla.transport.manifest import BlobManifest
from flotilla.transport.values import AUDIO, IMAGE, Value


def packed(values: dict[str, Value], precision: str = "exact") -> tuple[bytes, BlobManifest]:
    plan = plan_blob(values, precision)
    data = b"".join(plan.chunks())
    return data, plan.manifest(blake3(data).hexdigest())


def fill(sink: ItemSink, data: bytes, manifest: BlobManifest) -> None:
    for spec in manifest.tensors:
        start = manifest.header_bytes + spec.offset
        sink[spec.name][:] = data[start : start + spec.size_bytes]


def deliver(assembly: Assembly, index: int, values: dict[str, Value], precision: str = "exact") -> bool:
    data, manifest = packed(values, precision)
    sink = assembly.sink_for(index, manifest)
    if sink is None:
        return False
    fill(sink, data, manifest)
    return assembly.arrived(sink)


def image(seed: int, batch: int = 2, size: tuple[int, ...] = (3, 4, 3)) -> torch.Tensor:
    return torch.rand(batch, *size, generator=torch.Generator().manual_seed(seed))


def picture(seed: int, batch: int = 2, size: tuple[int, ...] = (3, 4, 3)) -> dict[str, Value]:
    return {"images": Value(IMAGE, image(seed, batch, size))}


def sound(samples: int, rate: int = 44_100, channels: int = 2) -> dict[str, Value]:
    return {
        "audio": Value(AUDIO, {"waveform": torch.full((1, channels, samples), float(samples)), "sample_rate": rate})
    }
