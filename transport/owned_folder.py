"""A folder that belongs to one living process, beside folders of others under the same root.

``<root>/<name>.lock`` is locked as long as the owner lives and however it dies; ``<root>/<name>/`` holds its files.
Whoever can lock somebody else's lock has found a dead owner and may clean up.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from pathlib import Path

from filelock import FileLock, Timeout

from ..utils.errors import Conflict
from ..utils.log import get_logger

PRIVATE_FOLDER_MODE = 0o700
PRIVATE_FILE_MODE = 0o600
_PREFIX = "spool-"
_LOCK_SUFFIX = ".lock"
_CLAIM_TRIES = 8

log = get_logger("transport")


class OwnedFolder:
    """A fresh private folder under ``root``. Raises OSError where none can be made, Conflict where none can be kept."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._name, self._lock = _claim(root)
        self.path = root / self._name
        self.path.mkdir(mode=PRIVATE_FOLDER_MODE)

    def clear_dead(self) -> int:
        """Removes the folders of dead owners under the same root; returns how many there were."""
        removed = 0
        for lock_path in sorted(self._root.glob(f"{_PREFIX}*{_LOCK_SUFFIX}")):
            if lock_path.stem != self._name and _remove_if_dead(lock_path):
                removed += 1
        return removed

    def close(self) -> None:
        """Removes the folder, gives the lock back, and removes the root if nobody else is in it. Twice is fine."""
        if self._lock.is_locked:
            shutil.rmtree(self.path, ignore_errors=True)
            _give_back(self._lock)
            with contextlib.suppress(OSError):
                self._root.rmdir()


def make_private_folder(path: Path) -> None:
    """Makes ``path`` for this user alone, or checks that it is. Raises OSError if it is a link or another user's."""
    path.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
    facts = path.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        raise NotADirectoryError(f"{path} is not a folder")
    if hasattr(os, "geteuid") and facts.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to another user")
    if os.name == "posix" and stat.S_IMODE(facts.st_mode) != PRIVATE_FOLDER_MODE:
        path.chmod(PRIVATE_FOLDER_MODE)


def _claim(root: Path) -> tuple[str, FileLock]:
    for _ in range(_CLAIM_TRIES):
        make_private_folder(root)
        name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        lock = _new_lock(root / f"{name}{_LOCK_SUFFIX}")
        try:
            lock.acquire(timeout=0)
        except (Timeout, FileNotFoundError):  # the last one to leave has just removed the root
            continue
        # Between our making the file and locking it, somebody cleaning up may have taken it for a dead one.
        if Path(lock.lock_file).exists():
            make_private_folder(root)  # the lock makes a missing root again, but not a private one
            return name, lock
        lock.release()
    raise Conflict(f"No folder under {root} could be locked.", cure="Look for a process that removes its files.")


def _remove_if_dead(lock_path: Path) -> bool:
    lock = _new_lock(lock_path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return False
    folder = lock_path.with_suffix("")
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)
    _give_back(lock)
    log.info("removed the spool of an instance that is gone", folder=folder.name)
    return True


def _new_lock(path: Path) -> FileLock:
    # Whichever thread closes the folder must be able to give the lock back.
    return FileLock(path, mode=PRIVATE_FILE_MODE, thread_local=False)


def _give_back(lock: FileLock) -> None:
    path = Path(lock.lock_file)
    try:
        path.unlink(missing_ok=True)  # while it is locked, so that nobody locks a file that is about to go
    except OSError:
        lock.release()  # Windows removes no open file
        path.unlink(missing_ok=True)
    else:
        lock.release()
