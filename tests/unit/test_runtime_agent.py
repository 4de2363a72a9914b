"""The worker's agent: real spool, fake host, fake link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes.agents import ADDRESS, PROMPT_ID, WAIT_S, Worker, heard, image, lease, start_item, until
from flotilla.host.records import Outcome, Preview, ProgressSnapshot, Refused
from flotilla.runtime import agent as agent_module
from flotilla.runtime import followers
from flotilla.transport.manifest import BlobManifest
from flotilla.utils.errors import JobCancelled, NotAllowed
from flotilla.workers import messages as m
from flotilla.workers.tokens import issue
from PIL import Image


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    made = Worker(tmp_path)
    yield made
    await made.close()


async def test_a_link_begins_with_spool_and_capabilities(worker: Worker) -> None:
    master = worker.link()
    offer = await heard(master, m.SpoolOffer)
    assert [Path(place.nonce_path).parent for place in offer.places] == list(worker.spool.folders)
    told = await heard(master, m.Capabilities)
    assert told.data["classes"] == ["KSampler"]


async def test_an_item_is_queued_announced_and_kept_until_it_is_released(worker: Worker) -> None:
    master = worker.link()
    await start_item(worker, master)
    await asyncio.to_thread(worker.agent.deliver, PROMPT_ID, image())
    finished = await heard(master, m.ItemFinished)
    manifest = BlobManifest.from_wire(finished.manifest)
    assert worker.spool.open(manifest.hash).exists()
    worker.queue.end(PROMPT_ID)
    await master.send(m.Release(**ADDRESS))
    await until(lambda: worker.spool.usage().blobs == 0)
    await until(lambda: not worker.queue.watch.held)  # type: ignore[union-attr]


async def test_a_refused_prompt_is_told_with_the_hosts_words(worker: Worker) -> None:
    worker.queue.refuse = Refused({"message": "Node missing", "details": "Foo"}, {"1": {"errors": []}})
    master = worker.link()
    await master.send(lease())
    refused = await heard(master, m.LeaseRefused)
    assert refused.reason == "Node missing Foo"
    assert refused.node_errors == {"1": {"errors": []}}


async def test_a_failed_prompt_is_told_with_exception_and_node(worker: Worker) -> None:
    master = worker.link()
    await start_item(worker, master)
    worker.queue.end(PROMPT_ID, Outcome("error", "builtins.ValueError", "bad", ("line 1\n",), "7", "KSampler"))
    failed = await heard(master, m.ItemFailed)
    assert (failed.kind, failed.message, failed.exception_type) == ("exception", "bad", "builtins.ValueError")
    assert (failed.node_id, failed.node_type, failed.traceback) == ("7", "KSampler", ["line 1\n"])
    assert failed.retry


@pytest.mark.parametrize(
    ("outcome", "kind", "retry"),
    [
        (Outcome("success"), "no_result", False),
        (Outcome("interrupted"), "interrupted", True),
        (Outcome("error", "torch.OutOfMemoryError", "no memory"), "out_of_memory", True),
        (Outcome("error", "SpoolFull", "no room"), "spool_full", True),
    ],
)
async def test_other_ways_to_end_without_a_result(worker: Worker, outcome: Outcome, kind: str, retry: bool) -> None:
    master = worker.link()
    await start_item(worker, master)
    worker.queue.end(PROMPT_ID, outcome)
    failed = await heard(master, m.ItemFailed)
    assert (failed.kind, failed.retry) == (kind, retry)


async def test_an_item_that_somebody_removes_from_the_queue_is_told(worker: Worker) -> None:
    master = worker.link()
    await master.send(lease())
    await heard(master, m.LeaseAccepted)
    worker.queue.waiting.clear()
    failed = await heard(master, m.ItemFailed)
    assert (failed.kind, failed.retry) == ("removed", True)
    await until(lambda: not worker.queue.watch.held)  # type: ignore[union-attr]


async def test_stop_cancels_a_waiting_and_a_running_item(worker: Worker) -> None:
    master = worker.link()
    await master.send(lease())
    await heard(master, m.LeaseAccepted)
    await master.send(m.Stop(**ADDRESS))
    await until(lambda: worker.queue.cancelled == [PROMPT_ID])
    await master.send(lease(attempt=2, prompt_id="second"))
    await heard(master, m.LeaseAccepted)
    worker.queue.start("second")
    await heard(master, m.ItemStarted)
    await master.send(m.Stop(**{**ADDRESS, "attempt": 2}))
    await until(lambda: worker.queue.live() == ([], []))
    await until(lambda: not worker.queue.watch.held)  # type: ignore[union-attr]


async def test_a_result_that_comes_after_stop_is_refused_and_not_kept(worker: Worker) -> None:
    master = worker.link()
    await start_item(worker, master)
    item = worker.agent._by_prompt[PROMPT_ID]
    worker.queue.running.remove(PROMPT_ID)  # the host is past the point where it looks for interrupts
    await master.send(m.Stop(**ADDRESS))
    await until(lambda: item.state == "ended")
    worker.agent._by_prompt[PROMPT_ID] = item
    with pytest.raises(JobCancelled):
        worker.agent.deliver(PROMPT_ID, image())
    assert worker.spool.usage().blobs == 0


async def test_a_result_is_announced_again_after_the_link_was_lost(worker: Worker) -> None:
    master = worker.link()
    await start_item(worker, master)
    await master.close("test")
    await asyncio.wait_for(worker.serving[0], WAIT_S)
    await asyncio.to_thread(worker.agent.deliver, PROMPT_ID, image())
    again = worker.link()
    finished = await heard(again, m.ItemFinished)
    assert (finished.job_id, finished.index, finished.attempt) == ("job", 1, 1)


async def test_items_of_a_master_that_stays_away_are_stopped(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "ORPHAN_AFTER_S", 0.0)
    master = worker.link()
    await start_item(worker, master)
    await master.close("test")
    await until(lambda: worker.queue.cancelled == [PROMPT_ID])
    assert worker.queue.live() == ([], [])


async def test_progress_of_the_running_item_is_told(worker: Worker) -> None:
    master = worker.link()
    worker.progress = ProgressSnapshot("1", 5.0, 10.0, 0)
    await start_item(worker, master)
    told = await heard(master, m.ItemProgress)
    assert (told.fraction, told.node_id, told.label) == (pytest.approx(0.5), "1", "FlotillaDeliver 5/10")


async def test_progress_goes_on_where_only_the_place_has_changed(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "PROGRESS_EVERY_S", 0.0)
    master = worker.link()
    worker.progress = ProgressSnapshot("1", 5.0, 10.0, 0)
    await start_item(worker, master)
    await heard(master, m.ItemProgress)
    worker.progress = ProgressSnapshot(
        "2", 1.0, 10.0, 0
    )  # a node that began anew: the item as a whole does not go back
    told = await heard(master, m.ItemProgress)
    assert (told.fraction, told.node_id) == (pytest.approx(0.5), "2")


async def test_previews_of_the_running_item_are_told(worker: Worker) -> None:
    master = worker.link()
    worker.preview = Preview("3", Image.new("RGB", (64, 32)), 512, 1)
    await start_item(worker, master)
    told = await heard(master, m.ItemPreview)
    assert (told.index, told.node_id, told.format, told.width, told.height) == (1, "3", "jpeg", 64, 32)


async def test_deliver_outside_an_item_is_an_error(worker: Worker) -> None:
    with pytest.raises(RuntimeError):
        worker.agent.deliver("unknown", image())


async def test_blob_requests_need_a_token_of_a_live_link(worker: Worker) -> None:
    master = worker.link()
    await heard(master, m.Capabilities)
    header = issue(master.session.key, master.session.id, "GET", "/blob", 0.0)
    worker.agent.authorise(header, "GET", "/blob")
    for wrong in (None, "", header[:-1] + ("0" if header[-1] != "0" else "1")):
        with pytest.raises(NotAllowed):
            worker.agent.authorise(wrong, "GET", "/blob")
    with pytest.raises(NotAllowed):
        worker.agent.authorise(header, "GET", "/other")
    await master.close("test")
    await asyncio.wait_for(worker.serving[0], WAIT_S)
    with pytest.raises(NotAllowed):
        worker.agent.authorise(header, "GET", "/blob")
