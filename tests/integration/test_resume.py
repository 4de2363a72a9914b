"""Must be true 4: what was finished before a master or a worker died is never computed again."""

from __future__ import annotations

from typing import Any

import pytest
from fleetkit.client import Client
from fleetkit.faulty import WORKERS, FaultyFleet
from fleetkit.fleets import executions, rows_alone, tensor
from fleetkit.graphs import Graph, Link, pulled
from fleetkit.waiting import eventually

from devtools.instances import Instance

ITEMS = 24
ITEM_S = 0.5
RESUMED_WITHIN_S = 30.0


def killed_at_half(faulty: FaultyFleet, prefix: str) -> tuple[str, dict[int, int]]:
    """A job whose master is killed when half of it is done: its id, and the executions until then."""
    job = faulty.master.queue(pulled(prefix, ITEMS, delay_s=ITEM_S))
    eventually(lambda: faulty.master.job(job)["items_done"] >= ITEMS // 2, "half of the items are done")
    faulty.fleet.master.kill()
    return job, dict(executions(faulty.instances, prefix))


def restart_master(faulty: FaultyFleet) -> None:
    faulty.fleet.restart(faulty.fleet.master)
    faulty.await_online()


def check_resumed(
    faulty: FaultyFleet, job: str, prefix: str, before: dict[int, int], on_workers: set[int], expected: list[str]
) -> dict[str, Any]:
    """The job is whole, and nothing that was finished before, ``on_workers`` or by the master, has run again."""
    faulty.master.succeeded(job, RESUMED_WITHIN_S)
    told = faulty.master.job(job)
    assert (told["state"], told["lives"]) == ("done", 2)
    assert {item["state"] for item in told["items"]} == {"done"}
    assert tensor(faulty.fleet.master, prefix)["rows"] == expected
    after = executions(faulty.instances, prefix)
    assert set(after) == set(range(ITEMS))
    again = {index for index in before if after[index] > before[index]}
    # A worker's item is never computed again. The master was killed: the image that it had made and not yet put into its
    # spool is the only loss.
    assert len(again) <= 1, again
    assert not again & on_workers, again
    return told


@pytest.mark.parametrize("master_pulls", [False, True], ids=["coordinates", "pulls"])
def test_mbt4_master_killed_at_half_and_resumed(
    master_pulls: bool, faulty: FaultyFleet, bare: Client, bare_instance: Instance
) -> None:
    faulty.master.change_settings(master_delegate_only=not master_pulls)
    prefix = f"resumed-{int(master_pulls)}"
    job, before = killed_at_half(faulty, prefix)
    on_workers = set(executions([faulty.instance(name) for name in WORKERS], prefix))
    assert len(before) >= ITEMS // 2
    assert set(before.values()) == {1}
    restart_master(faulty)

    listed = faulty.master.job(job)
    assert listed["state"] == "interrupted"
    assert listed["items_total"] == ITEMS
    assert 0 < listed["items_done"] <= len(before), "the journal is written a moment later"
    assert job in [one["id"] for one in faulty.master.get("/distributed/v2/jobs?state=interrupted")["jobs"]]
    assert faulty.master.history(job) is None, "the host itself knows nothing of it"

    faulty.master.post(f"/distributed/v2/jobs/{job}/resume", {})
    check_resumed(faulty, job, prefix, before, on_workers & set(before), rows_alone(bare, bare_instance, ITEMS))


def test_resumed_when_a_worker_has_restarted_as_well(
    faulty: FaultyFleet, bare: Client, bare_instance: Instance
) -> None:
    """The finished results of its earlier process are found again on disk or in memory."""
    faulty.master.change_settings(master_delegate_only=True)
    job, before = killed_at_half(faulty, "all-restarted")
    for name in WORKERS:
        faulty.instance(name).kill()
    before = dict(executions(faulty.instances, "all-restarted"))
    for name in WORKERS:
        faulty.fleet.restart(faulty.instance(name), wait=False)
    restart_master(faulty)
    faulty.master.post(f"/distributed/v2/jobs/{job}/resume", {})
    faulty.master.succeeded(job, RESUMED_WITHIN_S)
    assert tensor(faulty.fleet.master, "all-restarted")["rows"] == rows_alone(bare, bare_instance, ITEMS)
    after = executions(faulty.instances, "all-restarted")
    again = [index for index in before if after[index] > before[index]]
    # An image that was made and not yet written to the spool when its process was killed is the only loss.
    assert len(again) <= len(WORKERS), again


def test_cancelled_instead_of_resumed(faulty: FaultyFleet) -> None:
    """Nobody wants it any more: the workers let go of what they have kept."""
    faulty.master.change_settings(master_delegate_only=True)
    job, _ = killed_at_half(faulty, "not-resumed")
    restart_master(faulty)
    eventually(lambda: faulty.master.job(job)["state"] == "interrupted", "the journal knows the job")
    faulty.master.request("DELETE", f"/distributed/v2/jobs/{job}", {})
    for name in WORKERS:
        eventually(lambda name=name: faulty.client(name).spool()["blobs"] == 0, f"the spool of {name} is empty")
    assert faulty.master.request("GET", f"/distributed/v2/jobs/{job}").status == 404


def test_resuming_what_cannot_be_resumed_is_refused(faulty: FaultyFleet) -> None:
    done = faulty.master.run(pulled("whole", 3))
    for job, status in ((done, 409), ("00000000-0000-4000-8000-000000000000", 404)):
        for action in ("resume", "retry_failed"):
            answer = faulty.master.request("POST", f"/distributed/v2/jobs/{job}/{action}", {})
            assert answer.status == status, (action, answer.text)
            assert set(answer.json()["error"]) >= {"code", "message", "cure"}


def test_worker_that_restarts_offers_what_it_had_finished(
    faulty: FaultyFleet, bare: Client, bare_instance: Instance
) -> None:
    """w1's cable is cut while it works: what it finishes is in its spool when it is killed. w2 would need minutes."""
    faulty.master.change_settings(master_delegate_only=True)
    job = faulty.master.queue(pulled("offered", 1, delay_s=1.0, speeds="w2=0.005,w3=0.005"))
    eventually(lambda: faulty.client("w1").queued()[0], "w1 has the item")
    faulty.cables["w1"].cut()
    eventually(lambda: faulty.client("w1").spool()["blobs"] == 1, "w1 has finished it")
    eventually(
        lambda: len(faulty.master.job(job)["items"][0]["attempts"]) == 2, "the item is at work elsewhere meanwhile"
    )
    faulty.instance("w1").kill()
    faulty.fleet.restart(faulty.instance("w1"))
    faulty.cables["w1"].mend()
    faulty.master.succeeded(job, RESUMED_WITHIN_S)
    assert tensor(faulty.fleet.master, "offered")["rows"] == rows_alone(bare, bare_instance, 1)
    assert faulty.master.job(job)["items"][0]["participant"] == "w1"
    assert executions(faulty.instances, "offered") == {0: 1}


def failing_at(prefix: str, only_items: str, times: int) -> Any:
    def fault(graph: Graph, image: Link, index: Link) -> Link:
        return graph.add(
            "KitFail",
            image=image,
            message=f"planted in {prefix}",
            only_worker="",
            only_items=only_items,
            index=index,
            times=times,
        )

    return fault


def ended_life(master: Client, job: str, life: int) -> dict[str, Any] | None:
    """The job, once it has ended for the ``life``-th time."""
    told = master.job(job)
    return told if told["lives"] == life and told["state"] in ("done", "failed") else None


def test_retry_failed_computes_only_what_failed(faulty: FaultyFleet, bare: Client, bare_instance: Instance) -> None:
    """Item 3 fails the first time on each worker, and two times are enough for the job to fail."""
    faulty.master.change_settings(master_delegate_only=True, max_attempts=2)
    prompt = pulled("retried", 6, fault=failing_at("retried", "3", times=1))
    job = faulty.master.queue(prompt)
    assert "planted in retried" in faulty.master.error_of(job)["exception_message"]
    assert faulty.master.job(job)["state"] == "failed"
    before = executions(faulty.instances, "retried")
    kept = [item["index"] for item in faulty.master.job(job)["items"] if item["state"] == "done"]
    for life in (2, 3):  # who had not tried it yet may be the one that fails it next
        faulty.master.post(f"/distributed/v2/jobs/{job}/retry_failed", {})
        told = eventually(lambda life=life: ended_life(faulty.master, job, life), "the job ends", RESUMED_WITHIN_S)
        if told["state"] == "done":
            break
    assert told["state"] == "done"
    assert tensor(faulty.fleet.master, "retried")["rows"] == rows_alone(bare, bare_instance, 6)
    after = executions(faulty.instances, "retried")
    assert after[3] == 1
    assert kept
    assert {index: after[index] for index in kept} == {index: before[index] for index in kept}
