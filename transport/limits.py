"""The caps that every blob is held to, and the patience of a fetch. Change them here, not where they are used."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class TransportLimits:
    """What a blob may be at most. A blob over a cap is refused before memory is set aside for it."""

    max_blob_bytes: int = 64 * GIB
    max_header_bytes: int = 8 * MIB
    max_tensors: int = 4096
    max_values: int = 256
    max_rank: int = 16
    max_name_chars: int = 200
    max_json_bytes: int = 4 * MIB  # all values of a blob together, as text
    max_json_depth: int = 64


@dataclass(frozen=True)
class FetchPolicy:
    """How long and how often a fetch over HTTP tries. A try that brought new bytes starts the count afresh."""

    max_tries: int = 6
    connect_timeout_s: float = 5.0
    idle_timeout_s: float = 20.0  # longest wait for the next byte
    backoff_first_s: float = 0.1
    backoff_max_s: float = 2.0
    min_progress_bytes: int = 64 * KIB  # less than this is no progress: a peer that drips cannot keep us for ever
    stop_wait_s: float = 0.5  # how long a cancelled fetch waits for its thread to let go of the sink


DEFAULT_LIMITS = TransportLimits()
DEFAULT_POLICY = FetchPolicy()
