"""What the routes work on: the parts that the composition root built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..host.records import HostQueue
from ..runtime.agent import Agent
from ..runtime.coordinator import Coordinator
from ..runtime.results import ResultFetcher
from ..storage.journal import Journal
from ..transport.spool import Spool
from ..utils.clock import Clock, SystemClock
from ..workers.handshake import Identity
from ..workers.key import FleetKey
from ..workers.pool import WorkerPool
from ..workers.registry import WorkerRegistry

if TYPE_CHECKING:
    from ..host.server import HostServer  # which imports ComfyUI


@dataclass(frozen=True)
class Services:
    """``key`` is None on an instance that was started without a fleet key."""

    server: HostServer
    queue: HostQueue
    registry: WorkerRegistry
    pool: WorkerPool
    coordinator: Coordinator
    agent: Agent
    fetcher: ResultFetcher
    spool: Spool
    journal: Journal
    key: FleetKey | None
    identity: Identity
    clock: Clock = field(default_factory=SystemClock)
