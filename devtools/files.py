"""Small file helpers: a lock between processes, atomic text files, links to folders, patient removal."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_POLL_S = 0.2
REMOVE_TRIES = 25
REMOVE_PAUSE_S = 0.2

COPY_IGNORED = (".git", ".venv", ".dev", "__pycache__", "node_modules")
"""Folders left out where a folder has to be copied because links are not allowed."""


def try_lock(descriptor: int) -> bool:
    """Tries to lock an open file for this process alone; the lock ends with the descriptor or the process."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def process_lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock between processes. It ends with the holder, however that dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        if not try_lock(descriptor):
            print(f"Waiting for another dev.py that is busy with {path.stem} ...", file=sys.stderr, flush=True)
            while not try_lock(descriptor):
                time.sleep(LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)


def write_text_atomic(path: Path, text: str) -> None:
    """Writes a text file so that a reader sees the old or the new content, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def link_folder(target: Path, link: Path) -> None:
    """Makes `link` show the folder `target`: a symbolic link, on Windows a junction or else a copy.

    Raises:
        FileNotFoundError: `target` is not a folder.
    """
    if not target.is_dir():
        raise FileNotFoundError(f"{target} is not a folder")
    link.parent.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        # Symbolic links need a privilege on Windows; junctions do not, but stay on one machine.
        import _winapi

        try:
            _winapi.CreateJunction(str(target.resolve()), str(link))
        except OSError:
            shutil.copytree(target, link, ignore=shutil.ignore_patterns(*COPY_IGNORED))
    else:
        link.symlink_to(target.resolve(), target_is_directory=True)


def unlink_folder(link: Path) -> None:
    """Removes what `link_folder` made, without touching the folder it shows."""
    if link.is_symlink():
        link.unlink()
    elif link.is_dir():
        try:
            link.rmdir()  # a junction goes like an empty folder
        except OSError:
            shutil.rmtree(link)


def remove_tree(folder: Path) -> None:
    """Removes a folder of ours. Retries, because Windows frees the files of an ended process late.

    Raises:
        OSError: The folder could not be removed within about five seconds.
    """
    for attempt in range(REMOVE_TRIES):
        try:
            shutil.rmtree(folder)
            return
        except FileNotFoundError:
            if not folder.exists():
                return
        except OSError:
            if attempt == REMOVE_TRIES - 1:
                raise
        time.sleep(REMOVE_PAUSE_S)
