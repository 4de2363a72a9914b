"""Blobs with notes outlive their process: the next one of the same home takes them over."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.spools import MakeSpool, files_in, kill, picture, spools_in
from flotilla.transport import salvage
from flotilla.transport import spool as spool_module
from flotilla.transport.limits import MIB
from flotilla.transport.notes import read_notes
from flotilla.transport.spool import KEEP_S, Spool
from flotilla.transport.uses import Adopted
from flotilla.utils.clock import ManualClock
from flotilla.utils.errors import Conflict, NotFound

HOME = "one home"
NOTE = {"kind": "item", "job": "j", "index": 1}


@pytest.fixture
def make_spool(tmp_path: Path) -> Iterator[MakeSpool]:
    with spools_in(tmp_path) as make:
        yield lambda **changed: make(**{"home_id": HOME, **changed})


def noted_files(folder: Path) -> list[str]:
    return [name for name in files_in(folder) if not name.startswith("spool-")]


def names(adopted: list[Adopted]) -> list[Any]:
    return [one.note["job"] for one in adopted]


@pytest.mark.parametrize("end", [Spool.close, kill], ids=["closed", "killed"])
@pytest.mark.parametrize("memory_cap_bytes", [8 * MIB, 0], ids=["memory", "disk"])
def test_the_next_process_of_the_home_takes_noted_blobs_over(
    make_spool: MakeSpool, tmp_path: Path, end: Any, memory_cap_bytes: int
) -> None:
    clock = ManualClock()
    first = make_spool(clock=clock, memory_cap_bytes=memory_cap_bytes)
    kept = first.write(picture(1), note={**NOTE, "job": "firm"})
    clock.advance(1)
    loose = first.write(picture(2), note={**NOTE, "job": "loose"})
    first.loosen(loose.manifest.hash, loose.use)
    plain = first.write(picture(3))
    content = kept.path.read_bytes()
    end(first)
    second = make_spool(clock=clock, memory_cap_bytes=memory_cap_bytes)
    adopted = second.adopt()
    assert [(one.note["job"], one.loose) for one in adopted] == [("firm", False), ("loose", True)]
    assert [one.blob.manifest for one in adopted] == [kept.manifest, loose.manifest]
    assert second.open(kept.manifest.hash).read_bytes() == content
    assert second.open(kept.manifest.hash).parent in second.folders
    with pytest.raises(NotFound):
        second.open(plain.manifest.hash)
    usage = second.usage()
    both_bytes = kept.manifest.size_bytes + loose.manifest.size_bytes
    assert (usage.blobs, usage.memory_bytes + usage.disk_bytes) == (2, both_bytes)
    for one in adopted:
        assert second.release(one.blob.manifest.hash, one.blob.use)
    assert second.adopt() == []
    second.close()
    assert list(tmp_path.iterdir()) == []


def test_a_living_process_of_the_same_home_is_left_alone(make_spool: MakeSpool) -> None:
    living = make_spool()
    blob = living.write(picture(1), note=NOTE)
    other = make_spool()
    assert other.adopt() == []
    assert other.clear_at_start() == 0
    assert living.open(blob.manifest.hash).is_file()


def test_another_home_is_left_alone_while_its_notes_are_fresh(make_spool: MakeSpool, tmp_path: Path) -> None:
    clock = ManualClock()
    make_spool(clock=clock, home_id="another home").write(picture(7))
    one = make_spool(clock=clock, home_id="another home")
    one.write(picture(1), note=NOTE)
    kill(one)
    here = make_spool(clock=clock)
    assert here.adopt() == []
    assert here.clear_at_start() == 1  # its empty folder on disk
    clock.advance(KEEP_S - 1)
    assert here.clear_at_start() == 0
    clock.advance(2)
    assert here.clear_at_start() == 1
    assert not any(name.endswith((".note", f"{one.folders[0].name}.lock")) for name in files_in(tmp_path))


def test_adopting_comes_before_clearing_and_nothing_is_lost_if_not(make_spool: MakeSpool) -> None:
    first = make_spool()
    first.write(picture(1), note=NOTE)
    kill(first)
    second = make_spool()
    assert second.clear_at_start() == 1  # the folder on disk holds nothing
    assert len(second.adopt()) == 1


def test_what_is_older_than_a_day_is_not_taken_over(make_spool: MakeSpool, tmp_path: Path) -> None:
    clock = ManualClock()
    first = make_spool(clock=clock)
    first.write(picture(1), note={**NOTE, "job": "old"})
    clock.advance(KEEP_S)
    first.write(picture(2), note={**NOTE, "job": "new"})
    kill(first)
    clock.advance(1)
    second = make_spool(clock=clock)
    assert names(second.adopt()) == ["new"]
    second.close()
    assert len([name for name in files_in(tmp_path) if name.endswith(".safetensors")]) == 1


def test_a_note_from_the_future_is_worth_nothing(make_spool: MakeSpool) -> None:
    """Somebody had set the clock wrong; else it would lie there for years."""
    wrong = ManualClock(start_s=10 * KEEP_S)
    first = make_spool(clock=wrong)
    first.write(picture(1), note=NOTE)
    kill(first)
    second = make_spool(clock=ManualClock(start_s=0.0))
    assert second.clear_at_start() == 2
    assert second.adopt() == []


def test_looking_at_another_homes_notes_does_not_hide_them_from_it(
    make_spool: MakeSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both start at the same time: the one clears while the other takes over."""
    first = make_spool()
    first.write(picture(1), note=NOTE)
    kill(first)
    second, stranger = make_spool(), make_spool(home_id="another home")
    fresh_notes = salvage.Age.fresh_notes
    adopted = []

    def adopting(self: salvage.Age, folder: Path, limits: Any) -> Any:
        if not adopted and folder == first.folders[0]:
            monkeypatch.setattr(salvage.Age, "fresh_notes", fresh_notes)
            adopted.extend(second.adopt())
        return fresh_notes(self, folder, limits)

    monkeypatch.setattr(salvage.Age, "fresh_notes", adopting)
    stranger.clear_at_start()
    assert len(adopted) == 1
    assert second.holds(adopted[0].blob)


def test_age_goes_on_over_restarts_and_ends_noted_uses(make_spool: MakeSpool) -> None:
    clock = ManualClock()
    first = make_spool(clock=clock)
    first.write(picture(1), note=NOTE)
    plain = first.write(picture(2))
    clock.advance(KEEP_S / 2)
    kill(first)
    clock.advance(KEEP_S / 4)
    second = make_spool(clock=clock)
    [adopted] = second.adopt()
    clock.advance(KEEP_S / 4)
    second.trim(clock.now_s())
    assert second.holds(adopted.blob)
    clock.advance(1)
    second.trim(clock.now_s())
    assert not second.holds(adopted.blob)
    assert noted_files(second.folders[0].parent) == [] or second.usage().recycled_bytes > 0
    assert second.usage().blobs == 0
    assert plain.use == ""


def test_the_same_blob_with_different_notes(make_spool: MakeSpool) -> None:
    first = make_spool()
    one = first.write(picture(1), note={**NOTE, "job": "one"})
    two = first.write(picture(1), note={**NOTE, "job": "two"})
    plain = first.write(picture(1))
    three = first.write(picture(1), note={**NOTE, "job": "three"})
    assert one == two == plain == three
    assert len({one.use, two.use, three.use}) == 3
    assert first.usage().memory_bytes == one.manifest.size_bytes
    assert first.release(two.manifest.hash, two.use)
    assert not first.release(two.manifest.hash, two.use)
    assert first.holds(one)
    assert not first.holds(two)
    kill(first)
    second = make_spool()
    adopted = second.adopt()
    assert sorted(names(adopted)) == ["one", "three"]
    assert second.usage().blobs == 1
    for one_use in adopted:
        assert second.open(one_use.blob.manifest.hash).is_file()
        assert second.release(one_use.blob.manifest.hash, one_use.blob.use)
    assert second.usage().blobs == 0


def change_manifest(data: dict[str, Any]) -> None:
    data["manifest"]["hash"] = "0" * 64


def change_age(data: dict[str, Any]) -> None:
    data["since_s"] = "yesterday"


def change_format(data: dict[str, Any]) -> None:
    data["format"] = 2


@pytest.mark.parametrize("change", [change_manifest, change_age, change_format, None])
def test_notes_that_cannot_be_read_are_no_notes(make_spool: MakeSpool, tmp_path: Path, change: Any) -> None:
    first = make_spool()
    good, bad = first.write(picture(1), note=NOTE), first.write(picture(2), note=NOTE)
    kill(first)
    [path] = tmp_path.rglob(f"{bad.manifest.hash}.*.note")
    if change is None:
        path.write_bytes(b"")
    else:
        data = json.loads(path.read_bytes())
        change(data)
        path.write_text(json.dumps(data), encoding="utf-8")
    second = make_spool()
    assert [one.blob.manifest.hash for one in second.adopt()] == [good.manifest.hash]
    assert not list(tmp_path.rglob(f"{bad.manifest.hash}*"))


def test_a_blob_that_is_gone_or_cut_short_is_not_taken_over(make_spool: MakeSpool, tmp_path: Path) -> None:
    first = make_spool()
    gone, cut, whole = (first.write(picture(seed), note=NOTE) for seed in (1, 2, 3))
    kill(first)
    gone.path.unlink()
    with cut.path.open("r+b") as file:
        file.truncate(100)
    second = make_spool()
    assert [one.blob.manifest.hash for one in second.adopt()] == [whole.manifest.hash]
    assert second.usage().memory_bytes == whole.manifest.size_bytes
    assert len(noted_files(tmp_path)) == 2


def test_a_process_that_died_while_it_took_over(make_spool: MakeSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has moved the blob and not yet the note."""
    first = make_spool()
    blobs = [first.write(picture(seed), note={**NOTE, "job": seed}) for seed in (1, 2)]
    kill(first)
    second = make_spool()
    write_note = spool_module.write_note

    def dying(*_args: Any, **_more: Any) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(spool_module, "write_note", dying)
    with pytest.raises(KeyboardInterrupt):
        second.adopt()
    monkeypatch.setattr(spool_module, "write_note", write_note)
    kill(second)
    third = make_spool()
    assert sorted(names(third.adopt())) == [1, 2]
    assert all(third.open(blob.manifest.hash).is_file() for blob in blobs)


def test_a_result_that_was_made_anew_before_the_old_one_was_taken_over(make_spool: MakeSpool) -> None:
    first = make_spool()
    first.write(picture(1), note={**NOTE, "job": "old"})
    kill(first)
    second = make_spool()
    new = second.write(picture(1), note={**NOTE, "job": "new"})
    assert names(second.adopt()) == ["old"]
    assert second.usage().memory_bytes == new.manifest.size_bytes
    kill(second)
    assert sorted(names(make_spool().adopt())) == ["new", "old"]


def test_closing_while_results_are_taken_over_loses_none(
    make_spool: MakeSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_spool()
    for seed in (1, 2, 3):
        first.write(picture(seed), note={**NOTE, "job": seed})
    kill(first)
    second = make_spool()
    put_note = Spool._put_note

    def closing(self: Spool, *args: Any, **more: Any) -> None:
        put_note(self, *args, **more)
        self.close()

    monkeypatch.setattr(Spool, "_put_note", closing)
    with pytest.raises(Conflict):
        second.adopt()
    monkeypatch.setattr(Spool, "_put_note", put_note)
    assert sorted(names(make_spool().adopt())) == [1, 2, 3]


def test_a_file_that_cannot_be_renamed_goes_with_the_folder(
    make_spool: MakeSpool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows renames and removes no file that somebody reads."""
    spool = make_spool()
    read, kept = spool.write(picture(1), note=NOTE), spool.write(picture(2), note={**NOTE, "job": "kept"})
    replace, unlink = Path.replace, Path.unlink

    def replacing(self: Path, target: Path) -> Path:
        if self == read.path:
            raise PermissionError(13, "in use")
        return replace(self, target)

    def unlinking(self: Path, missing_ok: bool = False) -> None:
        if self == read.path:
            raise PermissionError(13, "in use")
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "replace", replacing)
    monkeypatch.setattr(Path, "unlink", unlinking)
    assert spool.release(read.manifest.hash, read.use)
    assert not spool.holds(read)
    assert spool.usage().memory_bytes == kept.manifest.size_bytes
    spool.close()
    monkeypatch.undo()
    assert read.path.exists()
    later = make_spool()
    assert names(later.adopt()) == ["kept"]
    assert not list(tmp_path.rglob(read.path.name))


SCRIPT = """
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
caps = {"memory_cap_bytes": 1 << 20, "disk_cap_bytes": 1 << 20, "recycle_cap_bytes": 0}
spool = Spool(root / "memory", root / "disk", home_id="one home", **caps)
spool.write({"x": Value(IMAGE, torch.zeros(1, 8, 8, 3))}, note={"job": "whole"})
store.Store.commit = lambda *args: os.kill(os.getpid(), 9)
spool.write({"x": Value(IMAGE, torch.ones(1, 8, 8, 3))}, note={"job": "half"})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_a_process_that_was_really_killed(make_spool: MakeSpool, tmp_path: Path) -> None:
    tests = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path), str(tests)], check=False, timeout=120)
    assert done.returncode == -9
    assert any(name.startswith("draft-") for name in files_in(tmp_path))
    spool = make_spool(clock=None)
    assert names(spool.adopt()) == ["whole"]
    assert spool.clear_at_start() == 0
    assert not any(name.startswith("draft-") for name in files_in(tmp_path))
    assert len(read_notes(spool.folders[0])) == 1
