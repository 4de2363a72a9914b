"""Atomic writes: the old content or the new one, and never a piece of either."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from flotilla.utils.files import PRIVATE_FILE_MODE, write_atomic, write_json_atomic


class DiskBroke(OSError):
    """What a test's broken disk raises."""


def names_in(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_a_file_is_made_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "settings.bin"
    write_atomic(path, b"\x00new")
    assert path.read_bytes() == b"\x00new"
    assert names_in(path.parent) == ["settings.bin"]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "settings.bin"
    write_atomic(path, b"a longer old content")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert names_in(tmp_path) == ["settings.bin"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such file modes")
@pytest.mark.parametrize("mode", [PRIVATE_FILE_MODE, 0o640])
def test_the_mode_is_the_one_asked_for(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    write_atomic(path, b"secret", mode=mode)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such file modes")
def test_files_are_private_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"was open to all")
    path.chmod(0o666)
    write_atomic(path, b"secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(("owner", "broken"), [(os, "fsync"), (Path, "replace")], ids=["fsync", "replace"])
def test_a_failure_in_the_middle_leaves_the_old_content_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, broken: str
) -> None:
    path = tmp_path / "settings.json"
    write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise DiskBroke("no space left")

    monkeypatch.setattr(owner, broken, fail)
    with pytest.raises(DiskBroke):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["settings.json"]


def test_the_new_content_is_on_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(fd: int) -> None:
        order.append("fsync")
        real_fsync(fd)

    def replace(source: Path, target: Path) -> Path:
        order.append("replace")
        assert source.read_bytes() == b"new"
        assert source.parent == target.parent
        return real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_atomic(tmp_path / "settings.json", b"new")
    assert order == ["fsync", "replace"]


def test_an_interrupt_leaves_no_draft_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "settings.json", b"new")
    assert names_in(tmp_path) == []


def test_json_is_readable_by_people_and_machines(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    value = {"name": "Büro ✓", "workers": [{"id": "w1", "enabled": True}]}
    write_json_atomic(path, value)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert "Büro ✓" in text
    assert text.endswith("}\n")
    assert '\n  "name"' in text


def test_what_is_no_json_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    write_json_atomic(path, {"n": 1})
    with pytest.raises(TypeError):
        write_json_atomic(path, {"n": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"n": 1}
    assert names_in(tmp_path) == ["settings.json"]
