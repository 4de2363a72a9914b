"""What people see of an upscale while it runs: tiles done, the picture as it is by now, and who is at which tile."""

from __future__ import annotations

import io
import itertools

import pytest
from fleetkit.background import Listener
from fleetkit.client import Client
from fleetkit.graphs import of_class
from fleetkit.upscales import SIZE, TILES, UPSCALE, upscaled
from fleetkit.waiting import eventually
from PIL import Image

TILE_S = 0.5
COLUMNS = 4


@pytest.mark.parametrize("coordinates", [False, True], ids=["pulls", "coordinates"])
def test_progress_and_pictures_on_the_node(coordinates: bool, master: Client) -> None:
    master.change_settings(master_delegate_only=coordinates)
    prompt = upscaled(f"up-shown-{int(coordinates)}", watch={"delay_s": TILE_S})
    node = of_class(prompt, UPSCALE)
    with Listener(master) as listener, Listener(master) as other:
        job = master.run(prompt, client_id=listener.client_id)
        seen = [data for data in listener.of("progress", job) if data["node"] == node]
        pictures, others = list(listener.pictures), list(other.pictures)
    assert not others
    shares = [data["value"] / data["max"] for data in seen]
    assert all(before <= after for before, after in itertools.pairwise(shares)), "progress never goes back"
    assert shares[-1] == 1.0
    assert len(set(shares)) >= 4, "it moves"
    canvases = [data for metadata, data in pictures if (metadata["node_id"], metadata["prompt_id"]) == (node, job)]
    assert len(set(canvases)) >= 3, "the picture changes"
    for data in canvases:
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "JPEG"
            assert picture.size == SIZE


def test_events_tell_who_is_at_which_tile(master: Client) -> None:
    with Listener(master) as listener:
        job = master.run(upscaled("up-events", watch={"delay_s": TILE_S}), client_id=listener.client_id)
        eventually(
            lambda: [
                told for told in listener.told("flotilla.job") if told["job_id"] == job and told["state"] == "done"
            ],
            "the end of the job is told",
        )
        jobs = [told for told in listener.told("flotilla.job") if told["job_id"] == job]
        items = [item for told in listener.told("flotilla.item") if told["job_id"] == job for item in told["items"]]
    assert (jobs[-1]["items_done"], jobs[-1]["items_total"]) == (TILES, TILES)
    assert {item["index"] for item in items if item["state"] == "done"} == set(range(TILES))
    places = {(tile["column"], tile["row"]) for item in items for tile in item["tile"]["tiles"]}
    assert places == {(column, row) for column in range(COLUMNS) for row in range(TILES // COLUMNS)}
    assert {item["participant"] for item in items if item["state"] == "running"} & {"w1", "w2"}
