"""Stands in for the parts that need a running ComfyUI: coordinator, host queue, interceptor, pool, fetcher.

Planning, the state machine, the registry, the spool's folder and the book of participants are the real ones.
``tests/unit/test_api_fakes.py`` holds these classes against the signatures of the real parts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiohttp import web
from flotilla.api import compat_config, compat_queue, v2_fleet, v2_jobs
from flotilla.api.services import Services
from flotilla.graph.plan import PlanOptions, plan_job
from flotilla.jobs import events as ev
from flotilla.jobs.machine import Machine
from flotilla.jobs.view import JobView
from flotilla.runtime.jobrun import MASTER_ID, JobRun
from flotilla.runtime.participants import ParticipantBook
from flotilla.transport.spool import Spool
from flotilla.utils.clock import ManualClock
from flotilla.utils.errors import FlotillaError, NotFound
from flotilla.utils.ids import new_id
from flotilla.workers.connection import WorkerHealth
from flotilla.workers.handshake import Identity
from flotilla.workers.key import FleetKey
from flotilla.workers.registry import WorkerRegistry

PROMPT: dict[str, Any] = {
    "1": {"class_type": "KitImage", "inputs": {"seed": ["2", 0]}},
    "2": {"class_type": "DistributedSeed", "inputs": {"seed": 40}},
    "3": {"class_type": "DistributedCollector", "inputs": {"images": ["1", 0]}},
    "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
}
"""A prompt that is spread: one item per participant."""

PLAIN_PROMPT: dict[str, Any] = {"1": {"class_type": "KitImage", "inputs": {"seed": 1}}}
KNOWN_CLASSES = frozenset({"KitImage", "DistributedSeed", "DistributedCollector", "PreviewImage"})
SECRET = "a secret that no answer may ever hold, 0123456789"


@dataclass(frozen=True)
class Wishes:
    """As the coordinator's."""

    worker_ids: tuple[str, ...] | None = None
    delegate_master: bool | None = None


@dataclass(frozen=True)
class Queued:
    """As the host queue's."""

    prompt_id: str
    number: float
    node_errors: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """As the host queue's."""

    error: dict[str, Any]
    node_errors: dict[str, Any]


class FakePool:
    """Every enabled worker is online unless ``healths`` says otherwise."""

    def __init__(self, registry: WorkerRegistry) -> None:
        self._registry = registry
        self.healths: dict[str, WorkerHealth] = {}
        self.kicked: list[str | None] = []

    def health(self) -> dict[str, WorkerHealth]:
        return {
            entry.id: self.healths.get(entry.id, WorkerHealth("online" if entry.enabled else "disabled"))
            for entry in self._registry.entries()
        }

    def kick(self, worker_id: str | None = None) -> None:
        self.kicked.append(worker_id)


class FakeFetcher:
    """Knows which workers were proved to be on this machine."""

    def __init__(self) -> None:
        self.same: set[str] = set()

    def is_same_host(self, worker_id: str) -> bool:
        return worker_id in self.same


class FakeCoordinator:
    """Plans for real and keeps jobs in a real state machine; carries none of its instructions out."""

    def __init__(self, registry: WorkerRegistry, pool: FakePool, clock: ManualClock) -> None:
        self._clock = clock
        self._registry = registry
        self.participants = ParticipantBook(registry, pool, lambda classes: (KNOWN_CLASSES, {}))  # type: ignore[arg-type]
        self.machine = Machine()
        self.jobs: dict[str, JobRun] = {}
        self.accepted: list[str] = []
        self.dropped: list[str] = []
        self.cancelled: list[str] = []
        self.feed(ev.ParticipantOnline(MASTER_ID, slots=100, takes_unpinned=False))

    def feed(self, event: ev.Event) -> None:
        self.machine.handle(event, self._clock.now_s())

    def plan(self, json_data: dict[str, Any], wishes: Wishes) -> JobRun | None:
        participants = self.participants.for_plan(KNOWN_CLASSES, wishes.worker_ids)
        delegate = self._registry.settings().master_delegate_only
        if wishes.delegate_master is not None:
            delegate = wishes.delegate_master
        options = PlanOptions(master_takes_part=not delegate)
        plan = plan_job(json_data["prompt"], participants, options, choose=lambda ids: ids[-1])
        if plan is None:
            return None
        job_id = json_data.setdefault("prompt_id", new_id())
        run = self.jobs[job_id] = JobRun(job_id, plan, "", {}, created_s=self._clock.wall_s())
        specs = tuple(ev.ItemSpec(item.index, item.planned_for, item.by_master_prompt) for item in plan.items)
        self.feed(ev.JobPlanned(job_id, specs, plan.participants, plan.left_out))
        return run

    def accept(self, job_id: str) -> None:
        self.accepted.append(job_id)
        for participant_id in self.jobs[job_id].plan.participants:
            if participant_id != MASTER_ID:
                self.feed(ev.ParticipantOnline(participant_id, slots=2))
        self.feed(ev.JobAccepted(job_id))

    def drop(self, job_id: str, reason: str) -> None:
        self.dropped.append(job_id)
        self.feed(ev.JobDropped(job_id, reason))
        del self.jobs[job_id]

    def cancel_by_user(self, job_id: str) -> None:
        run = self.run(job_id)
        self.cancelled.append(job_id)
        self.feed(ev.JobCancelled(job_id, "cancelled by request"))
        run.ended_s = self._clock.wall_s()

    def run(self, job_id: str) -> JobRun:
        if job_id not in self.jobs:
            raise NotFound(f"There is no job {job_id}.")
        return self.jobs[job_id]

    def runs(self) -> list[JobRun]:
        return list(reversed(self.jobs.values()))

    def view(self, job_id: str) -> JobView:
        self.run(job_id)
        view: JobView = self.machine.view(job_id)
        return view


@dataclass
class Submission:
    """As the interceptor's."""

    wishes: Wishes
    run: JobRun | None = None
    error: FlotillaError | None = None


class FakeInterceptor:
    """Plans what the queue's prompt handlers are shown while a submission is open."""

    def __init__(self, coordinator: FakeCoordinator) -> None:
        self._coordinator = coordinator
        self._open: Submission | None = None
        self.wishes: list[Wishes] = []

    @contextmanager
    def submission(self, wishes: Wishes) -> Iterator[Submission]:
        self.wishes.append(wishes)
        self._open = submission = Submission(wishes)
        try:
            yield submission
        finally:
            if submission.run is not None:
                self._coordinator.drop(submission.run.job_id, "the host refused the prompt")

    def on_prompt(self, json_data: dict[str, Any]) -> dict[str, Any]:
        submission, self._open = self._open, None
        assert submission is not None, "the prompt handlers were called outside a submission"
        try:
            submission.run = self._coordinator.plan(json_data, submission.wishes)
        except FlotillaError as error:
            submission.error = error
            return {key: value for key, value in json_data.items() if key != "prompt"}
        return json_data


class FakeQueue:
    """The host's queue: takes every prompt, or refuses it with ``refusal``. ``gate`` is awaited before the answer."""

    def __init__(self, interceptor: FakeInterceptor) -> None:
        self._interceptor = interceptor
        self.refusal: Refused | None = None
        self.gate: Any = None
        self.taken: list[tuple[str, dict[str, Any], dict[str, Any]]] = []

    def run_prompt_handlers(self, json_data: dict[str, Any]) -> dict[str, Any]:
        return self._interceptor.on_prompt(json_data)

    async def submit(
        self, prompt: dict[str, Any], prompt_id: str, extra_data: dict[str, Any], *, targets: list[str] | None = None
    ) -> Queued | Refused:
        if self.gate is not None:
            await self.gate()
        if self.refusal is not None:
            return self.refusal
        self.taken.append((prompt_id, copy.deepcopy(prompt), copy.deepcopy(extra_data)))
        return Queued(prompt_id, float(len(self.taken)))


class Instance:
    """One instance with all routes of ``api/``, as far as it goes without a ComfyUI."""

    def __init__(self, folder: Path, monkeypatch: Any) -> None:
        self.clock = ManualClock()
        self.registry = WorkerRegistry(folder / "workers.json")
        self.pool = FakePool(self.registry)
        self.coordinator = FakeCoordinator(self.registry, self.pool, self.clock)
        self.interceptor = FakeInterceptor(self.coordinator)
        self.queue = FakeQueue(self.interceptor)
        self.fetcher = FakeFetcher()
        self.spool = Spool(None, folder / "spool", memory_cap_bytes=0, disk_cap_bytes=1_000, recycle_cap_bytes=0)
        monkeypatch.setattr(compat_queue, "make_wishes", Wishes)
        monkeypatch.setattr(compat_queue, "host_system_info", lambda: {"hostname": "here"})
        monkeypatch.setattr(compat_queue, "host_network_info", lambda: {"all_ips": ["10.0.0.1"]})
        monkeypatch.setattr(v2_fleet, "host_facts", lambda: {"host_version": "0.30.0", "device": "cpu"})

    def services(self, key: FleetKey | None = None) -> Services:
        parts: Any = SimpleNamespace
        return Services(
            server=parts(),
            queue=self.queue,  # type: ignore[arg-type]
            registry=self.registry,
            pool=self.pool,  # type: ignore[arg-type]
            coordinator=self.coordinator,  # type: ignore[arg-type]
            agent=parts(),
            fetcher=self.fetcher,  # type: ignore[arg-type]
            spool=self.spool,
            key=key,
            identity=Identity(instance_id="instance-1", version="0.1.0", name="desk"),
            clock=self.clock,
        )

    def app(self) -> web.Application:
        """All routes, registered as the host does it: plain, and once more below ``/api``."""
        services = self.services(FleetKey(SECRET.encode()))
        routes = web.RouteTableDef()
        v2_jobs.register(services, routes)
        v2_fleet.register(services, routes)
        compat_queue.register(services, self.interceptor, routes)  # type: ignore[arg-type]
        compat_config.register(services, routes)
        prefixed = web.RouteTableDef()
        for route in routes:
            assert isinstance(route, web.RouteDef)
            prefixed.route(route.method, "/api" + route.path)(route.handler, **route.kwargs)
        app = web.Application()
        app.add_routes(prefixed)
        app.add_routes(routes)
        return app

    def add_worker(self, worker_id: str, port: int, **fields: Any) -> None:
        """Adds an enabled worker on this machine."""
        entry = {"id": worker_id, "name": worker_id.upper(), "address": f"http://127.0.0.1:{port}", **fields}
        self.registry.change(lambda old: {"workers": [*(one.to_json() for one in old.workers), entry]})

    def add_job(self, prompt: dict[str, Any] = PROMPT, *, accept: bool = True) -> JobRun:
        """A job of the given prompt on the master and all enabled workers."""
        run = self.coordinator.plan({"prompt": prompt}, Wishes())
        assert run is not None
        if accept:
            self.coordinator.accept(run.job_id)
        return run
