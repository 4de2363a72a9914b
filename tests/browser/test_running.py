"""What a person sees and can do while a distributed workflow runs, and when it fails."""

from __future__ import annotations

from pathlib import Path

from browserkit.frontend import FrontEnd
from browserkit.saved import Saved
from fleetkit.client import Client
from fleetkit.waiting import eventually

LONG_S = 60
CAUSE = "the third mast is broken"


def slow_workflow() -> Saved:
    graph = Saved()
    seed = graph.add("DistributedSeed", [51, "fixed"], outputs=[("seed", "INT")])
    image = graph.add(
        "KitImage",
        [0, "fixed", 32, 32, 1, LONG_S, "cancelled by hand"],
        outputs=[("image", "IMAGE")],
        widgets={"seed": ((seed, 0), "INT")},
    )
    collector = graph.add(
        "DistributedCollector", [False], sockets={"images": ((image, 0), "IMAGE")}, outputs=[("images", "IMAGE")]
    )
    graph.add("PreviewImage", [], sockets={"images": ((collector, 0), "IMAGE")})
    return graph


def test_bar_on_the_collector_moves_while_workers_are_at_work(tab: FrontEnd, artefacts: Path) -> None:
    """The master's own item takes no time, the workers' items some seconds."""
    graph = Saved()
    delay = graph.add("DistributedValue", ["0", '{"1":"2","2":"4","_type":"FLOAT"}'], outputs=[("value", "FLOAT")])
    image = graph.add(
        "KitImage",
        [71, "fixed", 32, 32, 1, 0, "slow on workers"],
        outputs=[("image", "IMAGE")],
        widgets={"delay_s": ((delay, 0), "FLOAT")},
    )
    collector = graph.add(
        "DistributedCollector", [False], sockets={"images": ((image, 0), "IMAGE")}, outputs=[("images", "IMAGE")]
    )
    graph.add("PreviewImage", [], sockets={"images": ((collector, 0), "IMAGE")})
    tab.open(graph.workflow())

    prompt_id = tab.press_run()

    first = tab.await_bar(collector)
    tab.picture(artefacts / "at-work.png")
    assert tab.ending(prompt_id) == "execution_success", tab.error()
    said = [value / maximum for value, maximum in tab.progress(collector)]
    assert said == sorted(said), "progress only grows"
    assert first < said[-1] == 1
    assert len([value for value in said if 1 / 3 < value < 1]) >= 3, "it moves within items, not only with them"


def test_cancel_button_stops_every_participant(tab: FrontEnd, master: Client, w1: Client, w2: Client) -> None:
    tab.open(slow_workflow().workflow())
    prompt_id = tab.press_run()
    for server in (master, w1, w2):
        eventually(lambda server=server: server.queued()[0], f"{server} works on the job")

    tab.page.get_by_role("button", name="Cancel current run").click()

    for server in (master, w1, w2):
        eventually(server.idle, f"{server} has stopped")
    assert tab.ending(prompt_id) == "execution_interrupted"
    assert master.job(prompt_id)["state"] == "cancelled"


def test_failure_names_the_worker_and_the_cause(tab: FrontEnd, master: Client, artefacts: Path) -> None:
    """The item of a worker fails on both workers; the master's own is fine."""
    graph = Saved()
    seed = graph.add("DistributedSeed", [61, "fixed"], outputs=[("seed", "INT")])
    made = graph.add(
        "KitImage",
        [0, "fixed", 32, 32, 1, 0, ""],
        outputs=[("image", "IMAGE")],
        widgets={"seed": ((seed, 0), "INT")},
    )
    for worker in ("w1", "w2"):
        made = graph.add(
            "KitFail", [CAUSE, worker], sockets={"image": ((made, 0), "IMAGE")}, outputs=[("image", "IMAGE")]
        )
    collector = graph.add(
        "DistributedCollector", [False], sockets={"images": ((made, 0), "IMAGE")}, outputs=[("images", "IMAGE")]
    )
    graph.add("PreviewImage", [], sockets={"images": ((collector, 0), "IMAGE")})
    tab.open(graph.workflow())

    prompt_id = tab.press_run()

    assert tab.ending(prompt_id) == "execution_error"
    error = tab.error()
    assert error["node_id"] == str(collector)
    assert CAUSE in error["exception_message"]
    assert "on Worker" in error["exception_message"]
    tab.page.get_by_role("button", name="View details").wait_for()
    tab.open_errors()
    tab.picture(artefacts / "failure.png")
    tab.page.get_by_test_id("properties-panel").get_by_text(CAUSE).first.wait_for()
