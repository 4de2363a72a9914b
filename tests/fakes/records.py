"""Records of the journal with as little said as a test needs."""

from __future__ import annotations

from typing import Any

from flotilla.storage.records import AttemptRecord, ItemRecord, JobRecord

HOME = "home-1"
NOW_S = 1_700_000_000.0


def job(job_id: str, **fields: Any) -> JobRecord:
    return JobRecord(**{"id": job_id, "home": HOME, "state": "running", "created_s": NOW_S, **fields})


def item(job_id: str, index: int, **fields: Any) -> ItemRecord:
    basic = {"node_id": "12", "k": index, "state": "waiting", "planned_for": "master"}
    return ItemRecord(job_id=job_id, index=index, **{**basic, **fields})


def attempt(job_id: str, index: int, number: int, **fields: Any) -> AttemptRecord:
    basic = {"participant_id": "w1", "state": "leased", "leased_s": NOW_S}
    return AttemptRecord(job_id=job_id, index=index, number=number, **{**basic, **fields})
