"""Small spools, something to write into them, and a look at what lies on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from flotilla.transport.limits import MIB
from flotilla.transport.spool import Spool
from flotilla.transport.values import IMAGE, Value
from flotilla.utils.clock import ManualClock

MakeSpool = Callable[..., Spool]


@contextmanager
def spools_in(folder: Path) -> Iterator[MakeSpool]:
    """Makes spools with small caps below a folder, and closes them all in the end."""
    made: list[Spool] = []

    def make(**changed: Any) -> Spool:
        settings: dict[str, Any] = {
            "memory_cap_bytes": 8 * MIB,
            "disk_cap_bytes": 8 * MIB,
            "recycle_cap_bytes": 4 * MIB,
            "clock": ManualClock(),
        }
        settings.update(changed)
        memory_root = settings.pop("memory_root", folder / "memory")
        made.append(Spool(memory_root, settings.pop("disk_root", folder / "disk"), **settings))
        return made[-1]

    try:
        yield make
    finally:
        for spool in made:
            spool.close()


def kill(spool: Spool) -> None:
    """Ends a spool as the death of its process does: its locks are free, and nothing is tidied up."""
    for store in spool._stores():
        lock = store.folder._lock
        lock.release()
        Path(lock.lock_file).touch()  # some systems' locks remove their file when released, but not when killed
    spool.close()


def picture(seed: int, size_bytes: int = MIB) -> dict[str, Value]:
    numbers = torch.randint(0, 256, (1, size_bytes, 1, 1), generator=torch.Generator().manual_seed(seed))
    return {"images": Value(IMAGE, numbers.to(torch.uint8))}


def files_in(*folders: Path) -> list[str]:
    return sorted(path.name for folder in folders for path in folder.rglob("*") if path.is_file())
