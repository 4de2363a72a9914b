"""Must be true 8 and 9: what fails says who, where and why; and fewer results than asked never pass silently."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fleetkit.client import Client
from fleetkit.faulty import SMALL_SPOOL, FaultyFleet
from fleetkit.fleets import rows_alone, tensor
from fleetkit.graphs import Graph, Link, of_class, pulled
from fleetkit.waiting import eventually

from devtools.fleet import Fleet
from devtools.instances import Instance

ITEMS = 6
MISSING = (2, 4)
CAUSE = "planted failure"


def failing(**how: Any) -> Any:
    """A fault that fails as ``how`` says (see KitFail)."""

    def fault(graph: Graph, image: Link, index: Link) -> Link:
        return graph.add("KitFail", image=image, **{"message": CAUSE, "only_worker": "", "index": index, **how})

    return fault


def new_log(instance: Instance, since_bytes: int) -> str:
    return instance.log_path.read_bytes()[since_bytes:].decode("utf-8", "replace")


def shown_on(entry: dict[str, Any], node_id: str) -> str:
    """What a prompt's history shows on a node, also from nodes that stood in for it."""
    stood_in = {one for one, meta in entry["meta"].items() if meta["display_node"] == node_id}
    return json.dumps([output for one, output in entry["outputs"].items() if one in {node_id, *stood_in}])


def test_mbt9_partial_shows_on_the_node_in_the_job_and_in_the_log(
    fleet: Fleet, master: Client, bare: Client, bare_instance: Instance
) -> None:
    master.change_settings(master_delegate_only=True)
    since_bytes = fleet.master.log_path.stat().st_size
    prompt = pulled("partial", ITEMS, on_failure="partial", fault=failing(only_items=",".join(map(str, MISSING))))
    job = master.run(prompt)

    told = master.job(job)
    assert told["state"] == "partial"
    assert set(told["missing"]) == {str(index) for index in MISSING}
    assert all(CAUSE in reason for reason in told["missing"].values())
    assert told["error"]["kind"] == "partial"
    assert [item["state"] for item in told["items"]] == [
        "failed" if index in MISSING else "done" for index in range(ITEMS)
    ]
    assert job in [one["id"] for one in master.get("/distributed/v2/jobs?state=partial")["jobs"]]

    shown = shown_on(master.succeeded(job), of_class(prompt, "DistributedCollector"))
    (logged,) = [line for line in new_log(fleet.master, since_bytes).splitlines() if job in line and "missing" in line]
    assert f"{len(MISSING)} of {ITEMS} items are missing" in shown
    for index in MISSING:
        assert f"item {index}" in shown
        assert f"{index}: " in logged
    assert CAUSE in shown
    assert CAUSE in logged

    rows = rows_alone(bare, bare_instance, ITEMS)
    wanted = [row for index, row in enumerate(rows) if index not in MISSING]
    assert tensor(fleet.master, "partial")["rows"] == wanted


def test_mbt9_partial_is_no_answer_of_the_cache(fleet: Fleet, master: Client) -> None:
    """The same prompt again tries the missing items again."""
    master.change_settings(master_delegate_only=True, max_attempts=1)
    prompt = pulled(
        "partial-again", 4, on_failure="partial", fault=failing(only_items="1", times=1, message="planted again")
    )
    counts = []
    for _ in range(3):
        master.run(prompt)
        counts.append(tensor(fleet.master, "partial-again")["shape"][0])
    assert counts[0] == 3
    assert counts[-1] == 4, "each worker fails it once only"


def test_mbt9_default_is_to_fail(master: Client) -> None:
    master.change_settings(master_delegate_only=True)
    job = master.queue(pulled("strict", ITEMS, fault=failing(only_items="2")))
    assert CAUSE in master.error_of(job)["exception_message"]
    assert master.job(job)["state"] == "failed"


def test_mbt9_nothing_at_all_fails_also_when_partial(master: Client) -> None:
    master.change_settings(master_delegate_only=True)
    job = master.queue(pulled("nothing", 3, on_failure="partial", fault=failing()))
    assert CAUSE in master.error_of(job)["exception_message"]
    assert master.job(job)["state"] == "failed"


def test_mbt8_remote_exception_is_shown_with_all_that_is_known(master: Client) -> None:
    master.change_settings(master_delegate_only=True, max_attempts=2)
    job = master.queue(pulled("told", 4, fault=failing(only_items="3", message="the planted cause")))
    error = master.error_of(job)
    assert error["node_type"] == "DistributedCollector"
    message = error["exception_message"]
    for part in ("RuntimeError", "the planted cause", "KitFail", "Traceback", "passers.py", "attempt 2"):
        assert part in message, part
    assert "Worker 1" in message or "Worker 2" in message
    told = master.job(job)
    assert {attempt["participant"] for attempt in told["items"][3]["attempts"]} == {"w1", "w2"}
    for attempt in told["items"][3]["attempts"]:
        assert attempt["state"] == "failed"
        assert "the planted cause" in attempt["error"]["message"]
        assert "passers.py" in attempt["error"]["traceback"]


def test_out_of_memory_is_told_as_such_and_tried_elsewhere(
    fleet: Fleet, master: Client, bare: Client, bare_instance: Instance
) -> None:
    master.change_settings(master_delegate_only=True)
    fault = failing(only_worker="w1", out_of_memory=True, times=1, message="Allocation failed")
    job = master.run(pulled("oom", ITEMS, delay_s=0.2, fault=fault))
    failed = [
        attempt for item in master.job(job)["items"] for attempt in item["attempts"] if attempt["state"] == "failed"
    ]
    assert [(attempt["participant"], attempt["error"]["kind"]) for attempt in failed] == [("w1", "out_of_memory")]
    assert tensor(fleet.master, "oom")["rows"] == rows_alone(bare, bare_instance, ITEMS)


def test_worker_that_keeps_failing_is_rested_and_says_why(
    fleet: Fleet, master: Client, bare: Client, bare_instance: Instance
) -> None:
    """The other does the work meanwhile; afterwards it takes part again."""
    master.change_settings(master_delegate_only=True)
    fault = failing(only_worker="w1", message="broken card")
    job = master.queue(pulled("rested", 16, delay_s=0.4, fault=fault))
    resting = eventually(
        lambda: next((one for one in [master.worker("w1")] if one["state"] == "resting"), None), "w1 rests"
    )
    assert "broken card" in resting["message"]
    master.succeeded(job)
    told = master.job(job)
    assert {item["participant"] for item in told["items"]} == {"w2"}
    tries = sum(attempt["participant"] == "w1" for item in told["items"] for attempt in item["attempts"])
    assert tries <= ITEMS, "it is asked less and less often"
    assert tensor(fleet.master, "rested")["rows"] == rows_alone(bare, bare_instance, 16)
    eventually(lambda: master.states()["w1"] == "online", "the rest of w1 ends", timeout_s=90.0)


def test_full_spool_is_told_and_the_item_runs_elsewhere(
    faulty: FaultyFleet, bare: Client, bare_instance: Instance
) -> None:
    """Each result is larger than the whole spool of one of the workers."""
    faulty.master.change_settings(master_delegate_only=True)
    size_px = 1_200
    job = faulty.master.run(pulled("full", 4, size_px=size_px, delay_s=0.3))
    told = faulty.master.job(job)
    failed = [attempt for item in told["items"] for attempt in item["attempts"] if attempt["state"] == "failed"]
    assert failed
    assert {(attempt["participant"], attempt["error"]["kind"]) for attempt in failed} == {(SMALL_SPOOL, "spool_full")}
    assert "FLOTILLA_SPOOL_CAP_BYTES" in failed[0]["error"]["message"], "the cure is named"
    rows = rows_alone(bare, bare_instance, 4, size_px=size_px)
    assert tensor(faulty.fleet.master, "full")["rows"] == rows


@pytest.mark.parametrize("on_failure", ["never", 5])
def test_unknown_wishes_are_refused_before_any_work(on_failure: object, master: Client, w1: Client) -> None:
    answer = master.request("POST", "/prompt", {"prompt": pulled("unknown", 3, on_failure=on_failure)})
    assert answer.status == 400
    assert "on_failure" in answer.text
    assert w1.idle()
