"""Blobs with notes: told apart by use, and given up when room is short or by age."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.spools import MakeSpool, files_in, picture, spools_in
from flotilla.transport import spool as spool_module
from flotilla.transport import store as store_module
from flotilla.transport.limits import MIB
from flotilla.transport.spool import KEEP_S
from flotilla.utils.clock import ManualClock
from flotilla.utils.errors import Conflict, InvalidInput, SpoolFull

HOME = "one home"
NOTE = {"kind": "item", "job": "j", "index": 1}


@pytest.fixture
def make_spool(tmp_path: Path) -> Iterator[MakeSpool]:
    with spools_in(tmp_path) as make:
        yield lambda **changed: make(**{"home_id": HOME, **changed})


def noted_files(folder: Path) -> list[str]:
    return [name for name in files_in(folder) if not name.startswith("spool-")]


def test_closing_keeps_only_what_has_a_note(make_spool: MakeSpool, tmp_path: Path) -> None:
    spool = make_spool()
    noted = spool.write(picture(1), note=NOTE)
    spool.write(picture(2))
    spool.release(spool.write(picture(3)).manifest.hash)  # a segment
    (spool.folders[0] / "nonce-1").write_bytes(b"x")
    spool.close()
    spool.close()
    blob_hash = noted.manifest.hash
    assert noted_files(tmp_path) == [f"{blob_hash}.{noted.use}.note", f"{blob_hash}.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["memory"]


def test_blobs_without_a_note_do_not_age(make_spool: MakeSpool) -> None:
    clock = ManualClock()
    spool = make_spool(clock=clock)
    blob = spool.write(picture(1))
    clock.advance(2 * KEEP_S)
    spool.trim(clock.now_s())
    assert spool.holds(blob)


def test_the_time_to_keep_may_be_changed(make_spool: MakeSpool) -> None:
    clock = ManualClock()
    spool = make_spool(clock=clock)
    blob = spool.write(picture(1), note=NOTE)
    spool.keep_s = 10.0
    clock.advance(11)
    spool.trim(clock.now_s())
    assert not spool.holds(blob)


def test_a_release_without_a_use_takes_a_plain_one_first_then_the_oldest(make_spool: MakeSpool) -> None:
    spool = make_spool()
    one = spool.write(picture(1), note={**NOTE, "job": "one"})
    two = spool.write(picture(1), note={**NOTE, "job": "two"})
    plain = spool.write(picture(1))
    held = {"plain": plain, "one": one, "two": two}
    for gone in ("plain", "one", "two"):
        assert spool.release(one.manifest.hash)
        del held[gone]
        for blob in held.values():
            assert spool.holds(blob)
        assert spool.usage().blobs == (1 if held else 0)
    assert not spool.release(one.manifest.hash)
    assert not spool.loosen(one.manifest.hash)
    assert noted_files(spool.folders[0]) == [] or all(
        name.startswith("segment-") for name in noted_files(spool.folders[0])
    )


@pytest.mark.parametrize("memory_root", ["memory", None])
def test_loose_blobs_make_room_oldest_first_and_never_firm_ones(
    make_spool: MakeSpool, tmp_path: Path, memory_root: str | None
) -> None:
    spool = make_spool(
        memory_root=tmp_path / memory_root if memory_root else None,
        memory_cap_bytes=4 * MIB + 65536,
        disk_cap_bytes=4 * MIB + 65536 if not memory_root else 0,
        recycle_cap_bytes=2 * MIB,
    )
    firm, old, older_but_firm, new = (spool.write(picture(seed), note={**NOTE, "job": seed}) for seed in range(4))
    for blob in (new, old):  # which was called loose first does not matter
        assert spool.loosen(blob.manifest.hash, blob.use)
    first = spool.write(picture(5), note={**NOTE, "job": 5})
    assert [spool.holds(blob) for blob in (firm, old, older_but_firm, new)] == [True, False, True, True]
    assert not old.path.exists()
    spool.write(picture(6), note={**NOTE, "job": 6})
    assert [spool.holds(blob) for blob in (firm, older_but_firm, new, first)] == [True, True, False, True]
    with pytest.raises(SpoolFull):
        spool.write(picture(7), note=NOTE)
    assert spool.usage().blobs == 4
    assert len([name for name in noted_files(tmp_path) if name.endswith((".note", ".loose"))]) == 4
    assert sum(name.endswith(".safetensors") for name in files_in(tmp_path)) == 4


def test_nothing_is_given_up_for_a_blob_that_would_not_fit_even_then(make_spool: MakeSpool) -> None:
    spool = make_spool(memory_root=None, disk_cap_bytes=3 * MIB + 65536)
    loose = [spool.write(picture(seed), note=NOTE) for seed in (1, 2)]
    firm = spool.write(picture(3), note=NOTE)
    for blob in loose:
        spool.loosen(blob.manifest.hash, blob.use)
    with pytest.raises(SpoolFull):
        spool.write(picture(4, 3 * MIB))
    assert all(spool.holds(blob) for blob in [*loose, firm])
    spool.write(picture(4, 2 * MIB))
    assert [spool.holds(blob) for blob in loose] == [False, False]


def test_a_blob_that_one_use_still_needs_is_not_given_up(make_spool: MakeSpool) -> None:
    spool = make_spool(memory_root=None, disk_cap_bytes=2 * MIB + 65536)
    loose, firm = spool.write(picture(1), note=NOTE), spool.write(picture(1), note=NOTE)
    spool.loosen(loose.manifest.hash, loose.use)
    with pytest.raises(SpoolFull):
        spool.write(picture(2, 2 * MIB))
    spool.release(firm.manifest.hash, firm.use)
    spool.write(picture(2, 2 * MIB))
    assert not spool.holds(loose)


def test_disk_is_used_before_anything_is_given_up(make_spool: MakeSpool) -> None:
    spool = make_spool(memory_cap_bytes=MIB + 65536)
    loose = spool.write(picture(1), note=NOTE)
    spool.loosen(loose.manifest.hash, loose.use)
    assert spool.write(picture(2)).path.parent == spool.folders[1]
    assert spool.holds(loose)


def test_room_on_the_file_system_counts_as_well(make_spool: MakeSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = make_spool(memory_root=None)
    loose = spool.write(picture(1), note=NOTE)
    spool.loosen(loose.manifest.hash, loose.use)

    class Free:
        @property
        def free(self) -> int:
            return 0 if loose.path.exists() else 2 * MIB

    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda path: Free())
    spool.write(picture(2))
    assert not spool.holds(loose)


def test_threads_that_fight_for_room(make_spool: MakeSpool) -> None:
    """Each result is written or refused; the books fit what lies on disk."""
    spool = make_spool(memory_cap_bytes=2 * MIB, disk_cap_bytes=MIB, recycle_cap_bytes=MIB)
    barrier = threading.Barrier(4)
    faults: list[BaseException] = []
    written = [0] * 4

    def work(number: int) -> None:
        try:
            barrier.wait(10)
            for step in range(12):
                try:
                    blob = spool.write(picture(100 * number + step, MIB // 3), note=NOTE)
                except SpoolFull:
                    continue
                written[number] += 1
                spool.loosen(blob.manifest.hash, blob.use)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    assert all(written)
    usage = spool.usage()
    sizes = [blob.path.stat().st_size for blob in spool.held()]
    assert usage.memory_bytes + usage.disk_bytes == sum(sizes)
    assert usage.memory_bytes <= usage.memory_cap_bytes
    assert usage.disk_bytes <= usage.disk_cap_bytes


@pytest.mark.parametrize("note", [{"x": object()}, {"x": float("nan")}])
def test_a_note_that_is_no_json_is_refused_before_anything_is_written(
    make_spool: MakeSpool, note: dict[str, Any]
) -> None:
    spool = make_spool()
    with pytest.raises(InvalidInput):
        spool.write(picture(1), note=note)
    assert noted_files(spool.folders[0]) == []


def test_a_note_that_cannot_be_written_costs_no_result(
    make_spool: MakeSpool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_args: Any, **_more: Any) -> Path:
        raise OSError("no inodes left")

    monkeypatch.setattr(spool_module, "write_note", failing)
    spool = make_spool()
    blob = spool.write(picture(1), note=NOTE)
    assert spool.holds(blob)
    assert spool.loosen(blob.manifest.hash, blob.use)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_closing_between_blob_and_note(make_spool: MakeSpool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = make_spool()
    write_note = spool_module.write_note

    def closing(*args: Any, **more: Any) -> Path:
        path = write_note(*args, **more)
        spool.close()
        return path

    monkeypatch.setattr(spool_module, "write_note", closing)
    with pytest.raises(Conflict, match="closed"):
        spool.write(picture(1), note=NOTE)
    assert noted_files(tmp_path) == []
