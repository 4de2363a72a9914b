"""The worker's side: takes leases from masters, queues them on this host, and keeps results until they are released.

Everything here runs on the server's loop, except `deliver`, `input_values` and `prepared`, which nodes call in the
prompt thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

from ..graph.preflight import Capabilities
from ..host.records import HostQueue, MakeWatch, ProgressSnapshot, Refused
from ..relay.previews import PreviewSource
from ..transport.samehost import write_nonce
from ..transport.spool import Spool
from ..transport.uses import Adopted, StoredBlob
from ..transport.values import Value
from ..utils.background import Background
from ..utils.clock import Clock
from ..utils.errors import JobCancelled, LinkLost
from ..utils.log import get_logger
from ..workers import messages as m
from ..workers.link import Link
from ..workers.tokens import verify
from .followers import PROGRESS_EVERY_S, CountsReporter, failure_report, outcome_of, refusal_reason, report_progress
from .held import HeldResults, note_of, read_note
from .inputs import Inputs, one_off_inputs
from .preparations import Preparations
from .session import DELIVERED, ENDED, Arrival, Key, MasterSession, WorkItem

log = get_logger("agent")

ORPHAN_AFTER_S = 60.0
"""A master that stays away for so long has its items stopped. Finished results wait longer, see `Spool.keep_s`."""
TIDY_EVERY_S = 60.0


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
        previews: PreviewSource,
        home_id: str,
    ) -> None:
        """``home_id`` is this instance's own."""
        self._queue = queue
        self._spool = spool
        self._clock = clock
        self._call_soon = call_soon
        self._read_capabilities = read_capabilities
        self._progress_of = progress_of
        self._previews = previews
        self._home_id = home_id
        self._sessions: dict[str, MasterSession] = {}
        self._by_prompt: dict[str, WorkItem] = {}
        self._leaving: set[str] = set()  # prompts of ours that the host has not quite let go of
        self._held = HeldResults(spool)
        self._inputs = Inputs(spool)
        self._counts = CountsReporter(self.queue_counts)
        self._preparations = Preparations(queue, call_soon, self._preparations_changed)
        self._tidied_s = clock.now_s()
        self._background = Background("agent")
        self.watch = make_watch(
            lambda prompt_id: call_soon(self._prompt_started, prompt_id),
            lambda prompt_id: call_soon(self._prompt_ended, prompt_id),
        )

    async def serve(self, link: Link) -> None:
        """Serves the master at the other end until the link is lost. Never raises for what the master does."""
        self._tidy()
        session = self._session(link.peer.home_id)
        session.links.append(link)
        log.info("a master is linked", master=link.peer.name, instance=link.peer.instance_id)
        reporter = asyncio.create_task(self._counts.run(link))
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

    def adopt(self, adopted: Iterable[Adopted]) -> None:
        """Takes the results that an earlier process of this home has left, and offers them to their masters when these
        are linked. Those that it had computed as a master are not the agent's and are passed over."""
        told = []
        for one in adopted:
            read = read_note(one)
            if read is None:
                log.warning("a result with an unknown note was dropped", hash=one.blob.manifest.hash)
                self._held.drop(one.blob)
            elif read[0] != self._home_id:
                home_id, key, seconds = read
                session = self._session(home_id)
                told.append((session, self._held.add(session, key, one.blob, seconds)))
        for session, result in told:
            if session.links:
                self._background.spawn(_send(session, result.report))

    def authorise(self, header: str | None, method: str, path: str) -> MasterSession:
        """Checks the token of a blob request against the links of masters: whose it is. Raises NotAllowed."""
        linked = {link.session.id: (session, link) for session in self._sessions.values() for link in session.links}

        def key_of(session_id: str) -> tuple[bytes, float] | None:
            if session_id not in linked:
                return None
            link = linked[session_id][1]
            return link.session.key, self._clock.now_s() - link.began_s

        return linked[verify(header, key_of, method, path)][0]

    async def receive_input(
        self, session: MasterSession, arrival: Arrival, size_bytes: int, pieces: AsyncIterator[list[bytes]]
    ) -> bool:
        """Takes an input that a master sends, see `Inputs.receive`."""
        return await self._inputs.receive(session, arrival, size_bytes, pieces)

    def input_values(self, prompt_id: str, blob_hash: str) -> dict[str, Value]:
        """Called by nodes in the prompt thread, see `context.input_values`."""
        work = self._by_prompt.get(prompt_id) or self._preparations.find(prompt_id)
        if work is None:
            raise RuntimeError("this prompt is nothing that a master has sent to this worker")
        if isinstance(work, WorkItem) and work.state == ENDED:
            raise JobCancelled("The master does not want this item any more.")
        return self._inputs.values(work.session, work.job_id, blob_hash)

    def prepared(self, prompt_id: str, facts: Mapping[str, Any]) -> None:
        """Called by a node in the prompt thread, see `context.prepared`."""
        self._preparations.prepared(prompt_id, facts)

    def deliver(self, prompt_id: str, values: Mapping[str, Value]) -> None:
        """Called by the Deliver node, in the prompt thread: spools the item's values and announces them."""
        item = self._by_prompt.get(prompt_id)
        if item is None:
            raise RuntimeError("this prompt is not an item that a master has leased to this worker")
        if item.state == ENDED:
            raise JobCancelled("The master does not want this item any more.")
        item.state = DELIVERED
        now_s = self._clock.now_s()
        seconds = max(0.0, now_s - (now_s if item.started_s is None else item.started_s))
        note = note_of(item.session.home_id, item.key, seconds, self._clock.wall_s())
        stored = self._spool.write(values, item.precision, note)
        self._call_soon(self._delivered, item, stored, seconds)

    def queue_counts(self) -> m.Status:
        """Prompts running and waiting here, and how many of them are ours."""
        running, waiting = self._queue.live()
        self._leaving &= {*running, *waiting}
        ours = sum(1 for prompt_id in running + waiting if self._is_ours(prompt_id))
        if self._clock.now_s() - self._tidied_s > TIDY_EVERY_S:
            self._tidy()
        return m.Status(running=len(running), pending=len(waiting), ours=ours)

    def _is_ours(self, prompt_id: str) -> bool:
        known = prompt_id in self._by_prompt or prompt_id in self._leaving
        return known or self._preparations.find(prompt_id) is not None

    async def close(self) -> None:
        """Stops every item and every task. Finished results stay in the spool."""
        for item in list(self._by_prompt.values()):
            self._queue.cancel(item.prompt_id)
        await self._preparations.close()
        await self._background.close()
        await self._held.close()
        await self._inputs.close()

    # What a master says

    def _session(self, home_id: str) -> MasterSession:
        session = self._sessions.get(home_id)
        if session is None:
            session = self._sessions[home_id] = MasterSession(home_id, lost_since_s=self._clock.now_s())
        return session

    def _handle(self, session: MasterSession, message: m.Message) -> None:
        if isinstance(message, m.Lease):
            self._background.spawn(self._take(session, message))
        elif isinstance(message, m.Stop):
            self._stop(session, (message.job_id, message.index, message.attempt))
        elif isinstance(message, m.Keep):
            self._held.loosen(session, (message.job_id, message.index, message.attempt))
        elif isinstance(message, m.Release):
            self._held.release(session, (message.job_id, message.index, message.attempt))
        elif isinstance(message, m.Prepare):
            self._background.spawn(self._prepare(session, message))
        elif isinstance(message, m.JobOver):
            self._preparations.drop(session, message.job_id)
            self._inputs.drop_job(session, message.job_id)
        elif isinstance(message, m.AskCapabilities):
            self._background.spawn(self._send_capabilities(session))
        else:
            log.debug("an unexpected message", kind=message.type)

    async def _take(self, session: MasterSession, lease: m.Lease) -> None:
        key = (lease.job_id, lease.index, lease.attempt)
        if key in session.results:  # a restarted master may not know that it has leased this before
            await session.send(session.results[key].report)
            return
        if key in session.items:
            await session.tell(session.items[key])
            return
        item = WorkItem(session, *key, prompt_id=lease.prompt_id, precision=lease.precision, prompt=lease.prompt)
        item.inputs = one_off_inputs(lease.prompt)
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
            refused = m.LeaseRefused(**item.address, reason=refusal_reason(answer), node_errors=answer.node_errors)
            await session.send(refused)
            return
        if item.state == ENDED:  # stopped while the host was validating it
            self._queue.cancel(lease.prompt_id)
            return
        self._counts.changed()
        await session.send(m.LeaseAccepted(**item.address))
        self._background.spawn(self._follow(item))

    async def _prepare(self, session: MasterSession, order: m.Prepare) -> None:
        self.watch.hold()
        await self._preparations.take(session, order)
        self._let_go_if_idle()

    def _stop(self, session: MasterSession, key: Key) -> None:
        """Ends an item that waits or runs. One that has its result stays: the master hears of it, and releases it."""
        item = session.items.get(key)
        if item is not None:
            item.state = ENDED
            self._queue.cancel(item.prompt_id)
            self._forget(item)

    # What the host does

    def _prompt_started(self, prompt_id: str) -> None:
        item = self._by_prompt.get(prompt_id)
        self._counts.changed()
        if item is not None and item.started_s is None:
            item.started_s = self._clock.now_s()
            self._background.spawn(_send(item.session, m.ItemStarted(**item.address)))
            self._background.spawn(report_progress(item, self._progress_of, self._previews))

    def _prompt_ended(self, prompt_id: str) -> None:
        self._counts.changed()
        self._preparations.ended(prompt_id)
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

    def _delivered(self, item: WorkItem, stored: StoredBlob, seconds: float) -> None:
        if item.state == ENDED:  # stopped while the result was being written
            self._held.drop(stored)
            return
        item.has_result = True
        item.session.items.pop(item.key, None)
        result = self._held.add(item.session, item.key, stored, seconds)
        self._background.spawn(_send(item.session, result.report))

    async def _conclude(self, item: WorkItem) -> None:
        """The item's prompt is over: if it delivered nothing, tells why."""
        if item.concluded:
            return
        item.concluded = True
        outcome = await outcome_of(self._queue, item.prompt_id)
        await asyncio.sleep(0)  # a delivery of the last moment is waiting in the loop
        if not item.has_result and item.state != ENDED:
            item.state = ENDED
            item.report = failure_report(item, outcome)
            await item.session.tell_failure(item)
        self._leaving.add(item.prompt_id)
        self._by_prompt.pop(item.prompt_id, None)
        self._drop_inputs(item)
        self._counts.changed()
        self._let_go_if_idle()

    # What we tell

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
        """The master has no link any more: what waits or runs for it is stopped if it stays away."""
        lost_since_s = session.lost_since_s
        await asyncio.sleep(ORPHAN_AFTER_S)
        if not session.links and session.lost_since_s == lost_since_s:
            for key in list(session.items):
                self._stop(session, key)
            self._drop_prepared(session)
            self._tidy()

    def _tidy(self) -> None:
        """Forgets results that the spool no longer has, and masters that are gone and for whom nothing is held."""
        now_s = self._tidied_s = self._clock.now_s()
        for session in list(self._sessions.values()):
            self._held.prune(session)
            is_gone = not session.links and now_s - session.lost_since_s >= ORPHAN_AFTER_S
            if is_gone and not session.items:  # an input may have come after the rest was dropped
                self._drop_prepared(session)
            if is_gone and session.is_empty:
                del self._sessions[session.home_id]

    def _drop_prepared(self, session: MasterSession) -> None:
        self._preparations.drop_all(session)
        self._inputs.drop_all(session)

    def _drop_inputs(self, item: WorkItem) -> None:
        """The item needs what was sent for it alone no more; another one may have been sent the same."""
        named, item.inputs = item.inputs, frozenset()
        others = [other.inputs for other in self._by_prompt.values() if other.session is item.session]
        self._inputs.drop(item.session, item.job_id, named, frozenset().union(*others))

    def _forget(self, item: WorkItem) -> None:
        item.state = ENDED
        item.session.items.pop(item.key, None)
        if self._by_prompt.get(item.prompt_id) is item and item.prompt_id not in self._queue.live()[0]:
            del self._by_prompt[item.prompt_id]
        self._drop_inputs(item)
        self._let_go_if_idle()

    def _preparations_changed(self) -> None:
        self._counts.changed()
        self._let_go_if_idle()

    def _let_go_if_idle(self) -> None:
        if not self._by_prompt and self._preparations.is_idle:
            self.watch.let_go()


async def _send(session: MasterSession, message: m.Message) -> None:
    await session.send(message)
