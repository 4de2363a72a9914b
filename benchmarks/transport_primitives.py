"""How fast this machine moves bytes, and how near the transport comes to it.

    python benchmarks/transport_primitives.py [--mib 256] [--rounds 5]

Prints GB/s (10⁹ bytes) as least, median and most of the rounds; figures are only worth comparing within one run on a
quiet machine. The HTTP server is a second process with aiohttp's FileResponse, as a worker is.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from aiohttp import web
from blake3 import blake3

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
importlib.import_module("loader").load_package()

from flotilla.transport.assemble import Assembly, ItemSink  # noqa: E402
from flotilla.transport.chunks import CHUNK_BYTES  # noqa: E402
from flotilla.transport.fetch import fetch_http, read_local  # noqa: E402
from flotilla.transport.limits import GIB, MIB  # noqa: E402
from flotilla.transport.spool import Spool  # noqa: E402
from flotilla.transport.spool_place import memory_folder  # noqa: E402
from flotilla.transport.uses import StoredBlob  # noqa: E402
from flotilla.transport.values import IMAGE, Value  # noqa: E402

GIGA = 1_000_000_000
WIDTH_PX, CHANNELS = 1024, 4
LABEL_CHARS = 44


class Measure:
    """Runs things several times and prints how fast they moved ``size_bytes``."""

    def __init__(self, size_bytes: int, rounds: int) -> None:
        self._size_bytes = size_bytes
        self._rounds = rounds

    def __call__(self, label: str, work: Callable[[], object], prepare: Callable[[], object] = lambda: None) -> None:
        """Times ``work``; ``prepare`` runs before each round, untimed."""
        rates = []
        for _ in range(self._rounds):
            prepare()
            start_s = time.perf_counter()
            work()
            rates.append(self._size_bytes / (time.perf_counter() - start_s) / GIGA)
        print(f"{label:{LABEL_CHARS}} {min(rates):6.2f} {statistics.median(rates):6.2f} {max(rates):6.2f}", flush=True)


def serve(path: Path) -> None:
    """Serves one file on a free loopback port, which is printed, until the standard input ends."""

    async def run() -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.FileResponse(path, chunk_size=CHUNK_BYTES)

        app = web.Application()
        app.router.add_get("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await runner.cleanup()

    asyncio.run(run())


def sink_of(blob: StoredBlob) -> ItemSink:
    """A fresh place for the blob."""
    sink = Assembly(1).sink_for(0, blob.manifest)
    assert sink is not None
    return sink


def measure_memory(measure: Measure, source: torch.Tensor, folder: Path) -> None:
    """What memory, the hash and the memory file system can do without us."""
    data = source.numpy().data.cast("B")
    target = torch.zeros_like(source)
    path = folder / "raw"

    def write_file() -> None:
        with path.open("r+b" if path.exists() else "wb", buffering=0) as file:
            for start in range(0, len(data), CHUNK_BYTES):
                file.write(data[start : start + CHUNK_BYTES])

    measure("memory copy, into used memory", lambda: target.copy_(source))
    measure("memory copy, into fresh memory", lambda: torch.empty_like(source).copy_(source))
    measure("BLAKE3, one thread", lambda: blake3(data).digest())
    measure("memory file, fresh", write_file, lambda: path.unlink(missing_ok=True))
    measure("memory file, written over", write_file)
    path.unlink()


def _write(spool: Spool, values: dict[str, Value], held: list[StoredBlob]) -> None:
    held.append(spool.write(values))


def _release(spool: Spool, held: list[StoredBlob]) -> None:
    while held:
        spool.release(held.pop().manifest.hash)


def measure_transport(measure: Measure, source: torch.Tensor, folder: Path, disk: Path) -> None:
    """The spool and both ways out of it, hashes included."""
    size_bytes = source.numel() * source.element_size()
    values = {"images": Value(IMAGE, source)}
    cap_bytes = GIB + 4 * size_bytes

    def open_spool(recycle_cap_bytes: int) -> Spool:
        return Spool(
            folder,
            disk,
            memory_cap_bytes=cap_bytes,
            disk_cap_bytes=cap_bytes,
            recycle_cap_bytes=recycle_cap_bytes,
        )

    for label, recycle_cap_bytes in (("fresh", 0), ("recycled", GIB + 2 * size_bytes)):
        spool = open_spool(recycle_cap_bytes)
        spool.release(spool.write(values).manifest.hash)
        held: list[StoredBlob] = []
        measure(
            f"spool write + hash, {label}",
            functools.partial(_write, spool, values, held),
            functools.partial(_release, spool, held),
        )
        spool.close()
    spool = open_spool(0)
    try:
        blob = spool.write(values)
        used = sink_of(blob)
        measure("read_local + hash, into fresh memory", lambda: read_local(blob.path, blob.manifest, sink_of(blob)))
        measure("read_local + hash, into used memory", lambda: read_local(blob.path, blob.manifest, used))
        measure_http(measure, blob, used)
    finally:
        spool.close()


def measure_http(measure: Measure, blob: StoredBlob, used: ItemSink) -> None:
    """Fetches from a server process of our own."""
    command = [sys.executable, __file__, "--serve", str(blob.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/"

        def fetch(sink: ItemSink) -> None:
            asyncio.run(fetch_http(url, blob.manifest, sink, headers=dict))

        measure("fetch_http + hash, into fresh memory", lambda: fetch(sink_of(blob)))
        measure("fetch_http + hash, into used memory", lambda: fetch(used))
        server.communicate("")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=256, help="size of what is moved")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    size_bytes = options.mib * MIB
    rows = size_bytes // (WIDTH_PX * CHANNELS * torch.float32.itemsize)
    source = torch.rand(1, rows, WIDTH_PX, CHANNELS)
    measure = Measure(source.numel() * source.element_size(), options.rounds)
    memory_root = memory_folder()
    root = memory_root.parent if memory_root else None
    with tempfile.TemporaryDirectory(dir=root) as folder, tempfile.TemporaryDirectory() as disk:
        print(f"{options.mib} MiB, {options.rounds} rounds, GB/s".ljust(LABEL_CHARS), "   min median    max")
        measure_memory(measure, source, Path(folder))
        measure_transport(measure, source, Path(folder), Path(disk))


if __name__ == "__main__":
    main()
