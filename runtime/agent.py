"""The worker's side: takes leases from masters, queues them on this host, and keeps results until they are fetched.

Everything here runs on the server's loop, except `deliver`, which a node calls in the prompt thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from ..graph.preflight import Capabilities
from ..host.records import HostQueue, MakeWatch, Outcome, ProgressSnapshot, Refused
from ..transport.manifest import BlobManifest
from ..transport.samehost import write_nonce
from ..transport.spool import Spool
from ..transport.values import Value
from ..utils.background import Background
from ..utils.clock import Clock
from ..utils.errors import JobCancelled, LinkLost, SpoolFull
from ..utils.log import get_logger
from ..workers import messages as m
from ..workers.link import Link
from ..workers.tokens import verify
from .session import DELIVERED, ENDED, MasterSession, WorkItem

log = get_logger("agent")

PROGRESS_EVERY_S = 0.25
STATUS_EVERY_S = 2.0
OUTCOME_EVERY_S = 0.02
ORPHAN_AFTER_S = 60.0
"""A master that stays away for so long has its items stopped and their results dropped."""

FAILURE_KINDS = {
    "OutOfMemoryError": "out_of_memory",
    "OOM_EXCEPTION": "out_of_memory",
    "MemoryError": "out_of_memory",
    SpoolFull.__name__: SpoolFull.code,
}
"""Exceptions, by the last part of their name, that are a kind of failure of their own."""

NO_RESULT = "The workflow ended on the worker without a result at the collector (was a branch blocked or muted?)."


class Agent:
    """One per instance; serves any number of masters."""

    def __init__(
        self,
        *,
        queue: HostQueue,
        spool: Spool,
        clock: Clock,
        call_soon: Callable[..., None],
        make_watch: MakeWatch,
        read_capabilities: Callable[[], Any],
        progress_of: Callable[[str], ProgressSnapshot | None],
    ) -> None:
        self._queue = queue
        self._spool = spool
        self._clock = clock
        self._call_soon = call_soon
        self._read_capabilities = read_capabilities
        self._progress_of = progress_of
        self._sessions: dict[str, MasterSession] = {}
        self._by_prompt: dict[str, WorkItem] = {}
        self._leaving: set[str] = set()  # prompts of ours that the host has not quite let go of
        self._reporters: set[asyncio.Event] = set()
        self._background = Background("agent")
        self.watch = make_watch(
            lambda prompt_id: call_soon(self._prompt_started, prompt_id),
            lambda prompt_id: call_soon(self._prompt_ended, prompt_id),
        )

    async def serve(self, link: Link) -> None:
        """Serves the master at the other end until the link is lost. Never raises for what the master does."""
        session = self._sessions.get(link.peer.instance_id)
        if session is None:
            session = self._sessions[link.peer.instance_id] = MasterSession(link.peer.instance_id)
        session.links.append(link)
        log.info("a master is linked", master=link.peer.name, instance=link.peer.instance_id)
        reporter = asyncio.create_task(self._report_counts(link))
        try:
            await link.send(await self._spool_offer())
            await link.send(await self._capabilities())
            await session.resend()
            while True:
                self._handle(session, await link.receive())
        except LinkLost as lost:
            log.info("a master's link ended", master=link.peer.name, reason=lost.message)
        except OSError:
            log.exception("a master could not be served", master=link.peer.name)
        finally:
            reporter.cancel()
            session.links.remove(link)
            session.lost_since_s = self._clock.now_s()
            self._background.spawn(session.resend() if session.links else self._expire(session))

    def authorise(self, header: str | None, method: str, path: str) -> None:
        """Checks the token of a blob request against the links of masters. Raises NotAllowed."""
        verify(header, self._session_key, method, path)

    def _session_key(self, session_id: str) -> tuple[bytes, float] | None:
        for session in self._sessions.values():
            for link in session.links:
                if link.session.id == session_id:
                    return link.session.key, self._clock.now_s() - link.began_s
        return None

    def deliver(self, prompt_id: str, values: Mapping[str, Value]) -> None:
        """Called by the Deliver node, in the prompt thread: spools the item's values and announces them."""
        item = self._by_prompt.get(prompt_id)
        if item is None:
            raise RuntimeError("this prompt is not an item that a master has leased to this worker")
        if item.state == ENDED:
            raise JobCancelled("The master does not want this item any more.")
        item.state = DELIVERED
        stored = self._spool.write(values, item.precision)
        self._call_soon(self._delivered, item, stored.manifest)

    def queue_counts(self) -> m.Status:
        """Prompts running and waiting here, and how many of them are ours."""
        running, waiting = self._queue.live()
        self._leaving &= {*running, *waiting}
        ours = sum(1 for prompt_id in running + waiting if prompt_id in self._by_prompt or prompt_id in self._leaving)
        return m.Status(running=len(running), pending=len(waiting), ours=ours)

    async def close(self) -> None:
        """Stops every item and every task."""
        for item in list(self._by_prompt.values()):
            self._queue.cancel(item.prompt_id)
        await self._background.close()

    # What a master says

    def _handle(self, session: MasterSession, message: m.Message) -> None:
        if isinstance(message, m.Lease):
            self._background.spawn(self._take(session, message))
        elif isinstance(message, m.Stop):
            self._stop(session, (message.job_id, message.index, message.attempt))
        elif isinstance(message, m.Release):
            self._release(session, (message.job_id, message.index, message.attempt))
        elif isinstance(message, m.AskCapabilities):
            self._background.spawn(self._send_capabilities(session))
        else:
            log.debug("an unexpected message", kind=message.type)

    async def _take(self, session: MasterSession, lease: m.Lease) -> None:
        key = (lease.job_id, lease.index, lease.attempt)
        if key in session.items:
            return
        item = WorkItem(session, *key, prompt_id=lease.prompt_id, precision=lease.precision, nodes=len(lease.prompt))
        session.items[key] = item
        self._by_prompt[lease.prompt_id] = item
        self.watch.hold()
        try:
            answer = await self._queue.submit(lease.prompt, lease.prompt_id, lease.extra_data)
        except Exception as error:
            log.exception("the host could not validate an item", job=lease.job_id)
            answer = Refused({"message": f"{type(error).__name__}: {error}"}, {})
        if isinstance(answer, Refused):
            self._forget(item)
            reason = " ".join(str(answer.error.get(part) or "") for part in ("message", "details")).strip()
            await session.send(m.LeaseRefused(**item.address, reason=reason, node_errors=answer.node_errors))
            return
        if item.state == ENDED:  # stopped while the host was validating it
            self._queue.cancel(lease.prompt_id)
            return
        self._tell_counts()
        await session.send(m.LeaseAccepted(**item.address))
        self._background.spawn(self._follow(item))

    def _stop(self, session: MasterSession, key: tuple[str, int, int]) -> None:
        item = session.items.get(key)
        if item is not None:
            item.state = ENDED
            self._queue.cancel(item.prompt_id)
            self._drop_result(item)
            self._forget(item)

    def _release(self, session: MasterSession, key: tuple[str, int, int]) -> None:
        item = session.items.get(key)
        if item is not None:
            self._drop_result(item)
            self._forget(item)

    # What the host does

    def _prompt_started(self, prompt_id: str) -> None:
        item = self._by_prompt.get(prompt_id)
        self._tell_counts()
        if item is not None and item.started_s is None:
            item.started_s = self._clock.now_s()
            self._background.spawn(item.session.send(m.ItemStarted(**item.address)))
            self._background.spawn(self._report_progress(item))

    def _prompt_ended(self, prompt_id: str) -> None:
        self._tell_counts()
        item = self._by_prompt.get(prompt_id)
        if item is not None:
            self._background.spawn(self._conclude(item))

    async def _follow(self, item: WorkItem) -> None:
        """Notices what no hook tells: that somebody took the prompt out of the queue, and all on a host without a hook."""
        while not item.concluded:
            running, waiting = self._queue.live()
            if item.prompt_id in running:
                if not self.watch.available:
                    self._prompt_started(item.prompt_id)
            elif item.prompt_id not in waiting:
                await self._conclude(item)
                return
            await asyncio.sleep(PROGRESS_EVERY_S)

    def _delivered(self, item: WorkItem, manifest: BlobManifest) -> None:
        item.manifest = manifest
        if item.state == ENDED:  # stopped while the result was being written
            self._drop_result(item)
            return
        now_s = self._clock.now_s()
        seconds = max(0.0, now_s - (now_s if item.started_s is None else item.started_s))
        item.report = m.ItemFinished(**item.address, manifest=manifest.to_wire(), seconds=seconds)
        self._background.spawn(item.session.send(item.report))

    async def _conclude(self, item: WorkItem) -> None:
        """The item's prompt is over: if it delivered nothing, tells why."""
        if item.concluded:
            return
        item.concluded = True
        outcome = await self._outcome(item.prompt_id)
        await asyncio.sleep(0)  # a delivery of the last moment is waiting in the loop
        if item.report is None and item.state != ENDED:
            item.state = ENDED
            item.report = _failure(item, outcome)
            await item.session.send(item.report)
            self._forget(item)
        self._leaving.add(item.prompt_id)
        self._by_prompt.pop(item.prompt_id, None)
        self._tell_counts()
        self._let_go_if_idle()

    async def _outcome(self, prompt_id: str) -> Outcome | None:
        """How the prompt ended; None if it never ran. The host writes it down when it lets go of the prompt."""
        while True:
            running, _ = self._queue.live()
            outcome = self._queue.outcome(prompt_id)
            if outcome is not None or prompt_id not in running:
                return outcome
            await asyncio.sleep(OUTCOME_EVERY_S)

    # What we tell

    async def _report_progress(self, item: WorkItem) -> None:
        told = -1.0
        while item.state not in (DELIVERED, ENDED):
            seen = self._progress_of(item.prompt_id)
            if seen is not None:
                part = (seen.finished_nodes + seen.value / seen.maximum) / max(item.nodes, seen.finished_nodes + 1)
                if part > told:
                    told = part
                    await item.session.send(
                        m.ItemProgress(**item.address, fraction=min(part, 1.0), node_id=seen.node_id, label="")
                    )
            await asyncio.sleep(PROGRESS_EVERY_S)

    def _tell_counts(self) -> None:
        for reporter in self._reporters:
            reporter.set()

    async def _report_counts(self, link: Link) -> None:
        """Tells the queue's counts when they change: ours at once, those of others within `STATUS_EVERY_S`."""
        told: m.Status | None = None
        changed = asyncio.Event()
        self._reporters.add(changed)
        try:
            while True:
                changed.clear()
                counts = self.queue_counts()
                if counts != told:
                    told = counts
                    await link.send(counts)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(changed.wait(), STATUS_EVERY_S)
        except LinkLost:
            return  # whoever reads the link hears of it
        finally:
            self._reporters.discard(changed)

    async def _spool_offer(self) -> m.SpoolOffer:
        offers = [await asyncio.to_thread(write_nonce, folder) for folder in self._spool.folders]
        return m.SpoolOffer(places=[m.SpoolPlace(nonce_path=offer.path, digest=offer.digest) for offer in offers])

    async def _capabilities(self) -> m.Capabilities:
        classes, options = await self._read_capabilities()
        return m.Capabilities(data=Capabilities(classes=classes, options=options).to_wire())

    async def _send_capabilities(self, session: MasterSession) -> None:
        await session.send(await self._capabilities())

    # House-keeping

    async def _expire(self, session: MasterSession) -> None:
        lost_since_s = session.lost_since_s
        await asyncio.sleep(ORPHAN_AFTER_S)
        was_back = session.lost_since_s != lost_since_s
        if not session.links and not was_back and self._sessions.get(session.instance_id) is session:
            del self._sessions[session.instance_id]
            for key in list(session.items):
                self._stop(session, key)

    def _drop_result(self, item: WorkItem) -> None:
        if item.manifest is not None:
            manifest, item.manifest = item.manifest, None
            self._spool.release(manifest.hash)

    def _forget(self, item: WorkItem) -> None:
        item.state = ENDED
        item.session.items.pop(item.key, None)
        if self._by_prompt.get(item.prompt_id) is item and item.prompt_id not in self._queue.live()[0]:
            del self._by_prompt[item.prompt_id]
        self._let_go_if_idle()

    def _let_go_if_idle(self) -> None:
        if not self._by_prompt:
            self.watch.let_go()


def _failure(item: WorkItem, outcome: Outcome | None) -> m.ItemFailed:
    kind, message = "no_result", NO_RESULT
    if outcome is None:
        kind, message = "removed", "Somebody removed the item from the worker's queue."
    elif outcome.status == "interrupted":
        kind, message = "interrupted", "Somebody interrupted the item on the worker."
    elif outcome.status == "error":
        kind, message = "exception", outcome.message or "The workflow failed on the worker."
        last_name = outcome.exception_type.rpartition(".")[2]
        kind = FAILURE_KINDS.get(last_name, kind)
    return m.ItemFailed(
        **item.address,
        kind=kind,
        message=message,
        exception_type=outcome.exception_type if outcome else "",
        traceback=list(outcome.traceback) if outcome else [],
        node_id=outcome.node_id if outcome else "",
        node_type=outcome.node_type if outcome else "",
        retry=kind != "no_result",
    )
