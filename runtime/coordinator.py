"""The master's side: makes jobs of prompts, feeds the state machine, carries its instructions out.

Everything here runs on the server's loop, except what a `StageRun` passes on from the prompt thread.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any

from ..graph.plan import JobPlan
from ..host.records import HostQueue, MakeWatch
from ..jobs import events as ev
from ..jobs import instructions as ins
from ..jobs.machine import Machine
from ..jobs.model import Failure, ItemState, JobState
from ..jobs.selection import choose_route
from ..jobs.view import JobView
from ..transport.manifest import BlobManifest
from ..transport.memory import Reserve
from ..utils.background import Background
from ..utils.clock import Clock
from ..utils.errors import Conflict, InvalidInput, LinkLost, NotFound
from ..utils.log import get_logger
from ..workers import messages as m
from ..workers.connection import WorkerHealth
from ..workers.entries import MASTER_ID
from ..workers.pool import WorkerPool
from ..workers.registry import WorkerRegistry
from .jobrun import JobRun
from .own_work import OwnWork
from .participants import ParticipantBook
from .planner import Planner, Wishes
from .results import ResultFetcher
from .stage import StageRun
from .transfers import Transfers
from .wording import describe_refusal, ending_error, failure_of

log = get_logger("coordinator")

RECONCILE_EVERY_S = 0.25
REMEMBERED_JOBS = 200
MASTER_SLOTS = 10_000
"""The master's own items run inside its own prompts, one after the other as its queue has them: no limit here."""


class Coordinator:
    """One per instance. Without workers it has nothing to do."""

    def __init__(
        self,
        *,
        registry: WorkerRegistry,
        pool: WorkerPool,
        queue: HostQueue,
        fetcher: ResultFetcher,
        clock: Clock,
        call_soon: Callable[..., None],
        make_watch: MakeWatch,
        reserve: Reserve | None = None,
        own_choices: Callable[[Iterable[str]], tuple[frozenset[str], dict[str, dict[str, tuple[str, ...]]]]],
    ) -> None:
        self._registry = registry
        self._pool = pool
        self._queue = queue
        self._fetcher = fetcher
        self._clock = clock
        self._call_soon = call_soon
        self._reserve = reserve
        self.participants = ParticipantBook(registry, pool, own_choices)
        self._machine = Machine()
        self._planner = Planner(registry, self.participants, clock, self._machine.load, choose_route)
        self._jobs: OrderedDict[str, JobRun] = OrderedDict()
        self._waiting: deque[str] = deque()
        self._active: set[str] = set()
        self._background = Background("coordinator")
        self._own_work = OwnWork(self.participants, clock, lambda event: call_soon(self._feed, event))
        self._transfers = Transfers(fetcher, registry, pool, self._feed)
        self._reconciler: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.watch = make_watch(
            lambda prompt_id: call_soon(self.prompt_started, prompt_id),
            lambda prompt_id: call_soon(self.prompt_ended, prompt_id),
        )
        self._feed(ev.ParticipantOnline(MASTER_ID, slots=MASTER_SLOTS, takes_unpinned=False))

    # Jobs are born

    def plan(self, json_data: dict[str, Any], wishes: Wishes) -> JobRun | None:
        """Makes a job of a posted prompt, if it is to be distributed; fixes its prompt id in ``json_data``.

        Raises InvalidPrompt and NobodyCanRun. Pure but for the job it registers; no network, no disk.
        """
        run = self._planner.make(json_data, wishes)
        if run is None:
            return None
        job_id, plan = run.job_id, run.plan
        if job_id in self._jobs:
            raise Conflict("A job with this prompt id exists already.", cure="Leave prompt_id out, or send a new UUID.")
        for stage in plan.stages:
            run.stages[stage.node_id] = StageRun(
                plan,
                stage,
                precision_of=self.participants.precision,
                delivered=lambda index, attempt: self._call_soon(self._own_work.done, run, index, attempt),
                abandoned=lambda: self._call_soon(self.cancel, run.job_id, "the node was interrupted"),
                node_waits=lambda: self._call_soon(self._feed, ev.FallbackReady(run.job_id)),
                reserve=self._reserve,
            )
        self._jobs[job_id] = run
        self._watch_prompts()
        for participant_id in plan.left_out:
            if self._pool.link(participant_id) is not None:  # so that what was installed since counts next time
                self._background.spawn(self._pool.send(participant_id, m.AskCapabilities()))
        specs = tuple(ev.ItemSpec(item.index, item.planned_for, item.by_master_prompt) for item in plan.items)
        self._feed(
            ev.JobPlanned(
                job_id,
                specs,
                tuple(plan.participants),
                dict(plan.left_out),
                max_attempts=self._registry.settings().max_attempts,
                fallback=MASTER_ID,
            )
        )
        return run

    def accept(self, job_id: str) -> None:
        """The host has queued the job's prompt."""
        run = self._jobs.get(job_id)
        if run is None or run.accepted or run.ended_s is not None:
            return
        run.accepted = True
        log.info("job accepted", job=job_id, items=len(run.plan.items), participants=len(run.plan.participants))
        for participant, reason in run.plan.left_out.items():
            log.warning("left out of a job", job=job_id, participant=participant, reason=reason)
        self._waiting.append(job_id)
        self._activate_waiting()

    def drop(self, job_id: str, reason: str) -> None:
        """The host refused the job's prompt: there never was a job."""
        if job_id in self._jobs:
            self._feed(ev.JobDropped(job_id, reason))

    def cancel(self, job_id: str, reason: str) -> None:
        """Ends the job everywhere. Harmless when it has ended."""
        if job_id in self._jobs:
            self._feed(ev.JobCancelled(job_id, reason))

    def cancel_by_user(self, job_id: str) -> None:
        """Ends the job and the master's own prompt. Raises NotFound."""
        self._queue.cancel(self.run(job_id).job_id)
        self.cancel(job_id, "cancelled by request")

    # What nodes ask

    def stage_of(self, prompt_id: str, node_id: str) -> StageRun | None:
        """The stage of this node, if the prompt is a job that still runs."""
        run = self._jobs.get(prompt_id)
        return run.stages.get(node_id) if run is not None else None

    def plan_of(self, prompt_id: str) -> JobPlan | None:
        """The plan of this prompt, if it is a job that still runs."""
        run = self._jobs.get(prompt_id)
        return run.plan if run is not None and run.stages else None

    # What screens ask

    def run(self, job_id: str) -> JobRun:
        """The job of this id. Raises NotFound."""
        if job_id not in self._jobs:
            raise NotFound(f"There is no job {job_id}.", cure="Jobs are listed at /distributed/v2/jobs.")
        return self._jobs[job_id]

    def runs(self) -> list[JobRun]:
        """All jobs that are remembered, the newest first."""
        return list(reversed(self._jobs.values()))

    def view(self, job_id: str) -> JobView:
        """How the job stands. Raises NotFound."""
        self.run(job_id)
        view = self._machine.job(job_id)
        if view is None:
            raise NotFound(f"Job {job_id} is no longer known.")
        return view

    # What workers say

    def on_state(self, worker_id: str, health: WorkerHealth) -> None:
        """A worker's link has come or gone."""
        if health.state == "online":
            self._feed(
                ev.ParticipantOnline(worker_id, slots=self._registry.settings().worker_slots, takes_unpinned=True)
            )
        else:
            self._fetcher.forget_worker(worker_id)
            self.participants.forget(worker_id)
            self._feed(ev.ParticipantOffline(worker_id, health.message or health.reason))

    async def on_message(self, worker_id: str, message: m.Message) -> None:
        """A worker's link brought a message."""
        if isinstance(message, m.Capabilities):
            self.participants.note_capabilities(worker_id, message)
        elif isinstance(message, m.Status):
            self.participants.note_status(worker_id, message)
        elif isinstance(message, m.SpoolOffer):
            self._background.spawn(self._fetcher.note_spool(worker_id, message))
        elif isinstance(message, m.LeaseAccepted):
            self._feed(ev.LeaseHeld(message.job_id, message.index, message.attempt, worker_id))
        elif isinstance(message, m.ItemStarted):
            self._feed(ev.ItemStarted(message.job_id, message.index, message.attempt, worker_id))
        elif isinstance(message, m.ItemProgress):
            self._feed(
                ev.ItemProgressed(
                    message.job_id, message.index, message.attempt, worker_id, message.fraction, message.label
                )
            )
        elif isinstance(message, m.ItemFinished):
            self._item_finished(worker_id, message)
        elif isinstance(message, m.ItemFailed):
            failure = failure_of(worker_id, message)
            self._feed(
                ev.ItemFailed(message.job_id, message.index, message.attempt, worker_id, failure, retry=message.retry)
            )
        elif isinstance(message, m.LeaseRefused):
            self._lease_refused(worker_id, message)

    def _item_finished(self, worker_id: str, message: m.ItemFinished) -> None:
        try:
            manifest = BlobManifest.from_wire(message.manifest)
        except InvalidInput as error:
            failure = Failure(kind="transfer", message=str(error), participant_id=worker_id)
            self._feed(ev.ItemFailed(message.job_id, message.index, message.attempt, worker_id, failure, retry=True))
            return
        run = self._jobs.get(message.job_id)
        if run is not None and 0 <= message.index < len(run.plan.items):
            run.seconds.setdefault(message.index, message.seconds)
            run.sizes.setdefault(message.index, manifest.size_bytes)
        self._feed(ev.ItemFinished(message.job_id, message.index, message.attempt, worker_id, manifest))

    def _lease_refused(self, worker_id: str, message: m.LeaseRefused) -> None:
        reason = describe_refusal(message)
        log.warning("a worker cannot run an item", job=message.job_id, worker=worker_id, reason=reason)
        self._background.spawn(self._pool.send(worker_id, m.AskCapabilities()))
        self._feed(ev.LeaseRefused(message.job_id, message.index, message.attempt, worker_id, reason))

    # What the host does with the master's own prompts

    def prompt_started(self, prompt_id: str) -> None:
        """The host begins to execute a prompt: if it is a job, its items start now at the latest."""
        run = self._jobs.get(prompt_id)
        if run is None or run.ended_s is not None:
            return
        self.accept(prompt_id)
        if prompt_id in self._waiting:
            self._waiting.remove(prompt_id)
            self._activate(run)
        self._own_work.prompt_started(run)

    def prompt_ended(self, prompt_id: str) -> None:
        """The host is done with a prompt: if it is a job that is still open, nobody needs it any more."""
        run = self._jobs.get(prompt_id)
        if run is not None:
            self._feed(ev.PromptEnded(prompt_id))
            self._feed(ev.JobGathered(prompt_id))
            run.release_memory()

    def _watch_prompts(self) -> None:
        self.watch.hold()
        if self._reconciler is None:
            self._reconciler = self._background.spawn(self._reconcile_while_busy())

    async def _reconcile_while_busy(self) -> None:
        """Notices prompts that left the host's queue without our hearing of it: deleted, or no hook on this host."""
        while any(run.stages for run in self._jobs.values()):
            running, waiting = self._queue.live()
            for run in [run for run in self._jobs.values() if run.accepted and run.stages]:
                if run.job_id in running:
                    if not self.watch.available:
                        self.prompt_started(run.job_id)
                elif run.job_id not in waiting:
                    self.prompt_ended(run.job_id)
            await asyncio.sleep(RECONCILE_EVERY_S)
        self._reconciler = None
        self.watch.let_go()

    # The machine's instructions

    def _feed(self, event: ev.Event) -> None:
        for instruction in self._machine.handle(event, self._clock.now_s()):
            self._carry_out(instruction)
        self._set_timer()

    def _carry_out(self, instruction: ins.Instruction) -> None:
        if isinstance(instruction, ins.SendLease):
            self._send_lease(instruction)
        elif isinstance(instruction, ins.StopLease):
            run = self._jobs.get(instruction.job_id)
            if instruction.participant_id != MASTER_ID:
                stop = m.Stop(job_id=instruction.job_id, index=instruction.index, attempt=instruction.attempt)
                self._background.spawn(self._pool.send(instruction.participant_id, stop))
            elif run is not None:
                self._own_work.stop(run, instruction)
        elif isinstance(instruction, ins.FetchResult):
            if instruction.participant_id == MASTER_ID:  # it lies in the assembly already
                own = ev.ResultFetched(instruction.job_id, instruction.index, instruction.attempt, MASTER_ID)
                self._call_soon(self._feed, own)
            else:
                self._transfers.start(self._jobs[instruction.job_id], instruction)
        elif isinstance(instruction, ins.ReleaseResult):
            if instruction.participant_id != MASTER_ID:
                self._transfers.release(self._jobs.get(instruction.job_id), instruction)
        elif isinstance(instruction, ins.ItemChanged):
            self._show_item(instruction.job_id, instruction.index)
        elif isinstance(instruction, ins.FinishJob):
            self._finish(instruction)

    def _send_lease(self, lease: ins.SendLease) -> None:
        if lease.participant_id == MASTER_ID:
            self._own_work.start(self._jobs[lease.job_id], lease)
            return
        self._background.spawn(self._send_lease_now(self._jobs[lease.job_id], lease))

    async def _send_lease_now(self, run: JobRun, lease: ins.SendLease) -> None:
        """A lease that cannot be sent ends the item; a link that is lost meanwhile is told by `on_state`."""
        try:
            worker_id = lease.participant_id
            capabilities, precision = self.participants.capabilities(worker_id), self.participants.precision(worker_id)
            await self._pool.send(worker_id, run.lease(lease.index, lease.attempt, capabilities, precision))
        except LinkLost:
            return
        except Exception as error:
            log.warning("an item could not be sent", job=lease.job_id, worker=lease.participant_id, error=error)
            failure = Failure(kind="plan", message=str(error), participant_id=lease.participant_id)
            self._feed(
                ev.ItemFailed(lease.job_id, lease.index, lease.attempt, lease.participant_id, failure, retry=False)
            )

    def _show_item(self, job_id: str, index: int) -> None:
        run = self._jobs[job_id]
        item = run.item(index)
        stage = run.stages.get(item.node_id)
        seen = self._machine.item(job_id, index)
        if stage is not None and seen is not None:
            stage.show(item.k, seen.fraction, done=seen.state == ItemState.DONE.value)

    def _finish(self, order: ins.FinishJob) -> None:
        run = self._jobs[order.job_id]
        run.ended_s = self._clock.wall_s()
        error = ending_error(order, self.participants.name)
        for task in list(run.fetching.values()):
            task.cancel()
        for stage in run.stages.values():
            stage.finish(error)
        log.info("job ended", job=run.job_id, state=order.state.value, reason=error.message if error else "complete")
        self._active.discard(run.job_id)
        if run.job_id in self._waiting:
            self._waiting.remove(run.job_id)
        if order.state == JobState.DROPPED:
            run.release_memory()
            del self._jobs[run.job_id]
            self._machine.forget(run.job_id)
        self._forget_oldest()
        self._call_soon(self._activate_waiting)

    # House-keeping

    def _activate_waiting(self) -> None:
        ahead = self._registry.settings().queue_ahead
        while self._waiting and len(self._active) < 1 + ahead:
            self._activate(self._jobs[self._waiting.popleft()])

    def _activate(self, run: JobRun) -> None:
        self._active.add(run.job_id)
        self._feed(ev.JobAccepted(run.job_id))

    def _forget_oldest(self) -> None:
        ended = [run.job_id for run in self._jobs.values() if run.ended_s is not None and not run.stages]
        for job_id in ended[: max(0, len(ended) - REMEMBERED_JOBS)]:
            del self._jobs[job_id]
            self._machine.forget(job_id)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline_s = self._machine.next_deadline_s()
        if deadline_s is not None:
            delay_s = max(0.0, deadline_s - self._clock.now_s())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._feed, ev.TimePassed())

    async def close(self) -> None:
        """Ends every job and every task."""
        for run in self.runs():
            self.cancel(run.job_id, "the server stops")
        await self._transfers.close()
        await self._background.close()
