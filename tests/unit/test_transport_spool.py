"""The spool's blobs: whole files or none, caps, recycled memory, many threads."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from blake3 import blake3
from fakes.spools import MakeSpool, files_in, picture, spools_in
from flotilla.transport import store
from flotilla.transport.codec import BlobPlan
from flotilla.transport.limits import MIB
from flotilla.transport.spool import RECYCLE_IDLE_S
from flotilla.transport.values import JSON, Value
from flotilla.utils.clock import ManualClock
from flotilla.utils.errors import InvalidInput, NotFound, SpoolFull


@pytest.fixture
def make_spool(tmp_path: Path) -> Iterator[MakeSpool]:
    with spools_in(tmp_path) as make:
        yield make


def test_a_blob_is_named_by_the_hash_of_its_file(make_spool: MakeSpool) -> None:
    spool = make_spool()
    blob = spool.write(picture(1))
    data = blob.path.read_bytes()
    assert blob.path.name == f"{blob.manifest.hash}.safetensors"
    assert blake3(data).hexdigest() == blob.manifest.hash
    assert len(data) == blob.manifest.size_bytes
    assert spool.open(blob.manifest.hash) == blob.path
    assert spool.held() == [blob]
    assert blob.path.parent == spool.folders[0]


def test_the_same_content_is_one_file_with_two_uses(make_spool: MakeSpool) -> None:
    spool = make_spool()
    one, two = spool.write(picture(1)), spool.write(picture(1))
    assert one == two
    assert spool.usage().memory_bytes == one.manifest.size_bytes
    assert spool.release(one.manifest.hash)
    assert spool.open(one.manifest.hash).is_file()
    assert spool.release(one.manifest.hash)
    assert not one.path.exists()
    assert not spool.release(one.manifest.hash)


def test_unknown_hashes(make_spool: MakeSpool) -> None:
    spool = make_spool()
    for name in ("0" * 64, "../../etc/passwd", ""):
        with pytest.raises(NotFound):
            spool.open(name)
        assert not spool.release(name)


def test_what_does_not_fit_in_memory_goes_to_disk(make_spool: MakeSpool) -> None:
    spool = make_spool(memory_cap_bytes=MIB + 4096)
    first, second = spool.write(picture(1)), spool.write(picture(2))
    assert [blob.path.parent for blob in (first, second)] == list(spool.folders)
    usage = spool.usage()
    assert (usage.memory_bytes, usage.disk_bytes) == (first.manifest.size_bytes, second.manifest.size_bytes)


def test_a_full_spool_says_how_full_and_what_to_do(make_spool: MakeSpool) -> None:
    spool = make_spool(memory_cap_bytes=MIB + 4096, disk_cap_bytes=MIB + 4096)
    held = [spool.write(picture(seed)) for seed in (1, 2)]
    with pytest.raises(SpoolFull, match=f"of {MIB + 4096} bytes") as caught:
        spool.write(picture(3))
    assert "FLOTILLA_SPOOL_CAP_BYTES" in caught.value.cure
    assert caught.value.details["held_blobs"] == 2
    assert len(files_in(*spool.folders)) == 2
    spool.release(held[0].manifest.hash)
    spool.write(picture(3))


def test_a_file_system_without_room_is_seen_before_writing(
    make_spool: MakeSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = make_spool()
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(SpoolFull, match="1000 bytes free"):
        spool.write(picture(1))
    assert spool.usage().memory_bytes == spool.usage().disk_bytes == 0


def test_memory_that_runs_full_while_writing_falls_back_to_disk(
    make_spool: MakeSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = make_spool()
    break_off(monkeypatch, OSError(errno.ENOSPC, "No space left on device"), times=1)
    blob = spool.write(picture(1))
    assert blob.path.parent == spool.folders[1]
    assert files_in(*spool.folders) == [blob.path.name]
    assert spool.usage().memory_bytes == 0


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), OSError(errno.EIO, "bad disk")])
def test_nothing_half_written_stays(
    make_spool: MakeSpool, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    spool = make_spool()
    break_off(monkeypatch, error)
    with pytest.raises(type(error)):
        spool.write(picture(1))
    assert files_in(*spool.folders) == []
    assert spool.usage().memory_bytes == spool.usage().disk_bytes == 0


def break_off(monkeypatch: pytest.MonkeyPatch, error: BaseException, times: int = 1_000) -> None:
    """The next ``times`` blobs fail after their first piece was written."""
    chunks = BlobPlan.chunks
    left = [times]

    def failing(plan: BlobPlan) -> Iterator[memoryview]:
        pieces = chunks(plan)
        yield next(pieces)
        if left[0] > 0:
            left[0] -= 1
            raise error
        yield from pieces

    monkeypatch.setattr(BlobPlan, "chunks", failing)


def test_what_cannot_travel_leaves_nothing(make_spool: MakeSpool) -> None:
    spool = make_spool()
    with pytest.raises(InvalidInput):
        spool.write({"x": Value(JSON, object())})
    assert files_in(*spool.folders) == []


def test_released_memory_is_recycled_and_shows_no_old_bytes(make_spool: MakeSpool) -> None:
    spool = make_spool()
    first = spool.write(picture(1, 2 * MIB))
    inode = first.path.stat().st_ino
    spool.release(first.manifest.hash)
    usage = spool.usage()
    assert (usage.memory_bytes, usage.recycled_bytes) == (0, first.manifest.size_bytes)
    assert not any(name.endswith(".safetensors") for name in files_in(*spool.folders))
    second = spool.write(picture(2, MIB))  # smaller than what it overwrites
    assert second.path.stat().st_ino == inode
    assert blake3(second.path.read_bytes()).hexdigest() == second.manifest.hash
    assert spool.usage().memory_bytes == second.manifest.size_bytes
    assert spool.usage().recycled_bytes == 0


def test_the_segment_that_wastes_least_is_taken(make_spool: MakeSpool) -> None:
    spool = make_spool()
    sizes = (3 * MIB, MIB, 2 * MIB)
    blobs = [spool.write(picture(seed, size)) for seed, size in enumerate(sizes)]
    inodes = {size: blob.path.stat().st_ino for size, blob in zip(sizes, blobs, strict=True)}
    spool.release(blobs[1].manifest.hash)
    spool.release(blobs[2].manifest.hash)
    assert spool.write(picture(9, MIB + MIB // 2)).path.stat().st_ino == inodes[2 * MIB]


def test_recycled_memory_is_capped_and_gives_way(make_spool: MakeSpool) -> None:
    spool = make_spool(memory_cap_bytes=7 * MIB, recycle_cap_bytes=5 * MIB)
    blobs = [spool.write(picture(seed, 2 * MIB)) for seed in (1, 2, 3)]
    for blob in blobs:
        spool.release(blob.manifest.hash)
    assert spool.usage().recycled_bytes == 2 * blobs[0].manifest.size_bytes  # three would be over the cap
    large = spool.write(picture(4, 6 * MIB))  # grows one of them, the other must go
    assert large.path.parent == spool.folders[0]
    assert spool.usage().recycled_bytes == 0
    assert files_in(spool.folders[0]) == [large.path.name]


def test_a_segment_too_large_for_the_cap_is_dropped_not_used(make_spool: MakeSpool) -> None:
    spool = make_spool(memory_cap_bytes=4 * MIB, recycle_cap_bytes=4 * MIB)
    large = spool.write(picture(1, 3 * MIB))
    spool.release(large.manifest.hash)
    kept = [spool.write(picture(2, MIB)), spool.write(picture(3, MIB)), spool.write(picture(4, MIB))]
    assert all(blob.path.parent == spool.folders[0] for blob in kept)
    usage = spool.usage()
    assert usage.memory_bytes + usage.recycled_bytes <= usage.memory_cap_bytes


def test_idle_memory_goes_back_to_the_system(make_spool: MakeSpool) -> None:
    clock = ManualClock()
    spool = make_spool(clock=clock)
    blob = spool.write(picture(1))
    spool.release(blob.manifest.hash)
    clock.advance(RECYCLE_IDLE_S - 1)
    assert spool.trim(clock.now_s()) == 0
    clock.advance(2)
    assert spool.trim(clock.now_s()) == blob.manifest.size_bytes
    assert files_in(*spool.folders) == []
    assert spool.usage().recycled_bytes == 0


def test_disk_is_never_recycled(make_spool: MakeSpool) -> None:
    spool = make_spool(memory_root=None)
    blob = spool.write(picture(1))
    spool.release(blob.manifest.hash)
    assert files_in(*spool.folders) == []


def test_many_threads_write_the_same_and_different_things(make_spool: MakeSpool) -> None:
    spool = make_spool(memory_cap_bytes=64 * MIB, recycle_cap_bytes=64 * MIB)
    barrier = threading.Barrier(4)
    faults: list[BaseException] = []

    def work(offset: int) -> None:
        try:
            barrier.wait(10)
            for step in range(6):
                blob = spool.write(picture((offset + step) % 3, MIB // 4))
                assert blake3(spool.open(blob.manifest.hash).read_bytes()).hexdigest() == blob.manifest.hash
                assert spool.release(blob.manifest.hash)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    usage = spool.usage()
    assert (usage.blobs, usage.memory_bytes, usage.disk_bytes) == (0, 0, 0)
