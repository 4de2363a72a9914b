"""The master's side: makes jobs of prompts, feeds the state machine, carries its instructions out.

Everything here runs on the server's loop, except what a `StageRun` passes on from the prompt thread.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from ..graph.model_side import OutputTypes
from ..graph.plan import JobPlan, StagePlan
from ..host.records import HostQueue, HostScreen, MakeWatch, Outcome
from ..jobs import events as ev
from ..jobs import instructions as ins
from ..jobs.machine import Machine
from ..jobs.model import JobState
from ..jobs.selection import choose_route
from ..jobs.view import JobView, ParticipantView
from ..relay.relay import Relay
from ..storage.journal import Journal
from ..transport.memory import Reserve
from ..transport.spool import Spool
from ..transport.uses import Adopted
from ..utils.background import Background
from ..utils.clock import Clock
from ..utils.errors import Conflict, JobCancelled, NotFound
from ..utils.log import get_logger
from ..workers import messages as m
from ..workers.entries import MASTER_ID
from ..workers.pool import WorkerPool
from ..workers.registry import WorkerRegistry
from .births import join, may_join, planned
from .bridge import NodeBridge, NodeCalls
from .carrier import Carrier
from .display import Display
from .inbox import WorkerInbox
from .jobrun import JobRun
from .own_results import OwnResults
from .own_work import OwnWork
from .participants import ParticipantBook
from .planner import Planner
from .prompts import PromptFollower
from .pushes import InputPusher
from .recorder import Recorder
from .results import ResultFetcher
from .revival import Revival
from .shelf import Kept, Shelf
from .stage import StageRun
from .strangers import RESUMABLE, Strangers
from .tile_desk import TileDesk
from .transfers import Transfers
from .turns import Turns
from .wishes import Wishes
from .wording import prompt_failure

log = get_logger("coordinator")

REMEMBERED_JOBS = 200
REMEMBERED_ITEMS = 50_000
"""Ended jobs are held in memory up to so many, and up to so many items in all; the journal knows the others."""
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
        journal: Journal,
        screen: HostScreen,
        own_results: OwnResults,
        home_id: str,
        spool: Spool,
        pusher: InputPusher,
        output_types: OutputTypes,
        reserve: Reserve | None = None,
        own_choices: Callable[[Iterable[str]], tuple[frozenset[str], dict[str, dict[str, tuple[str, ...]]]]],
    ) -> None:
        self._registry = registry
        self._pool = pool
        self._queue = queue
        self._clock = clock
        self._call_soon = call_soon
        self._reserve = reserve
        self._machine = Machine()
        self._jobs: OrderedDict[str, JobRun] = OrderedDict()
        self._turns = Turns(lambda: registry.settings().queue_ahead, self._begin)
        self._background = Background("coordinator")
        self._timer: asyncio.TimerHandle | None = None
        self.participants = ParticipantBook(registry, pool, own_choices)
        recorder = Recorder(journal, home_id, self.participants.name)
        relay = Relay(screen, clock, self.participants.name)
        self._display = Display(recorder, relay, self.participants)
        self._planner = Planner(registry, self.participants, clock, self._machine.load, choose_route, output_types)
        self._tiles = TileDesk(
            pool=pool,
            registry=registry,
            pusher=pusher,
            spool=spool,
            own_results=own_results,
            clock=clock,
            relay=relay,
            feed=self._feed,
            call_soon=call_soon,
            added=lambda run, indices: self._display.items_added(run, self.view(run.job_id), indices),
            fitted=self.participants.fitted,
        )
        self._own_results = own_results
        self._own_work = OwnWork(self.participants, own_results, clock, lambda event: call_soon(self._feed, event))
        transfers = Transfers(fetcher, registry, pool, self._feed)
        self._carrier = Carrier(pool, self.participants, self._own_work, transfers, self._tiles, self._feed)
        self.strangers = Strangers(Shelf(), journal, pool, own_results)
        self.revival = Revival(
            self,
            journal=journal,
            planner=self._planner,
            queue=queue,
            registry=registry,
            strangers=self.strangers,
            is_linked=lambda worker_id: pool.link(worker_id) is not None,
            clock=clock,
        )
        self.inbox = WorkerInbox(
            registry=registry,
            pool=pool,
            fetcher=fetcher,
            participants=self.participants,
            strangers=self.strangers,
            background=self._background,
            feed=self._feed,
            run_of=self._jobs.get,
            preview=self._display.preview,
            removed=self._display.participant_removed,
            tiles=self._tiles,
            capable=self._join,
        )
        self._prompts = PromptFollower(
            queue, make_watch, call_soon, self._unfinished, self.prompt_started, self.prompt_ended
        )
        self._feed(ev.ParticipantOnline(MASTER_ID, slots=MASTER_SLOTS, takes_unpinned=False))

    def adopt(self, found: Iterable[Adopted]) -> None:
        """Takes over what an earlier process of this server has computed and kept."""
        for job_id, kept in self._own_results.adopt(found):
            self.strangers.put(job_id, kept)

    # Jobs are born

    def plan(self, json_data: dict[str, Any], wishes: Wishes) -> JobRun | None:
        """Makes a job of a posted prompt, if it is to be distributed; fixes its prompt id in ``json_data``.

        Raises InvalidPrompt and NobodyCanRun. Pure but for the job it registers; no network, no disk.
        """
        run = self._planner.make(json_data, wishes)
        if run is None:
            return None
        if run.job_id in self._jobs:
            raise Conflict("A job with this prompt id exists already.", cure="Leave prompt_id out, or send a new UUID.")
        self.register(run)
        return run

    def register(self, run: JobRun) -> None:
        """The job exists from now on; work on it starts when it is accepted."""
        job_id, plan = run.job_id, run.plan
        for stage in plan.stages:
            run.stages[stage.node_id] = self._stage_run(run, stage)
        self._jobs[job_id] = run
        self._prompts.watch()
        for participant_id in plan.left_out:
            if self._pool.link(participant_id) is not None:  # so that what was installed since counts next time
                self._background.spawn(self._pool.send(participant_id, m.AskCapabilities()))
        self._feed(planned(run, self._registry.settings()))

    def offer(self, run: JobRun, kept: Kept) -> None:
        """A result of an earlier life of the job is at hand."""
        if self._tiles.takes(run, kept):
            return
        run.note_offer(kept)
        self._feed(ev.ItemFinished(run.job_id, kept.index, kept.attempt, kept.participant_id, kept.manifest))

    def _stage_run(self, run: JobRun, stage: StagePlan) -> NodeBridge:
        job_id = run.job_id
        asked = ev.ItemAsked(job_id, stage.number, MASTER_ID)
        said = NodeCalls(
            delivered=lambda index, attempt, values: self._call_soon(self._own_work.done, run, index, attempt, values),
            abandoned=lambda: self._call_soon(self.cancel, job_id, "the node was interrupted"),
            asks=lambda: self._call_soon(self._feed, asked),
        )
        if stage.way == "tiles":
            return self._tiles.stage(run, stage, said)
        salt = run.salt(stage.on_failure)
        return StageRun(run.plan, stage, said, self.participants.precision, reserve=self._reserve, salt=salt)

    def accept(self, job_id: str) -> None:
        """The host has queued the job's prompt."""
        run = self._jobs.get(job_id)
        if run is None or run.accepted_s is not None or run.ended_s is not None:
            return
        run.accepted_s = self._clock.wall_s()
        log.info("job accepted", job=job_id, items=len(run.plan.items), participants=len(run.plan.participants))
        for participant, reason in run.plan.left_out.items():
            log.warning("left out of a job", job=job_id, participant=participant, reason=reason)
        self._display.accepted(run, self.view(job_id))
        self._turns.add(job_id)

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

    def is_ending(self, job_id: str) -> bool:
        """Whether the job has ended and its prompt has not."""
        run = self._jobs.get(job_id)
        return run is not None and run.ended_s is not None and bool(run.stages)

    def set_aside(self, job_id: str) -> list[Kept]:
        """Forgets an ended job and returns the results held for it. Raises Conflict while it, or its prompt, runs."""
        run = self._jobs.get(job_id)
        if run is None:
            return []
        if run.ended_s is None or self.is_ending(job_id):
            raise Conflict(f"Job {job_id} still runs.", cure="Wait for its end, or cancel it.")
        self._forget(job_id)
        return [*run.kept.values(), *self._own_results.of(job_id)]

    def _join(self, worker_id: str) -> None:
        """A worker has told what it can run: jobs that were planned without it may give it items."""
        capabilities = self.participants.capabilities(worker_id)
        for run in self._unfinished():
            if capabilities is not None and may_join(run, worker_id, capabilities):
                self._feed(join(run, worker_id))
                self._display.joined(run, self.view(run.job_id))

    # What nodes ask

    def stage_of(self, prompt_id: str, node_id: str) -> NodeBridge | None:
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
        """All jobs that are held in memory, the newest first."""
        return list(reversed(self._jobs.values()))

    def view(self, job_id: str) -> JobView:
        """How the job stands. Raises NotFound."""
        self.run(job_id)
        view = self._machine.job(job_id)
        if view is None:
            raise NotFound(f"Job {job_id} is no longer known.")
        return view

    def participant(self, participant_id: str) -> ParticipantView | None:
        """What the state machine knows of a participant: whether it rests, and why."""
        return self._machine.participant(participant_id)

    # What the host does with the master's own prompts

    def prompt_started(self, prompt_id: str) -> None:
        """The host begins to execute a prompt: if it is a job, its items start now at the latest."""
        run = self._jobs.get(prompt_id)
        if run is None or run.ended_s is not None:
            return
        self.accept(prompt_id)
        self._turns.take(prompt_id)
        self._own_work.prompt_started(run)
        self._tiles.prompt_started(run)

    def prompt_ended(self, prompt_id: str, outcome: Outcome | None) -> None:
        """The host is done with a prompt: if it is a job that is still open, nobody needs it any more."""
        run = self._jobs.get(prompt_id)
        if run is not None and run.stages:
            if outcome is not None and outcome.status == "interrupted":  # perhaps before any of its nodes was reached
                self.cancel(prompt_id, "its prompt was interrupted")
            self._feed(ev.PromptEnded(prompt_id, prompt_failure(outcome)))
            self._feed(ev.JobGathered(prompt_id))
            run.release_memory(resumable=JobState(self.view(prompt_id).state) in RESUMABLE)
            self._forget_oldest()

    def _unfinished(self) -> list[JobRun]:
        """Jobs whose prompts are the host's now, or are about to be."""
        return [run for run in self._jobs.values() if run.stages]

    # The machine's instructions

    def _feed(self, event: ev.Event) -> None:
        for instruction in self._machine.handle(event, self._clock.now_s()):
            self._carry_out(instruction)
        self._set_timer()

    def _carry_out(self, instruction: ins.Instruction) -> None:
        if isinstance(instruction, ins.ItemChanged):
            item = self._machine.item(instruction.job_id, instruction.index)
            if item is not None:
                self._display.item_changed(self._jobs[instruction.job_id], item)
        elif isinstance(instruction, ins.ParticipantChanged):
            seen = self._machine.participant(instruction.participant_id)
            if seen is not None:
                self._display.participant_changed(seen)
        elif isinstance(instruction, ins.FinishJob):
            self._finish(instruction)
        else:
            self._carrier.carry_out(self._jobs.get(instruction.job_id), instruction)

    def _finish(self, order: ins.FinishJob) -> None:
        run = self._jobs[order.job_id]
        run.ended_s = self._clock.wall_s()
        for task in list(run.fetching.values()):
            task.cancel()
        unseen = self._tiles.job_ended(run)
        self._turns.end(run.job_id)
        if order.state == JobState.DROPPED:
            run.release_memory(resumable=False)
            self._forget(run.job_id)
        else:
            self._display.ended(run, order, self.view(run.job_id))
            self.strangers.note(run.job_id, resumable=order.state in RESUMABLE)
        self.strangers.put_all(run.job_id, unseen)  # for another life, if there can be one
        self._call_soon(self._turns.go_on)

    # House-keeping

    def _begin(self, job_id: str) -> None:
        self._feed(ev.JobAccepted(job_id))
        self._display.started(self._jobs[job_id], self.view(job_id))

    def _forget_oldest(self) -> None:
        ended = [run for run in self._jobs.values() if run.ended_s is not None and not run.stages]
        items = sum(len(run.plan.items) for run in ended)
        while len(ended) > 1 and (len(ended) > REMEMBERED_JOBS or items > REMEMBERED_ITEMS):
            oldest = ended.pop(0)
            items -= len(oldest.plan.items)
            self.strangers.put_all(oldest.job_id, self.set_aside(oldest.job_id))  # the journal may begin it again

    def _forget(self, job_id: str) -> None:
        """Results stay where they are; whoever calls this has noted them, if they can be of use."""
        del self._jobs[job_id]
        self._feed(ev.JobForgotten(job_id, release=False))

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline_s = self._machine.next_deadline_s()
        if deadline_s is not None:
            delay_s = max(0.0, deadline_s - self._clock.now_s())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._feed, ev.TimePassed())

    async def close(self) -> None:
        """Ends every wait and every task. Jobs that run are left as they are: the journal has them begin again."""
        if self._timer is not None:
            self._timer.cancel()
        for run in self.runs():
            for stage in run.stages.values():
                stage.finish(JobCancelled("The server stops."))
        for part in (
            self._carrier,
            self._own_work,
            self._own_results,
            self.strangers,
            self._display,
            self._prompts,
            self._background,
        ):
            await part.close()
