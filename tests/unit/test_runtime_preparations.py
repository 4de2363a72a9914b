"""A job's models are loaded before its first item: once, without a lease, and not longer than the job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fakes.agents import Worker, heard, lease, until
from fakes.link import FakeLink
from flotilla.host.records import Outcome, Refused
from flotilla.runtime import agent as agent_module
from flotilla.runtime.context import Context, input_values, install, prepared
from flotilla.utils.errors import InvalidInput, JobCancelled
from flotilla.workers import messages as m

JOB = "job"
PREPARATION = "prompt that prepares"


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    made = Worker(tmp_path)
    yield made
    await made.close()


def order(**changes: Any) -> m.Prepare:
    prompt = {"1": {"class_type": "FlotillaPrepare", "inputs": {}}}
    return m.Prepare(**{"job_id": JOB, "prompt_id": PREPARATION, "prompt": prompt, "extra_data": {"x": 1}, **changes})


async def begun(worker: Worker, master: FakeLink) -> None:
    """The host runs the preparation."""
    await master.send(order())
    await until(lambda: PREPARATION in worker.queue.waiting)
    worker.queue.start(PREPARATION)


async def over(worker: Worker) -> None:
    await until(lambda: worker.agent._preparations.is_idle)


async def test_models_are_loaded_and_their_facts_told(worker: Worker) -> None:
    master = worker.link()
    await begun(worker, master)
    assert worker.queue.prompts[PREPARATION]["extra_data"] == {"x": 1}
    await asyncio.to_thread(worker.agent.prepared, PREPARATION, {"video": False})
    told = await heard(master, m.Prepared)
    assert (told.job_id, told.ok, told.facts, told.message) == (JOB, True, {"video": False}, "")
    worker.queue.end(PREPARATION)
    await over(worker)
    assert sum(isinstance(message, m.Prepared) for message in master.other.sent) == 1  # type: ignore[union-attr]
    assert not worker.queue.watch.held  # type: ignore[union-attr]


async def test_it_counts_as_ours(worker: Worker) -> None:
    master = worker.link()
    await begun(worker, master)
    worker.queue.waiting.append("somebody's")
    assert worker.agent.queue_counts() == m.Status(running=1, pending=1, ours=1)
    assert worker.queue.watch.held  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome("error", "builtins.ValueError", "no such model"), "no such model"),
        (Outcome("interrupted"), "interrupted"),
        (Outcome("success"), "without having loaded anything"),
    ],
)
async def test_a_preparation_that_comes_to_nothing_says_why(worker: Worker, outcome: Outcome, words: str) -> None:
    master = worker.link()
    await begun(worker, master)
    worker.queue.end(PREPARATION, outcome)
    told = await heard(master, m.Prepared)
    assert (told.ok, told.facts) == (False, {})
    assert words in told.message


async def test_one_that_somebody_removes_from_the_queue(worker: Worker) -> None:
    master = worker.link()
    await master.send(order())
    await until(lambda: PREPARATION in worker.queue.waiting)
    worker.queue.waiting.clear()
    assert "removed" in (await heard(master, m.Prepared)).message


async def test_one_that_the_host_refuses(worker: Worker) -> None:
    worker.queue.refuse = Refused({"message": "Node missing", "details": "Foo"}, {})
    master = worker.link()
    await master.send(order())
    told = await heard(master, m.Prepared)
    assert (told.ok, told.message) == (False, "Node missing Foo")
    await over(worker)
    assert not worker.queue.watch.held  # type: ignore[union-attr]


async def test_a_second_order_for_the_same_job_runs_nothing(worker: Worker) -> None:
    master = worker.link()
    await begun(worker, master)
    await master.send(order(prompt_id="second"))
    await asyncio.to_thread(worker.agent.prepared, PREPARATION, {})
    await heard(master, m.Prepared)
    worker.queue.end(PREPARATION)
    await over(worker)
    await master.send(order(prompt_id="third"))
    assert (await heard(master, m.Prepared)).ok, "it is told again how the first one went"
    assert list(worker.queue.prompts) == [PREPARATION]
    await until(lambda: not worker.queue.watch.held)  # type: ignore[union-attr]


@pytest.mark.parametrize("running", [False, True])
async def test_the_end_of_the_job_stops_it(worker: Worker, running: bool) -> None:
    master = worker.link()
    await master.send(order())
    await until(lambda: PREPARATION in worker.queue.waiting)
    if running:
        worker.queue.start(PREPARATION)
    await master.send(m.JobOver(job_id="another"))
    await master.send(m.JobOver(job_id=JOB))
    await until(lambda: worker.queue.cancelled == [PREPARATION])
    await over(worker)
    await master.send(order(prompt_id="anew"))  # the job was taken up again
    await until(lambda: "anew" in worker.queue.waiting)
    assert not any(isinstance(message, m.Prepared) for message in master.other.sent)  # type: ignore[union-attr]


async def test_a_node_of_a_job_that_is_over_is_told_so(worker: Worker) -> None:
    master = worker.link()
    await begun(worker, master)
    worker.queue.cancel = lambda prompt_id: True  # type: ignore[method-assign]  # the host does not look for interrupts
    await master.send(m.JobOver(job_id=JOB))
    session = next(iter(worker.agent._sessions.values()))
    await until(lambda: not session.preparations)
    with pytest.raises(JobCancelled):
        worker.agent.prepared(PREPARATION, {})
    worker.queue.end(PREPARATION)
    await over(worker)


async def test_a_master_that_stays_away_has_it_stopped(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "ORPHAN_AFTER_S", 0.0)
    master = worker.link()
    await begun(worker, master)
    await worker.unlink(master)
    await until(lambda: worker.queue.cancelled == [PREPARATION])
    await until(lambda: not worker.agent._sessions)


async def test_what_a_lost_link_has_swallowed_is_told_over_the_next(worker: Worker) -> None:
    master = worker.link()
    await begun(worker, master)
    await worker.unlink(master)
    await asyncio.to_thread(worker.agent.prepared, PREPARATION, {"n": 1})
    again = worker.link()
    assert (await heard(again, m.Prepared)).facts == {"n": 1}
    assert (await heard(again, m.JobsHeld)).job_ids == [JOB]


async def test_facts_must_be_json(worker: Worker) -> None:
    master = worker.link()
    await begun(worker, master)
    with pytest.raises(InvalidInput):
        worker.agent.prepared(PREPARATION, {"x": object()})


async def test_only_a_preparation_prepares(worker: Worker) -> None:
    master = worker.link()
    await master.send(lease())
    await heard(master, m.LeaseAccepted)
    for prompt_id in (lease().prompt_id, "somebody's"):
        with pytest.raises(RuntimeError):
            worker.agent.prepared(prompt_id, {})


async def test_closing_stops_it(worker: Worker) -> None:
    master = worker.link()
    await begun(worker, master)
    await worker.agent.close()
    assert worker.queue.cancelled == [PREPARATION]


def test_nodes_find_it_through_the_context() -> None:
    told: list[Any] = []

    def values(prompt_id: str, blob_hash: str) -> dict[str, Any]:
        told.append((prompt_id, blob_hash))
        return {}

    def no(*_args: Any) -> None:
        return None

    try:
        install(Context(no, no, no, values, lambda prompt_id, facts: told.append((prompt_id, facts))))
        assert input_values("p", "hash") == {}
        prepared("p", {"a": 1})
        assert told == [("p", "hash"), ("p", {"a": 1})]
        with pytest.raises(RuntimeError):
            input_values(None, "hash")
        install(None)
        with pytest.raises(RuntimeError):
            prepared("p", {})
    finally:
        install(None)
