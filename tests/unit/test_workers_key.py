"""The fleet key: where it comes from, one for all starts, and never shown."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import stat
import threading
from pathlib import Path

import pytest
from flotilla.utils.errors import InvalidInput
from flotilla.workers import key as key_module
from flotilla.workers.key import KEY_FILE, FleetKey, load_or_create

SECRET = "correct-horse-battery-staple-and-more"
ENV = "FLOTILLA_FLEET_KEY"


def test_the_environment_wins(tmp_path: Path) -> None:
    key = load_or_create(tmp_path, {ENV: f" {SECRET}\n"})
    assert key is not None
    assert key.reveal() == SECRET
    assert not (tmp_path / KEY_FILE).exists()


def test_an_empty_variable_means_no_key(tmp_path: Path) -> None:
    assert load_or_create(tmp_path, {ENV: ""}) is None
    assert not (tmp_path / KEY_FILE).exists()


@pytest.mark.parametrize("short", ["x" * 31, "   ", "x" * 31 + " " * 10, "\n" + "x" * 20, "x" * 40 + "\x00y"])
def test_a_weak_key_is_refused_and_not_repeated(tmp_path: Path, short: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_or_create(tmp_path, {ENV: short})
    assert short.strip() == "" or short not in str(caught.value)
    assert caught.value.cure


def test_the_first_start_makes_a_private_file(tmp_path: Path) -> None:
    folder = tmp_path / "user"
    first = load_or_create(folder, {})
    assert first is not None
    assert len(first.reveal()) >= 43
    assert load_or_create(folder, {}) == first
    assert [path.name for path in folder.iterdir()] == [KEY_FILE]
    if os.name == "posix":
        assert stat.S_IMODE((folder / KEY_FILE).stat().st_mode) == 0o600


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_key_that_others_could_read_is_locked(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    path.write_text(SECRET)
    path.chmod(0o644)
    load_or_create(tmp_path, {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("hard_links", [True, False])
def test_starts_at_once_get_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool) -> None:
    if not hard_links:

        def no_links(source: object, target: object) -> None:
            raise OSError(95, "not supported")

        monkeypatch.setattr(key_module.os, "link", no_links)
    start = threading.Barrier(8)
    keys: list[FleetKey | None] = []

    def begin() -> None:
        start.wait()
        keys.append(load_or_create(tmp_path, {}))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len({key.reveal() for key in keys if key is not None}) == 1
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


@pytest.mark.parametrize("damage", [b"", b"short", b"\xff" * 50, b"x" * 40 + b"\x00" + b"y" * 10, b"x" * 5000])
def test_a_damaged_file_is_an_error_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes) -> None:
    monkeypatch.setattr(key_module.time, "sleep", lambda seconds: None)
    path = tmp_path / KEY_FILE
    path.write_bytes(damage)
    with pytest.raises(InvalidInput) as caught:
        load_or_create(tmp_path, {})
    assert KEY_FILE in caught.value.message
    assert path.read_bytes() == damage


def test_the_key_does_not_show(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = load_or_create(tmp_path, {})
    assert key is not None
    shown = f"{key} {key!r} {[key]} {key.fingerprint} {caplog.text}"
    assert key.reveal() not in shown
    assert len(key.fingerprint) == 8
    assert key.fingerprint != FleetKey(b"x" * 40).fingerprint
    for leak in (pickle.dumps, copy.deepcopy, vars):
        with pytest.raises(TypeError):
            leak(key)


def test_labels_keep_macs_apart() -> None:
    key = FleetKey(SECRET.encode())
    assert len({key.mac("a", b"x"), key.mac("b", b"x"), key.mac("a", b"y"), FleetKey(b"o" * 40).mac("a", b"x")}) == 4
