"""Items that the master computes inside its running prompt: what the host is told to forget, and where things show."""

from __future__ import annotations

import psutil
import pytest
from fleetkit.background import Listener
from fleetkit.client import Client
from fleetkit.fleets import tensor
from fleetkit.graphs import Graph, Prompt

from devtools.fleet import Fleet

ITEMS = 60
"""More than one round has takes."""
LARGE_PX = 512
RESULT_BYTES = LARGE_PX * LARGE_PX * 3 * 4
MOST_NODES_TOLD = 40
"""Of some 370 that have run in the end."""


@pytest.fixture(autouse=True)
def alone(master: Client) -> None:
    """The master makes all items."""
    for worker in ("w1", "w2"):
        master.change_worker(worker, enabled=False)


def inverted(prefix: str, size_px: int, items: int = ITEMS) -> Prompt:
    """Two nodes of an item make a picture each, so that the host would keep two of them beside the result."""
    graph = Graph()
    image = graph.add("ImageInvert", image=graph.image(graph.seed(), size_px=size_px, salt=prefix))
    graph.hash(graph.collect(image, items=items), prefix)
    return graph.prompt


def test_memory_does_not_grow_beyond_the_results(fleet: Fleet, master: Client) -> None:
    master.run(inverted("rounds-warm", LARGE_PX, 3))
    process = psutil.Process(fleet.master.pid)
    before_bytes = process.memory_info().rss
    master.run(inverted("rounds-large", LARGE_PX), timeout_s=60)
    grown_bytes = process.memory_info().rss - before_bytes
    assert tensor(fleet.master, "rounds-large")["shape"] == [ITEMS, LARGE_PX, LARGE_PX, 3]
    # Kept, they would be three times the results: 570 MB.
    assert grown_bytes < 1.8 * ITEMS * RESULT_BYTES


def test_progress_messages_stay_small_and_show_on_nodes_that_the_user_sees(master: Client) -> None:
    prompt = inverted("rounds-messages", 8)
    with Listener(master) as listener:
        master.run(prompt, client_id=listener.client_id)
        told = [data["nodes"] for kind, data in listener.messages if kind == "progress_state"]
    assert len(told) > ITEMS
    assert max(map(len, told)) < MOST_NODES_TOLD
    shown = {state["display_node_id"] for nodes in told for state in nodes.values()}
    assert shown <= set(prompt)
    ids = {node_id for nodes in told for node_id in nodes}
    assert max(map(len, ids)) < 20, "ids do not nest"


def test_an_error_in_an_added_item_shows_on_the_collector_and_the_next_run_works(master: Client) -> None:
    """The host shows errors on nodes of the user's prompt only: the collector is where the item was added."""
    graph = Graph()
    index = graph.add("DistributedItem")
    image = graph.image(graph.seed(), size_px=8, salt="rounds-error")
    failing = graph.add("KitFail", image=image, message="no more", only_worker="", index=index, only_items="40")
    collector = graph.collect(failing, items=ITEMS)
    graph.hash(collector, "rounds-error")
    error = master.error_of(master.queue(graph.prompt))
    assert error["node_id"] == collector[0]
    assert error["exception_message"].strip() == "no more"
    master.run(inverted("rounds-after-error", 8, 5))
