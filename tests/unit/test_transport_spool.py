"""The spool: whole files or none, caps, recycled memory, folders of the living and of the dead."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from blake3 import blake3
from filelock import FileLock
from flotilla.transport import spool as spool_module
from flotilla.transport import spool_place, store
from flotilla.transport.limits import GIB, MIB
from flotilla.transport.owned_folder import OwnedFolder, make_private_folder
from flotilla.transport.spool import RECYCLE_IDLE_S, Spool
from flotilla.transport.spool_place import default_spool
from flotilla.transport.values import IMAGE, JSON, Value
from flotilla.utils.clock import ManualClock
from flotilla.utils.errors import Conflict, InvalidInput, NotFound, SpoolFull

posix_only = pytest.mark.skipif(os.name != "posix", reason="modes and links as POSIX has them")
MakeSpool = Callable[..., Spool]


@pytest.fixture
def make_spool(tmp_path: Path) -> Iterator[MakeSpool]:
    made: list[Spool] = []

    def make(**changed: Any) -> Spool:
        settings: dict[str, Any] = {
            "memory_cap_bytes": 8 * MIB,
            "disk_cap_bytes": 8 * MIB,
            "recycle_cap_bytes": 4 * MIB,
            "clock": ManualClock(),
        }
        settings.update(changed)
        memory_root = settings.pop("memory_root", tmp_path / "memory")
        made.append(Spool(memory_root, settings.pop("disk_root", tmp_path / "disk"), **settings))
        return made[-1]

    yield make
    for spool in made:
        spool.close()


def picture(seed: int, size_bytes: int = MIB) -> dict[str, Value]:
    numbers = torch.randint(0, 256, (1, size_bytes, 1, 1), generator=torch.Generator().manual_seed(seed))
    return {"images": Value(IMAGE, numbers.to(torch.uint8))}


def files_in(*folders: Path) -> list[str]:
    return sorted(path.name for folder in folders for path in folder.rglob("*") if path.is_file())


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


@posix_only
def test_files_and_folders_are_private(make_spool: MakeSpool) -> None:
    spool = make_spool()
    blob = spool.write(picture(1))
    assert stat.S_IMODE(blob.path.stat().st_mode) == 0o600
    for folder in spool.folders:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


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
    fill = spool_module._fill

    def failing(draft: store.Draft, plan: Any) -> str:
        if draft.path.is_relative_to(spool.folders[0]):
            draft.path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return fill(draft, plan)

    monkeypatch.setattr(spool_module, "_fill", failing)
    blob = spool.write(picture(1))
    assert blob.path.parent == spool.folders[1]
    assert files_in(*spool.folders) == [blob.path.name]
    assert spool.usage().memory_bytes == 0


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), OSError(errno.EIO, "bad disk")])
def test_nothing_half_written_stays(
    make_spool: MakeSpool, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    spool = make_spool()

    def failing(draft: store.Draft, plan: Any) -> str:
        draft.path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(spool_module, "_fill", failing)
    with pytest.raises(type(error)):
        spool.write(picture(1))
    assert files_in(*spool.folders) == []
    assert spool.usage().memory_bytes == spool.usage().disk_bytes == 0


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


def test_no_memory_folder_is_no_error(make_spool: MakeSpool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    spool = make_spool(memory_root=tmp_path / "file")
    assert len(spool.folders) == 1
    assert spool.write(picture(1)).path.parent == spool.folders[0]


def test_closing_removes_everything_and_twice_is_fine(make_spool: MakeSpool, tmp_path: Path) -> None:
    spool = make_spool()
    spool.write(picture(1))
    spool.close()
    spool.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Conflict, match="closed"):
        spool.write(picture(1))


def test_closing_while_a_result_is_written(make_spool: MakeSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = make_spool()
    fill = spool_module._fill

    def closing(draft: store.Draft, plan: Any) -> str:
        blob_hash = fill(draft, plan)
        spool.close()
        return blob_hash

    monkeypatch.setattr(spool_module, "_fill", closing)
    with pytest.raises(Conflict, match="closed while"):
        spool.write(picture(1))
    assert spool.held() == []


def test_the_living_are_left_alone_and_the_dead_are_cleared(make_spool: MakeSpool, tmp_path: Path) -> None:
    living = make_spool()
    blob = living.write(picture(1))
    for root in (tmp_path / "memory", tmp_path / "disk"):
        dead = root / "spool-1-dead"
        dead.mkdir()
        (dead / "draft-1").write_bytes(b"half")
        (root / "spool-1-dead.lock").touch()
        (root / "not-ours").mkdir()
    other = make_spool()
    assert other.clear_at_start() == 2
    assert other.clear_at_start() == 0
    assert living.open(blob.manifest.hash).is_file()
    assert (tmp_path / "disk" / "not-ours").is_dir()
    assert not (tmp_path / "disk" / "spool-1-dead").exists()
    assert not (tmp_path / "disk" / "spool-1-dead.lock").exists()


@posix_only
def test_a_link_that_looks_like_a_dead_folder_loses_only_itself(make_spool: MakeSpool, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    spool = make_spool()
    (tmp_path / "disk" / "spool-2-link").symlink_to(precious)
    (tmp_path / "disk" / "spool-2-link.lock").touch()
    assert spool.clear_at_start() == 1
    assert (precious / "file").exists()


def test_a_process_that_was_killed_between_draft_and_name(make_spool: MakeSpool, tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
from loader import load_package
load_package()
import torch
from flotilla.transport import store
from flotilla.transport.spool import Spool
from flotilla.transport.values import IMAGE, Value
root = Path(sys.argv[1])
store.Store.commit = lambda *args: os._exit(9)
spool = Spool(root / "memory", root / "disk", memory_cap_bytes=1 << 20, disk_cap_bytes=1 << 20, recycle_cap_bytes=0)
spool.write({"x": Value(IMAGE, torch.rand(1, 8, 8, 3))})
"""
    tests = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), str(tests)], check=False, timeout=120)
    assert done.returncode == 9
    left = files_in(tmp_path)
    assert any(name.startswith("draft-") for name in left)
    assert not any(name.endswith(".safetensors") for name in left)
    spool = make_spool()
    assert spool.clear_at_start() == 2
    assert not any(name.startswith("draft-") for name in files_in(tmp_path))


def test_a_lock_taken_away_between_making_and_locking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire = FileLock.acquire
    calls = []

    def stolen_once(self: FileLock, *args: Any, **kwargs: Any) -> Any:
        got = acquire(self, *args, **kwargs)
        calls.append(self.lock_file)
        if len(calls) == 1:
            Path(self.lock_file).unlink()
        return got

    monkeypatch.setattr(FileLock, "acquire", stolen_once)
    folder = OwnedFolder(tmp_path)
    assert len(calls) == 2
    assert folder.path.is_dir()
    assert files_in(tmp_path) == [f"{folder.path.name}.lock"]
    folder.close()
    assert files_in(tmp_path) == []


@posix_only
def test_a_root_that_the_last_owner_removes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    acquire = FileLock.acquire
    calls = []

    def late(self: FileLock, *args: Any, **kwargs: Any) -> Any:
        calls.append(self.lock_file)
        if len(calls) == 1:
            root.rmdir()
        return acquire(self, *args, **kwargs)

    monkeypatch.setattr(FileLock, "acquire", late)
    folder = OwnedFolder(root)
    assert folder.path.is_dir()
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    folder.close()
    assert not root.exists()


@posix_only
def test_a_root_that_is_a_link_or_another_users_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(NotADirectoryError):
        make_private_folder(tmp_path / "link")
    monkeypatch.setattr(os, "geteuid", lambda: 12345678)
    with pytest.raises(PermissionError):
        make_private_folder(tmp_path / "real")


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


def test_default_place_and_caps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_place, "memory_folder", lambda: tmp_path / "shm")
    monkeypatch.setattr(spool_place, "total_ram_bytes", lambda: GIB)
    spool = default_spool("one", tmp_path / "temp", environ={})
    usage = spool.usage()
    assert usage.memory_cap_bytes == GIB // 4
    assert spool.folders[0].is_relative_to(tmp_path / "shm")
    assert spool.folders[1].is_relative_to(tmp_path / "temp")
    spool.close()


def test_environment_moves_and_caps_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_place, "memory_folder", lambda: None)
    environ = {"FLOTILLA_SPOOL_DIR": str(tmp_path / "big disk"), "FLOTILLA_SPOOL_CAP_BYTES": "4096"}
    spool = default_spool("one", tmp_path / "temp", environ=environ)
    assert spool.folders[0].is_relative_to(tmp_path / "big disk")
    assert spool.usage().disk_cap_bytes == 4096
    with pytest.raises(SpoolFull):
        spool.write(picture(1))
    spool.close()
    with pytest.raises(InvalidInput, match="FLOTILLA_SPOOL_CAP_BYTES"):
        default_spool("one", tmp_path / "temp", environ={"FLOTILLA_SPOOL_CAP_BYTES": "4 GB"})


def test_a_small_memory_file_system_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_place, "memory_folder", lambda: tmp_path / "shm")
    monkeypatch.setattr(spool_place, "total_ram_bytes", lambda: MIB)
    spool = default_spool("one", tmp_path / "temp", environ={})
    assert len(spool.folders) == 1
    spool.close()


def test_ram_is_what_the_container_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(spool_place, "_CGROUP_LIMITS", (limit, tmp_path / "missing"))
    limit.write_text("1048576\n")
    assert spool_place.total_ram_bytes() == MIB
    limit.write_text("max\n")
    assert spool_place.total_ram_bytes() > MIB
