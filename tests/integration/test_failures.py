"""What happens when a participant dies or fails: the job still ends with every item, or says what is wrong and where."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fleetkit.client import Client
from fleetkit.fleets import add_worker, tensor
from fleetkit.graphs import SEED, Graph, Prompt, image_alone, images
from fleetkit.waiting import eventually, seconds_until

from devtools.fleet import Fleet
from devtools.instances import Instance

LOST_WITHIN_S = 2.0
RETURNS_WITHIN_S = 20.0


@pytest.fixture
def w3(fleet: Fleet, master: Client) -> Iterator[Instance]:
    """A third worker, which may be killed. `settled` takes it out of the registry again."""
    instance = fleet.add_instance("w3")
    add_worker(master, instance)
    yield instance
    instance.kill()
    fleet.extras.remove(instance)


def rows(bare: Client, fleet: Fleet, prefix: str, count: int) -> list[str]:
    found = []
    for k in range(count):
        bare.run(image_alone(prefix, seed=SEED + k))
        found += tensor(fleet.extras[0], prefix)["rows"]
    return found


def test_killed_worker_loses_nothing_and_comes_back_by_itself(
    fleet: Fleet, master: Client, bare: Client, w3: Instance
) -> None:
    """The item it was at is computed elsewhere, with the same result; once it is up again, it takes part again."""
    job = master.queue(images("killed", delay_s=1.5))
    eventually(lambda: Client(w3.url).queued()[0], "w3 works on its item")
    w3.kill()
    lost_s = seconds_until(lambda: master.states()["w3"] != "online", "the master notices", LOST_WITHIN_S)
    print(f"a killed worker was noticed after {lost_s:.2f} s")
    master.succeeded(job)
    told = master.job(job)
    assert [item["state"] for item in told["items"]] == ["done"] * 4
    states = [attempt["state"] for attempt in told["items"][3]["attempts"]]
    assert (states[0], states[-1]) == ("lost", "done")
    assert told["items"][3]["participant"] != "w3"
    assert [list(item["values"].values()) for item in told["items"]] == [[SEED + k] for k in range(4)]
    assert tensor(fleet.master, "killed")["rows"] == rows(bare, fleet, "killed", 4)

    # While it is away, jobs are planned without it, and say why.
    assert "w3" in master.job(master.run(images("while-away")))["left_out"]

    fleet.restart(w3)
    eventually(lambda: master.states()["w3"] == "online", "w3 is linked again by itself", RETURNS_WITHIN_S)
    again = master.job(master.run(images("killed-again")))
    assert [item["participant"] for item in again["items"]] == ["master", "w1", "w2", "w3"]


def failing(prefix: str, only_worker: str, *, delay_s: float = 0.0) -> Prompt:
    graph = Graph()
    image = graph.image(graph.seed(), delay_s=delay_s, salt=prefix)
    failed = graph.add("KitFail", image=image, message=f"planted failure of {prefix}", only_worker=only_worker)
    graph.hash(graph.collect(failed), prefix)
    return graph.prompt


@pytest.mark.parametrize("coordinates_only", [False, True])
def test_when_the_only_worker_dies_the_master_finishes_its_items(
    fleet: Fleet, master: Client, bare: Client, w3: Instance, coordinates_only: bool
) -> None:
    """It adds them to the running prompt, and repeats only what differs from item to item."""
    prefix = f"alone-{int(coordinates_only)}"
    for worker in ("w1", "w2"):
        master.patch(f"/distributed/v2/workers/{worker}", {"enabled": False})
    master.patch("/distributed/v2/settings", {"master_delegate_only": coordinates_only})
    count = 1 if coordinates_only else 2
    job = master.queue(images(prefix, delay_s=1.5))
    eventually(lambda: Client(w3.url).queued()[0], "w3 works on its item")
    w3.kill()
    master.succeeded(job)
    told = master.job(job)
    assert [(item["state"], item["participant"]) for item in told["items"]] == [("done", "master")] * count
    assert tensor(fleet.master, prefix)["rows"] == rows(bare, fleet, prefix, count)


def test_item_that_somebody_clears_from_a_workers_queue_runs_elsewhere(
    fleet: Fleet, master: Client, w1: Client, bare: Client
) -> None:
    """It waits behind a stranger's prompt, and the stranger empties the whole queue."""
    stranger = image_alone("in-front", seed=1)
    stranger["1"]["inputs"].update(delay_s=60.0, salt="clearing")
    running = w1.queue(stranger)
    eventually(lambda: w1.queued()[0] == [running], "the stranger's prompt runs")
    job = master.queue(images("cleared"))
    eventually(lambda: w1.queued()[1], "our item waits behind it")
    w1.post("/queue", {"clear": True})
    master.succeeded(job)
    told = master.job(job)
    assert [attempt["state"] for attempt in told["items"][1]["attempts"]] == ["failed", "done"]
    assert "removed" in told["items"][1]["attempts"][0]["error"]["message"]
    assert tensor(fleet.master, "cleared")["rows"] == rows(bare, fleet, "cleared", 3)
    w1.post("/interrupt", {"prompt_id": running})


def test_item_that_fails_on_one_worker_is_saved_by_the_other(fleet: Fleet, master: Client, bare: Client) -> None:
    job = master.run(failing("saved", "w1"))
    item = master.job(job)["items"][1]
    assert [(one["participant"], one["state"]) for one in item["attempts"]] == [("w1", "failed"), ("w2", "done")]
    assert "planted failure of saved" in item["attempts"][0]["error"]["message"]
    assert tensor(fleet.master, "saved")["rows"] == rows(bare, fleet, "saved", 3)


def test_item_that_fails_everywhere_fails_the_node_and_tells_all(fleet: Fleet, master: Client) -> None:
    """After ``max_attempts`` the collector fails with the worker's name, the exception and its traceback."""
    master.change_settings(max_attempts=2, master_delegate_only=True)
    prompt = failing("everywhere", "")
    job = master.queue(prompt)
    error = master.error_of(job)
    assert error["node_type"] == "DistributedCollector"
    message = error["exception_message"]
    assert "Worker 1" in message or "Worker 2" in message
    assert "RuntimeError: planted failure of everywhere" in message
    assert "KitFail" in message
    assert "Traceback" in message
    assert "passers.py" in message, "the remote traceback names the file"
    told = master.job(job)
    assert told["state"] == "failed"
    assert "planted failure" in told["error"]["message"]
    assert told["error"]["participant"] in ("w1", "w2")
    failed = [[one for one in item["attempts"] if one["state"] == "failed"] for item in told["items"]]
    assert max(map(len, failed)) == 2


def test_failure_on_the_master_itself_is_the_hosts_own_error(master: Client, w1: Client, w2: Client) -> None:
    """The host stops the prompt at the failing node; the job ends with it, and so do the workers' items."""
    job = master.queue(failing("own", "master", delay_s=0.3))
    error = master.error_of(job)
    assert error["node_type"] == "KitFail"
    assert "planted failure of own" in error["exception_message"]
    eventually(lambda: master.job(job)["ended_s"] is not None, "the job ends")
    assert master.job(job)["state"] in ("cancelled", "failed")
    eventually(lambda: w1.idle() and w2.idle(), "the workers are idle", LOST_WITHIN_S)


def test_item_without_a_result_says_so(master: Client) -> None:
    """A branch that is blocked on the workers delivers nothing: an error that says so, never a wait."""
    master.change_settings(master_delegate_only=True)
    graph = Graph()
    audio = graph.add("KitAudio", seed=1, seconds=0.1, sample_rate=8_000, channels=1)
    nothing = graph.add("DistributedCollector", audio=audio, load_balance=False)
    blocked = graph.add("ImageBatch", image1=graph.image(graph.seed()), image2=nothing)
    graph.hash(graph.collect(blocked), "blocked")
    job = master.queue(graph.prompt)
    message = master.error_of(job)["exception_message"]
    assert "without a result" in message
    assert "Worker 1" in message or "Worker 2" in message
    eventually(lambda: master.job(job)["state"] == "failed", "the job has failed")


def test_list_of_results_gives_a_typed_error(master: Client) -> None:
    """A node in front that gives a list would run the collector once per entry: said in words, with a cure."""
    master.change_settings(master_delegate_only=True)
    graph = Graph()
    pair = graph.image(graph.seed(), batch=2)
    entries = graph.add("RebatchImages", images=pair, batch_size=1)
    graph.hash(graph.collect(entries), "list")
    job = master.queue(graph.prompt)
    message = master.error_of(job)["exception_message"]
    assert "list" in message
    assert "Join the list into one batch" in message
