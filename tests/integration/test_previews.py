"""Previews and the event stream: what workers do is seen at the master, by the client that queued the prompt."""

from __future__ import annotations

import io
import itertools
import json

import pytest
from fleetkit.background import Listener
from fleetkit.client import Client
from fleetkit.graphs import Graph, Link, Prompt, of_class, pulled
from fleetkit.waiting import eventually
from PIL import Image

from devtools.fleet import Fleet

SIDE_PX = 64
ITEM_S = 1.5
STEPS = 15
PREVIEW_METHOD = {"preview_method": "latent2rgb"}
EVENTS_PER_S = 4.0
"""At most so often is one job told of."""


def with_previews(prefix: str, items: int, *, delay_s: float = ITEM_S) -> Prompt:
    graph = Graph()
    image = graph.image(graph.seed(), salt=prefix)
    steps = graph.add("KitSteps", image=image, delay_s=delay_s, steps=STEPS, side_px=SIDE_PX)
    graph.hash(graph.collect(steps, items=items), prefix)
    return graph.prompt


def test_previews_of_workers_show_on_the_collector(fleet: Fleet, master: Client) -> None:
    """Each with the name of who is at it below the picture, and only for this client."""
    master.change_settings(master_delegate_only=True)
    prompt = with_previews("previews", 4)
    collector = of_class(prompt, "DistributedCollector")
    with Listener(master) as listener, Listener(master) as other:
        job = master.run(prompt, client_id=listener.client_id, extra_data=PREVIEW_METHOD)
        pictures, others = list(listener.pictures), list(other.pictures)
    assert len(pictures) >= 4
    assert not others
    for metadata, data in pictures:
        assert (metadata["node_id"], metadata["prompt_id"]) == (collector, job)
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "JPEG"
            assert picture.height > picture.width >= SIDE_PX, "there is a strip with the name"
    assert len({data for _, data in pictures}) >= 4, "they change"


def test_client_of_the_old_kind_gets_them_as_well(master: Client) -> None:
    """The collector is the node at work: its pictures are meant for it."""
    master.change_settings(master_delegate_only=True)
    with Listener(master, takes_metadata=False) as listener:
        master.run(with_previews("previews-old", 2), client_id=listener.client_id, extra_data=PREVIEW_METHOD)
        assert listener.pictures
        assert all(metadata == {} for metadata, _ in listener.pictures)


def test_previews_end_with_the_job(master: Client) -> None:
    master.change_settings(master_delegate_only=True)
    with Listener(master) as listener:
        job = master.queue(with_previews("previews-end", 20), client_id=listener.client_id, extra_data=PREVIEW_METHOD)
        eventually(lambda: listener.pictures, "a preview")
        master.post("/interrupt", {"prompt_id": job})
        eventually(master.idle, "the master is idle")
        eventually(lambda: listener.of("execution_interrupted", job), "the client is told")
        count = len(listener.pictures)
        master.run(pulled("after", 2), client_id=listener.client_id)
        assert len(listener.pictures) == count


def test_event_stream_tells_of_the_job_its_items_and_its_end(fleet: Fleet, master: Client) -> None:
    """Throttled, and the last state is always told."""
    items = 8
    with Listener(master) as listener:
        job = master.run(pulled("events", items, delay_s=0.4), client_id=listener.client_id)
        eventually(
            lambda: [
                told for told in listener.told("flotilla.job") if told["job_id"] == job and told["state"] == "done"
            ],
            "the end of the job is told",
        )
        jobs = [told for told in listener.told("flotilla.job") if told["job_id"] == job]
        told_items = [told for told in listener.told("flotilla.item") if told["job_id"] == job]
    counts = [told["items_done"] for told in jobs]
    assert counts == sorted(counts)
    assert (counts[-1], jobs[-1]["items_total"]) == (items, items)
    finished = {item["index"] for told in told_items for item in told["items"] if item["state"] == "done"}
    assert finished == set(range(items))
    took_s = master.job(job)["ended_s"] - master.job(job)["created_s"]
    assert len(jobs) <= took_s * EVENTS_PER_S + 3


def test_everything_that_is_sent_is_plain_json(master: Client) -> None:
    """A message that is not ends the host's server; a failing job tells the most."""
    with Listener(master) as listener:

        def fault(graph: Graph, image: Link, index: Link) -> Link:
            return graph.add("KitFail", image=image, message="NaN \x00 ‮ 💥", only_worker="w1", index=index, times=1)

        master.run(pulled("plain", 6, fault=fault), client_id=listener.client_id)
        told = [data for name, data in listener.messages if name.startswith("flotilla.")]
    assert told
    assert json.loads(json.dumps(told, allow_nan=False)) == told


@pytest.mark.parametrize("frozen", ["w1"])
def test_participants_are_told_when_they_go_and_come(frozen: str, master: Client) -> None:
    with Listener(master) as listener:
        master.change_worker(frozen, enabled=False)
        master.change_worker(frozen, enabled=True)
        eventually(
            lambda: (
                [told["state"] for told in listener.told("flotilla.participant") if told["id"] == frozen][-2:]
                == ["offline", "online"]
            ),
            "going and coming are told",
        )


def test_progress_of_a_pull_job_rises(master: Client) -> None:
    """On the collector itself, whenever the master has computed an item of its own and while it waits."""
    prompt = pulled("pull-progress", 15, delay_s=0.3)
    collector = of_class(prompt, "DistributedCollector")
    with Listener(master) as listener:
        job = master.run(prompt, client_id=listener.client_id)
        seen = [data["value"] for data in listener.of("progress", job) if data["node"] == collector]
    assert all(before <= after for before, after in itertools.pairwise(seen))
    assert len(set(seen)) >= 3, "it moves before the end; while the master computes one of its own it cannot"
