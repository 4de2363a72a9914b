"""The history and the pictures' metadata hold the workflow as the user wrote it; workers' histories can be read."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from fleetkit.client import Client
from fleetkit.graphs import SEED, Graph, Prompt, of_class
from PIL import Image

from devtools.fleet import Fleet

WORKFLOW = {"nodes": [{"id": 1, "type": "DistributedSeed", "widgets_values": [SEED, "fixed"]}], "extra": {"ä": "🙂"}}


def saving(prefix: str) -> Prompt:
    graph = Graph()
    graph.add("SaveImage", images=graph.collect(graph.image(graph.seed(), salt=prefix)), filename_prefix=prefix)
    return graph.prompt


def pictures(folder: Path, prefix: str) -> list[dict[str, Any]]:
    """The metadata of the pictures with this prefix, in order."""
    found = []
    for path in sorted((folder / "output").glob(f"{prefix}_*.png")):
        with Image.open(path) as picture:
            found.append(
                {name: json.loads(text) for name, text in picture.info.items() if name in ("prompt", "workflow")}
            )
    for metadata in found:
        for node in metadata["prompt"].values():
            node.pop("is_changed", None)  # written by the host itself, for every node that has a fingerprint
    return found


def test_history_and_metadata_hold_the_users_prompt(fleet: Fleet, master: Client) -> None:
    prompt = saving("original")
    sent = copy.deepcopy(prompt)
    job = master.run(prompt, extra_data={"extra_pnginfo": {"workflow": WORKFLOW}}, client_id="me")
    _, prompt_id, kept, extra, outputs = master.succeeded(job)["prompt"][:5]
    assert prompt_id == job
    assert kept == sent
    assert extra["extra_pnginfo"] == {"workflow": WORKFLOW}
    assert outputs == [of_class(prompt, "SaveImage")]
    found = pictures(fleet.master.folder, "original")
    assert found == [{"prompt": sent, "workflow": WORKFLOW}] * 3


def test_history_shows_one_prompt_for_one_request(master: Client) -> None:
    before = set(master.get("/history"))
    job = master.run(saving("one"))
    assert set(master.get("/history")) - before == {job}


def test_workers_histories_hold_the_items_prompt(master: Client, w1: Client, fleet: Fleet) -> None:
    """With plain values in place of what varies, marked with job and item, and nothing downstream of the collector."""
    job = master.run(saving("readable"), extra_data={"extra_pnginfo": {"workflow": WORKFLOW}})
    entries = [entry["prompt"] for entry in w1.get("/history").values()]
    (entry,) = [one for one in entries if one[3].get("flotilla", {}).get("job") == job]
    _, _, prompt, extra, _ = entry[:5]
    assert extra["flotilla"]["item"] == 1
    assert prompt[of_class(prompt, "DistributedSeed")]["inputs"] == {"seed": SEED + 1}
    assert {node["class_type"] for node in prompt.values()} == {"DistributedSeed", "KitImage", "FlotillaDeliver"}
    assert not pictures(fleet.workers[0].folder, "readable")


def test_history_tells_the_outputs_of_the_masters_nodes(master: Client) -> None:
    prompt = saving("outputs")
    outputs = master.succeeded(master.run(prompt))["outputs"]
    assert len(outputs[of_class(prompt, "SaveImage")]["images"]) == 3
