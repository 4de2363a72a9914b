"""Must be true 7: cancelling an upscale, and tiles that cannot be redrawn."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest
import torch
from fleetkit.client import Client
from fleetkit.fleets import load_saved, spool_is_empty, tensor
from fleetkit.graphs import Graph, Prompt, of_class
from fleetkit.upscales import (
    MARKED,
    TILE,
    TILES,
    UPSCALE,
    ended,
    image_runs,
    marked,
    pixels_alone,
    source,
    tile_runs,
    upscale,
    upscaled,
    workers_of,
)
from fleetkit.waiting import eventually

from devtools.fleet import Fleet
from devtools.instances import Instance

CAUSE = "planted failure"
LIVENESS_S = 2.0
"""The promise is 1 s, which the printed figure is to be compared with; this bound allows for a busy test machine."""
LATE_S = 2.0
"""By then everything that was under way at the cancel would have arrived."""

WAYS = {
    "interrupt": lambda master, job: master.post("/interrupt", {"prompt_id": job}),
    "our route": lambda master, job: master.post(f"/distributed/v2/jobs/{job}/cancel", {}),
}
INSET = 16
"""So far from its edges nothing but the tile itself was ever blended, in pixels."""


def check_idle(job: str, prefix: str, began_s: float, fleet: Fleet, master: Client, w1: Client, w2: Client) -> None:
    """Everybody is idle at once, keeps nothing, and nothing goes on."""
    everybody = (master, w1, w2)
    eventually(lambda: all(client.idle() for client in everybody), "all three are idle", LIVENESS_S)
    print(f"idle after {time.monotonic() - began_s:.2f} s")
    for client in everybody:
        eventually(partial(spool_is_empty, client), f"the spool of {client} is empty", LIVENESS_S)
    assert master.was_interrupted(job)
    assert ended(master, job)["state"] == "cancelled"
    runs = tile_runs(fleet.instances, prefix)
    while time.monotonic() < began_s + LATE_S:
        assert all(client.idle() for client in everybody)
        time.sleep(0.1)
    assert tile_runs(fleet.instances, prefix) == runs, "nothing went on"
    assert all(spool_is_empty(client) for client in everybody)


@pytest.mark.parametrize("coordinates", [False, True], ids=["pulls", "coordinates"])
@pytest.mark.parametrize("way", WAYS)
def test_mbt7_cancel_in_the_middle(
    way: str, coordinates: bool, fleet: Fleet, master: Client, w1: Client, w2: Client
) -> None:
    master.change_settings(master_delegate_only=coordinates)
    prefix = f"up-cancel-{way.split()[0]}-{int(coordinates)}"
    job = master.queue(upscaled(prefix, mode="independent", watch={"delay_s": 1.0}))
    eventually(lambda: master.job(job)["items_done"] >= 2 and w1.queued()[0] and w2.queued()[0], "tiles are done")
    began_s = time.monotonic()
    WAYS[way](master, job)
    check_idle(job, prefix, began_s, fleet, master, w1, w2)


def test_mbt7_cancel_while_the_image_is_made(fleet: Fleet, master: Client, w1: Client, w2: Client) -> None:
    """Workers load models meanwhile, or have done so."""
    job = master.queue(
        upscaled("up-cancel-early", image_s=30.0, positive=lambda g, i: g.add("KitScene", text="boats 3"))
    )
    eventually(lambda: master.queued()[0] == [job], "the prompt runs")
    time.sleep(0.3)
    began_s = time.monotonic()
    master.post("/interrupt", {"prompt_id": job})
    check_idle(job, "up-cancel-early", began_s, fleet, master, w1, w2)


def test_mbt7_cancel_one_of_two(
    fleet: Fleet, master: Client, w1: Client, alone: Client, alone_instance: Instance
) -> None:
    first = master.queue(upscaled("up-cancelled", watch={"delay_s": 1.0}))
    second = master.queue(upscaled("up-kept"))
    eventually(lambda: master.job(first)["items_done"] >= 1, "the first has begun")
    master.post(f"/distributed/v2/jobs/{first}/cancel", {})
    master.succeeded(second)
    assert master.was_interrupted(first)
    assert [ended(master, job)["state"] for job in (first, second)] == ["cancelled", "done"]
    assert tensor(fleet.master, "up-kept")["blake3"] == pixels_alone(alone, alone_instance)


def failing(**how: Any) -> dict[str, Any]:
    """What makes the marked tile fail."""
    return {"change": marked, "watch": {"delay_s": 0.1, "fail": CAUSE, "only_marked": True, **how}}


@pytest.mark.parametrize("coordinates", [False, True], ids=["pulls", "coordinates"])
def test_mbt7_tile_that_fails_everywhere(coordinates: bool, master: Client) -> None:
    """The node fails, and says which tile it was, who failed it, and how."""
    master.change_settings(master_delegate_only=coordinates, max_attempts=3 - int(coordinates))
    job = master.queue(upscaled(f"up-fails-{int(coordinates)}", **failing()))
    error = master.error_of(job)
    assert error["node_type"] == UPSCALE
    message = error["exception_message"]
    x, y = (TILE * place for place in MARKED)
    for part in (f"of {TILES}", f"x {x}, y {y}", "RuntimeError", CAUSE, "Traceback", "models.py"):
        assert part in message, part
    told = ended(master, job)
    assert told["state"] == "failed"
    (failed,) = [item for item in told["items"] if item["error"] and item["state"] == "failed"]
    names = {"w1": "Worker 1", "w2": "Worker 2"}
    last = failed["attempts"][-1]["participant"]
    assert names.get(last, "") in message
    assert len({attempt["participant"] for attempt in failed["attempts"]}) == 3 - int(coordinates)


def test_mbt7_fails_without_workers(alone: Client) -> None:
    job = alone.queue(upscaled("up-fails-alone", **failing()))
    assert CAUSE in alone.error_of(job)["exception_message"]


def test_out_of_everybody_only_the_last_one_can(
    fleet: Fleet, master: Client, alone: Client, alone_instance: Instance
) -> None:
    """A tile that fails on both workers is redrawn on the master."""
    job = master.run(upscaled("up-w1w2", **failing(only_worker="w1,w2")))
    assert ended(master, job)["state"] == "done"
    wanted = pixels_of_marked(alone, alone_instance)
    assert tensor(fleet.master, "up-w1w2")["blake3"] == wanted


def pixels_of_marked(alone: Client, instance: Instance) -> str:
    alone.run(upscaled("alone-marked", change=marked))
    return str(tensor(instance, "alone-marked")["blake3"])


@pytest.mark.parametrize("name", ["w1", "master"])
def test_failure_on_one_participant_only(
    name: str, fleet: Fleet, master: Client, alone: Client, alone_instance: Instance
) -> None:
    """Whatever it is given fails there, and the job goes on."""
    watch = {"delay_s": 0.2, "fail": CAUSE, "only_worker": name}
    job = ended(master, master.run(upscaled(f"up-one-{name}", watch=watch)))
    assert job["state"] == "done"
    assert name not in workers_of(job)
    failed = [one for item in job["items"] for one in item["attempts"] if one["state"] == "failed"]
    assert {one["participant"] for one in failed} == {name}
    assert all(CAUSE in one["error"]["message"] for one in failed)
    assert tensor(fleet.master, f"up-one-{name}")["blake3"] == pixels_alone(alone, alone_instance)


def partial_prompt(prefix: str, **how: Any) -> Prompt:
    """Saves the picture as it was, and as it became."""
    graph = Graph()
    image = marked(graph, source(graph, prefix))
    watch = {"delay_s": 0.1, "fail": CAUSE, "only_marked": True}
    made = upscale(graph, image, prefix, on_failure="partial", watch=watch, **how)
    graph.save(image, f"{prefix}-before")
    graph.save(made, f"{prefix}-after")
    graph.hash(made, prefix)
    return graph.prompt


def shown_on(entry: dict[str, Any], node_id: str) -> str:
    """What a prompt's history shows on a node, also from nodes that stood in for it."""
    stood_in = {one for one, meta in entry["meta"].items() if meta["display_node"] == node_id}
    return str([output for one, output in entry["outputs"].items() if one in {node_id, *stood_in}])


@pytest.mark.parametrize("coordinates", [False, True], ids=["pulls", "coordinates"])
@pytest.mark.parametrize("mode", ["mosaic", "linear"])
def test_mbt7_partial_keeps_the_source(
    mode: str, coordinates: bool, fleet: Fleet, master: Client, alone: Client, alone_instance: Instance
) -> None:
    master.change_settings(master_delegate_only=coordinates)
    prefix = f"up-partial-{mode}-{int(coordinates)}"
    prompt = partial_prompt(prefix, mode=mode)
    job = master.run(prompt)
    told = ended(master, job)
    assert told["state"] == "partial"
    assert len(told["missing"]) == 1
    shown = shown_on(master.succeeded(job), of_class(prompt, UPSCALE))
    x, y = (TILE * place for place in MARKED)
    for part in ("1 of 12 tiles is missing", f"x {x}, y {y}", CAUSE):
        assert part in shown, shown
    before, after = (load_saved(fleet.master, f"{prefix}-{when}").tensors["value"] for when in ("before", "after"))
    inside = (slice(None), slice(y + INSET, y + TILE - INSET), slice(x + INSET, x + TILE - INSET))
    assert torch.equal(after[inside], before[inside])
    assert not torch.equal(after[:, y : y + TILE, :x], before[:, y : y + TILE, :x])
    # The single server, where the tile fails as well, keeps the same pixels.
    alone.run(prompt)
    assert tensor(fleet.master, prefix)["blake3"] == tensor(alone_instance, prefix)["blake3"]


def test_mbt7_partial_is_no_answer_of_the_cache(fleet: Fleet, master: Client) -> None:
    """The same prompt again tries again: the tile fails only once on each."""
    master.change_settings(max_attempts=1)
    prompt = upscaled("up-partial-again", on_failure="partial", **failing(times=1, fail="planted again"))
    states = [ended(master, master.run(prompt))["state"] for _ in range(4)]
    assert states[0] == "partial"
    assert states[-1] == "done"
    assert image_runs([fleet.master], "up-partial-again") == [1]
