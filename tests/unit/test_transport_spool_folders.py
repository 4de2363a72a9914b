"""The spool's folders: private ones, those of the living and of the dead, where they are and how large they may be."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.spools import MakeSpool, files_in, picture, spools_in
from filelock import FileLock
from flotilla.transport import spool_place
from flotilla.transport.codec import BlobPlan
from flotilla.transport.limits import GIB, MIB
from flotilla.transport.owned_folder import OwnedFolder, make_private_folder
from flotilla.transport.spool_place import default_spool
from flotilla.utils.errors import Conflict, InvalidInput, SpoolFull

posix_only = pytest.mark.skipif(os.name != "posix", reason="modes and links as POSIX has them")


@pytest.fixture
def make_spool(tmp_path: Path) -> Iterator[MakeSpool]:
    with spools_in(tmp_path) as make:
        yield make


@posix_only
def test_files_and_folders_are_private(make_spool: MakeSpool) -> None:
    spool = make_spool()
    blob = spool.write(picture(1))
    assert stat.S_IMODE(blob.path.stat().st_mode) == 0o600
    for folder in spool.folders:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


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
    chunks = BlobPlan.chunks

    def closing(plan: BlobPlan) -> Iterator[memoryview]:
        yield from chunks(plan)
        spool.close()

    monkeypatch.setattr(BlobPlan, "chunks", closing)
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
