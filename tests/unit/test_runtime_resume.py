"""Jobs taken up again: after a restart of the master, and to repeat what failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.master import Master, heard, image, until
from flotilla.host.records import Outcome
from flotilla.runtime import revival
from flotilla.utils.errors import Conflict, JobFailed, NotFound
from flotilla.utils.ids import new_id
from flotilla.workers import messages as m


@pytest.fixture
async def master(tmp_path: Path) -> AsyncIterator[Master]:
    made = Master(tmp_path)
    await made.linked()
    yield made
    await made.close()


def failure(lease: m.Lease, *, retry: bool = False) -> m.ItemFailed:
    return m.ItemFailed(
        job_id=lease.job_id,
        index=lease.index,
        attempt=lease.attempt,
        kind="exception",
        message="boom",
        exception_type="ValueError",
        retry=retry,
    )


async def fail_one_of_three(master: Master) -> tuple[str, m.ItemFinished]:
    """A job of which the first worker finished its item and the second failed for good; its prompt is over."""
    job_id = master.post(seed=5)
    stage = master.coordinator.stage_of(job_id, "3")
    assert stage is not None
    first, second = await heard(master.end("w1"), m.Lease), await heard(master.end("w2"), m.Lease)
    report = master.finish(first, 6)
    await master.end("w1").send(report)
    await heard(master.end("w1"), m.Keep)
    master.queue.start(job_id)
    await asyncio.to_thread(stage.deliver_own, image(5))
    await until(lambda: master.coordinator.run(job_id).done == 2)
    await master.end("w2").send(failure(second))
    await until(lambda: stage.finished)
    with pytest.raises(JobFailed):
        stage.results()
    master.queue.end(job_id)
    await until(lambda: not master.coordinator.run(job_id).stages)
    await until(lambda: bool(master.own_results.of(job_id)))
    return job_id, report


async def finish_again(master: Master, job_id: str) -> torch.Tensor:
    """Lets the resumed job's only open item run on the second worker."""
    stage = master.coordinator.stage_of(job_id, "3")
    assert stage is not None
    assert stage.own_place() is None
    lease = await heard(master.end("w2"), m.Lease)
    assert (lease.job_id, lease.index) == (job_id, 2)
    assert lease.attempt > 1
    await master.end("w2").send(master.finish(lease, 7))
    await until(lambda: stage.finished)
    images = stage.results()["images"]
    assert isinstance(images, torch.Tensor)
    return images


async def test_a_retry_computes_only_what_failed(master: Master) -> None:
    job_id, _ = await fail_one_of_three(master)
    run = await master.coordinator.revival.resume(job_id, revival.RETRYABLE)
    assert (run.job_id, run.lives) == (job_id, 2)
    assert list(master.queue.prompts) == [job_id]
    joined = await finish_again(master, job_id)
    assert torch.equal(joined, torch.cat([image(seed)["images"].data for seed in (5, 6, 7)]))
    master.queue.start(job_id)
    master.queue.end(job_id)
    await heard(master.end("w1"), m.Release)
    await master.journal.flush()
    record = await master.journal.job(job_id)
    assert record is not None
    assert (record.state, record.lives, record.items_done) == ("done", 2, 3)


async def test_after_a_restart_results_come_from_where_they_lie(master: Master, tmp_path: Path) -> None:
    """A second master with the same journal and the same home stands for the restarted one."""
    job_id = master.post(seed=5)
    stage = master.coordinator.stage_of(job_id, "3")
    assert stage is not None
    first = await heard(master.end("w1"), m.Lease)
    report = master.finish(first, 6)
    await master.end("w1").send(report)
    await heard(master.end("w1"), m.Keep)
    master.queue.start(job_id)
    await asyncio.to_thread(stage.deliver_own, image(5))
    await until(lambda: master.coordinator.run(job_id).done == 2)
    await until(lambda: bool(master.own_results.of(job_id)))
    await master.crash()
    again = Master(tmp_path, spool=master.spool)
    await again.journal_is_open()
    again.adopt_own(job_id, image(5))
    await again.linked()
    await again.end("w1").send(report)  # a worker tells all that it holds when its link is back
    run = await again.coordinator.revival.resume(job_id)
    assert run.lives == 2
    joined = await finish_again(again, job_id)
    assert torch.equal(joined, torch.cat([image(seed)["images"].data for seed in (5, 6, 7)]))
    await again.close()


async def test_only_jobs_that_ended_badly_are_taken_up_again(master: Master) -> None:
    with pytest.raises(NotFound):
        await master.coordinator.revival.resume(new_id())
    job_id = master.post()
    with pytest.raises(Conflict, match="running"):
        await master.coordinator.revival.resume(job_id)
    master.coordinator.cancel_by_user(job_id)
    with pytest.raises(Conflict, match="cancelled"):
        await master.coordinator.revival.resume(job_id)


async def test_a_result_of_a_job_that_nobody_will_resume_is_sent_away(master: Master) -> None:
    lease: Any = m.Lease(
        job_id=new_id(),
        index=0,
        attempt=1,
        prompt_id=new_id(),
        prompt={},
        extra_data={},
        precision="exact",
        node_id="3",
        title="",
    )
    await master.end("w1").send(master.finish(lease, 1))
    released = await heard(master.end("w1"), m.Release)
    assert released.job_id == lease.job_id


async def test_forgetting_a_failed_job_releases_what_was_kept_for_it(master: Master) -> None:
    job_id, report = await fail_one_of_three(master)
    await master.coordinator.revival.forget(job_id)
    released = await heard(master.end("w1"), m.Release)
    assert (released.job_id, released.index) == (job_id, report.index)
    assert await master.journal.job(job_id) is None
    with pytest.raises(NotFound):
        master.coordinator.run(job_id)


async def test_a_prompt_that_is_about_to_end_is_waited_for(master: Master) -> None:
    """A client may hear of the job's end a moment before the host has let go of its prompt."""
    job_id = master.post(seed=5)
    lease = await heard(master.end("w1"), m.Lease)
    master.queue.start(job_id)
    await master.end("w1").send(failure(lease))
    await until(lambda: master.coordinator.run(job_id).ended_s is not None)
    resumed = asyncio.ensure_future(master.coordinator.revival.resume(job_id, revival.RETRYABLE))
    await asyncio.sleep(0)
    assert not resumed.done()
    master.queue.end(job_id, Outcome("error"))
    assert (await resumed).lives == 2


async def test_two_resumes_at_once_are_one(master: Master) -> None:
    job_id, _ = await fail_one_of_three(master)
    first = asyncio.ensure_future(master.coordinator.revival.resume(job_id))
    await asyncio.sleep(0)
    with pytest.raises(Conflict, match="already"):
        await master.coordinator.revival.resume(job_id)
    assert (await first).lives == 2


async def test_a_prompt_that_fails_on_the_master_fails_its_job_and_what_is_finished_is_kept(master: Master) -> None:
    job_id = master.post(seed=5)
    first, _ = await heard(master.end("w1"), m.Lease), await heard(master.end("w2"), m.Lease)
    await master.end("w1").send(master.finish(first, 6))
    await heard(master.end("w1"), m.Keep)
    master.queue.start(job_id)
    master.queue.end(job_id, Outcome("error", "ValueError", "boom", ("here",), node_id="2", node_type="KitImage"))
    await heard(master.end("w2"), m.Stop)
    view = master.coordinator.view(job_id)
    assert view.state == "failed"
    assert view.failure is not None
    assert (view.failure.message, view.failure.node_id) == ("ValueError: boom", "2")
    run = await master.coordinator.revival.resume(job_id, revival.RETRYABLE)
    assert master.queue.outcome(job_id) is None
    await until(lambda: run.done == 1)
    assert [item.state for item in master.coordinator.view(job_id).items][1] == "done"


async def test_a_prompt_that_is_interrupted_cancels_its_job(master: Master) -> None:
    job_id = master.post()
    master.queue.start(job_id)
    master.queue.end(job_id, Outcome("interrupted"))
    await until(lambda: master.coordinator.view(job_id).state == "cancelled")
