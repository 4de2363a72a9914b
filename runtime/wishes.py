"""What a request may say beside its prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Wishes:
    """Which workers, and whether the master only coordinates. None: as configured."""

    worker_ids: tuple[str, ...] | None = None
    delegate_master: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        ids = None if self.worker_ids is None else list(self.worker_ids)
        return {"worker_ids": ids, "delegate_master": self.delegate_master}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Wishes:
        """From `to_json`; what is missing or of another type is as configured."""
        ids, delegate = data.get("worker_ids"), data.get("delegate_master")
        return Wishes(
            worker_ids=tuple(str(one) for one in ids) if isinstance(ids, list) else None,
            delegate_master=delegate if isinstance(delegate, bool) else None,
        )
