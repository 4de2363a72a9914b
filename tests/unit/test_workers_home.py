"""Homes: ids that stay over restarts, one living process each."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from flotilla.utils.ids import is_prompt_id
from flotilla.workers import home
from flotilla.workers.home import home_id

SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
from loader import load_package
load_package()
from flotilla.workers.home import home_id
print(home_id(Path(sys.argv[1]), 8188, wait_s=0.0))
"""


def leave_homes() -> None:
    """Gives this process's homes back, as its end does."""
    while home._held:
        _, (_, lock) = home._held.popitem()
        lock.release()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    leave_homes()
    yield
    leave_homes()


def in_another_process(folder: Path) -> str:
    tests = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", SCRIPT, str(folder), str(tests)]
    return subprocess.run(command, check=True, timeout=120, capture_output=True, text=True).stdout.split()[-1]


def test_a_home_stays_over_restarts(tmp_path: Path) -> None:
    first = home_id(tmp_path, 8188)
    assert is_prompt_id(first)
    assert home_id(tmp_path, 8188) == first
    leave_homes()
    assert home_id(tmp_path, 8188) == first
    leave_homes()
    assert in_another_process(tmp_path) == first
    assert in_another_process(tmp_path) == first  # the one before has ended without saying so


def test_homes_differ_by_port_and_by_folder(tmp_path: Path) -> None:
    ids = [home_id(tmp_path / "a", 8188), home_id(tmp_path / "a", 8189), home_id(tmp_path / "a", None)]
    ids.append(home_id(tmp_path / "b", 8188))
    assert len(set(ids)) == 4


def test_a_server_that_is_started_twice_is_not_the_same_home(tmp_path: Path) -> None:
    here = home_id(tmp_path, 8188)
    there = in_another_process(tmp_path)
    assert is_prompt_id(there)
    assert there != here
    leave_homes()
    assert home_id(tmp_path, 8188) == here


def test_a_predecessor_that_is_still_ending_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = home_id(tmp_path, 8188)
    leave_homes()
    other = FileLock(tmp_path / "home-8188.lock")
    other.acquire()
    acquire = FileLock.acquire
    waited = []

    def acquire_when_it_has_gone(self: FileLock, timeout: float) -> object:
        waited.append(timeout)
        other.release()
        return acquire(self, timeout=timeout)

    monkeypatch.setattr(FileLock, "acquire", acquire_when_it_has_gone)
    assert home_id(tmp_path, 8188, wait_s=2.5) == here
    assert waited == [2.5]


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"../../etc/passwd"])
def test_a_damaged_file_makes_a_new_home(tmp_path: Path, damage: bytes) -> None:
    first = home_id(tmp_path, 8188)
    leave_homes()
    (tmp_path / "home-8188.id").write_bytes(damage)
    second = home_id(tmp_path, 8188)
    assert is_prompt_id(second)
    assert second != first
    leave_homes()
    assert home_id(tmp_path, 8188) == second


def test_a_home_of_one_life_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with FileLock(tmp_path / "home-8188.lock"), caplog.at_level(logging.WARNING, "flotilla"):
        home_id(tmp_path, 8188, wait_s=0.0)
    assert "another server" in caplog.text
