"""A temporary folder that is removed even if its maker was killed: by the next maker of such a folder."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path

from .files import remove_tree, try_lock, unlink_folder

PREFIX = "flotilla-fleet-"
LOCK_NAME = "alive.lock"
SETTLE_S = 60.0
"""A folder whose maker is gone is left alone this long, because instances need a moment to end after their fleet."""


class ScratchFolder:
    """A fresh temporary folder, marked by a lock that ends with this process."""

    def __init__(self) -> None:
        sweep()
        # resolve: the host compares paths, and macOS's temporary folder is behind a link.
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        self._lock: int | None = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT)
        try_lock(self._lock)

    def remove(self) -> None:
        """Removes the folder and everything in it. May be repeated."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        _remove(self.path)


def _remove(folder: Path) -> None:
    for link in folder.glob("*/custom_nodes/*"):
        unlink_folder(link)
    remove_tree(folder)


def sweep() -> None:
    """Removes the folders of makers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = folder / LOCK_NAME
        with contextlib.suppress(OSError):
            if time.time() - lock.stat().st_mtime < SETTLE_S:
                continue
            descriptor = os.open(lock, os.O_RDWR)
            try:
                abandoned = try_lock(descriptor)
            finally:
                os.close(descriptor)
            if abandoned:
                _remove(folder)
