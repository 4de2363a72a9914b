"""A folder that belongs to one living process, beside folders of others under the same root.

``<root>/<name>.lock`` is locked as long as the owner lives and however it dies; ``<root>/<name>/`` holds its files.
Whoever can lock somebody else's lock has found a dead owner and may take over or clean up. The name tells the owner's
home (see `workers.home`), so that an instance knows what an earlier process of itself has left.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Collection
from pathlib import Path

from blake3 import blake3
from filelock import FileLock, Timeout

from ..utils.errors import Conflict
from ..utils.log import get_logger

PRIVATE_FOLDER_MODE = 0o700
PRIVATE_FILE_MODE = 0o600
_PREFIX = "spool-"
_LOCK_SUFFIX = ".lock"
_CLAIM_TRIES = 8
_HOME_TAG_CHARS = 16

log = get_logger("transport")


class DeadFolder:
    """The folder of an owner that is gone, locked by us until it is removed or left."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock

    def remove(self) -> None:
        """Removes the folder with all that is in it. A link in its place loses only itself."""
        if self.path.is_symlink():
            self.path.unlink()
        else:
            shutil.rmtree(self.path, ignore_errors=True)
        _give_back(self._lock)
        log.info("removed the spool of an instance that is gone", folder=self.path.name)

    def leave(self) -> None:
        """Leaves it to be found again."""
        _leave(self._lock)


class OwnedFolder:
    """A fresh private folder under ``root``. Raises OSError where none can be made, Conflict where none can be kept."""

    def __init__(self, root: Path, home: str = "") -> None:
        self._root = root
        self._home_prefix = f"{_PREFIX}{blake3(home.encode('utf-8')).hexdigest()[:_HOME_TAG_CHARS]}-"
        self._name, self._lock = _claim(root, self._home_prefix)
        self.path = root / self._name
        self.path.mkdir(mode=PRIVATE_FOLDER_MODE)

    def neighbours(self, *, of_this_home: bool = False) -> list[Path]:
        """The folders of others under the same root, or of other processes of the same home, living and dead."""
        prefix = self._home_prefix if of_this_home else _PREFIX
        locks = sorted(self._root.glob(f"{prefix}*{_LOCK_SUFFIX}"))
        return [path.with_suffix("") for path in locks if path.stem != self._name]

    @staticmethod
    def seize(folder: Path) -> DeadFolder | None:
        """The folder of a neighbour if its owner is dead and nobody else looks at it, else None."""
        lock = _new_lock(folder.with_name(folder.name + _LOCK_SUFFIX))
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            return None
        return DeadFolder(folder, lock)

    def close(self, keep: Collection[Path] = ()) -> None:
        """Gives the lock back. Removes all files but those to ``keep``; without any, the folder as well, and the root
        if nobody else is in it. Twice is fine."""
        if not self._lock.is_locked:
            return
        if keep:
            for path in [path for path in self.path.iterdir() if path not in keep]:
                with contextlib.suppress(OSError):  # Windows removes no open file; whoever takes the folder over does
                    path.unlink()
            _leave(self._lock)
            return
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


def _claim(root: Path, prefix: str) -> tuple[str, FileLock]:
    for _ in range(_CLAIM_TRIES):
        make_private_folder(root)
        name = f"{prefix}{os.getpid()}-{secrets.token_hex(4)}"
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


def _new_lock(path: Path) -> FileLock:
    # Whichever thread closes the folder must be able to give the lock back.
    return FileLock(path, mode=PRIVATE_FILE_MODE, thread_local=False)


def _leave(lock: FileLock) -> None:
    """Releases a lock whose file must stay: without it nobody would find the folder."""
    lock.release()
    with contextlib.suppress(OSError):
        Path(lock.lock_file).touch(PRIVATE_FILE_MODE)  # some systems' locks remove their file


def _give_back(lock: FileLock) -> None:
    path = Path(lock.lock_file)
    try:
        path.unlink(missing_ok=True)  # while it is locked, so that nobody locks a file that is about to go
    except OSError:
        lock.release()  # Windows removes no open file
        path.unlink(missing_ok=True)
    else:
        lock.release()
