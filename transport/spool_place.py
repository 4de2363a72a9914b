"""Where the spool of this machine lies and how much it may hold."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import psutil

from ..utils.clock import Clock
from ..utils.errors import InvalidInput
from ..utils.log import get_logger
from .limits import DEFAULT_LIMITS, MIB, TransportLimits
from .spool import Spool

DIR_VARIABLE = "FLOTILLA_SPOOL_DIR"
CAP_VARIABLE = "FLOTILLA_SPOOL_CAP_BYTES"
MEMORY_SHARE_OF_RAM = 0.25
MEMORY_SHARE_OF_FREE = 0.5
DISK_SHARE_OF_FREE = 0.5
RECYCLE_SHARE = 0.5  # of the memory cap
MIN_MEMORY_BYTES = 64 * MIB  # less is not worth a folder
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (the folder made in it is private and checked)
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

log = get_logger("transport")


def default_spool(
    home_id: str,
    root: Path,
    *,
    memory_cap_bytes: int | None = None,
    disk_cap_bytes: int | None = None,
    recycle_cap_bytes: int | None = None,
    limits: TransportLimits = DEFAULT_LIMITS,
    clock: Clock | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Spool:
    """The spool of the instance at home ``home_id``, by settings where given, else by what the machine has.

    ``root`` must outlive the process: the host's temporary folder does not. FLOTILLA_SPOOL_DIR moves the folder on disk; FLOTILLA_SPOOL_CAP_BYTES caps each of both folders. Raises
    InvalidInput if the latter is no number, OSError if there is no place on disk.
    """
    disk_root = Path(environ.get(DIR_VARIABLE) or root) / "flotilla-spool"
    disk_root.mkdir(parents=True, exist_ok=True)
    ceiling = _ceiling(environ.get(CAP_VARIABLE, ""))
    memory_root = memory_folder()
    if memory_cap_bytes is None:
        memory_cap_bytes = _memory_cap(memory_root)
    if disk_cap_bytes is None:
        disk_cap_bytes = int(shutil.disk_usage(disk_root).free * DISK_SHARE_OF_FREE)
    if ceiling is not None:
        memory_cap_bytes, disk_cap_bytes = min(memory_cap_bytes, ceiling), min(disk_cap_bytes, ceiling)
    if recycle_cap_bytes is None:
        recycle_cap_bytes = int(memory_cap_bytes * RECYCLE_SHARE)
    spool = Spool(
        memory_root,
        disk_root,
        memory_cap_bytes=memory_cap_bytes,
        disk_cap_bytes=disk_cap_bytes,
        recycle_cap_bytes=recycle_cap_bytes,
        home_id=home_id,
        limits=limits,
        clock=clock,
    )
    log.info("spool is open", home=home_id, memory_cap_bytes=memory_cap_bytes, disk_cap_bytes=disk_cap_bytes)
    return spool


def memory_folder() -> Path | None:
    """This user's folder in the memory file system, or None where there is none (macOS, Windows, small containers)."""
    if not hasattr(os, "geteuid") or not _SHARED_MEMORY.is_dir() or not os.access(_SHARED_MEMORY, os.W_OK):
        return None
    return _SHARED_MEMORY / f"flotilla-{os.geteuid()}"


def total_ram_bytes() -> int:
    """Memory that this process may use: the machine's, or less where a container says so."""
    total_bytes = int(psutil.virtual_memory().total)
    for path in _CGROUP_LIMITS:
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            total_bytes = min(total_bytes, int(text))
    return total_bytes


def _memory_cap(memory_root: Path | None) -> int:
    if memory_root is None:
        return 0
    free_bytes = shutil.disk_usage(memory_root.parent).free
    cap_bytes = int(min(total_ram_bytes() * MEMORY_SHARE_OF_RAM, free_bytes * MEMORY_SHARE_OF_FREE))
    return cap_bytes if cap_bytes >= MIN_MEMORY_BYTES else 0


def _ceiling(text: str) -> int | None:
    if not text:
        return None
    if not text.isdigit():
        raise InvalidInput(f"{CAP_VARIABLE} is not a whole number of bytes.", cure=f"Unset {CAP_VARIABLE} or fix it.")
    return int(text)
