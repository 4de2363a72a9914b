"""The home of an instance: an id that stays over restarts, where the instance's own id is new each time.

A home is a private folder and a port, so that two servers that share one user folder are two homes. It belongs to one
living process at a time: a second one (somebody started the same server twice) gets an id for its own short life, and
neither takes over what the other has at work.
"""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from ..utils.files import PRIVATE_FILE_MODE, write_atomic
from ..utils.ids import is_prompt_id, new_id
from ..utils.log import get_logger

log = get_logger("workers")

WAIT_FOR_PREDECESSOR_S = 3.0
"""A server that restarts itself may start anew before the old process is quite gone."""

_held: dict[Path, tuple[str, FileLock]] = {}
"""Homes of this process, by file. The locks are held until the process ends, however it ends."""


def home_id(folder: Path, port: int | None, *, wait_s: float = WAIT_FOR_PREDECESSOR_S) -> str:
    """The id of the home of ``folder`` and ``port``, made at the first start and then read from ``home-<port>.id``.

    Blocks up to ``wait_s`` while another process has it. Raises OSError where the folder cannot be used.
    """
    path = (folder / f"home-{'any' if port is None else port}.id").absolute()
    if path in _held:
        return _held[path][0]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"), mode=PRIVATE_FILE_MODE, thread_local=False)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        log.warning("another server with this user folder and port is alive; this one has a home of its own", port=port)
        return new_id()
    text = _read(path)
    if text is None:
        text = new_id()
        write_atomic(path, text.encode("ascii"))
    _held[path] = (text, lock)
    return text


def _read(path: Path) -> str | None:
    """The id in the file; None if there is none or somebody has damaged it, which only means a new home."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return text if is_prompt_id(text) else None
