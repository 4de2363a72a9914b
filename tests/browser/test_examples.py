"""The examples that come with the pack: each opens in the real front end, and those whose models are there run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from browserkit.frontend import FrontEnd
from fleetkit.client import Client
from loader import REPOSITORY

from devtools.instances import PACK_LINK

FOLDER = REPOSITORY / "example_workflows"
FILES = sorted(FOLDER.glob("*.json"))
PARTICIPANTS = 3
PICTURES = {
    "distributed-txt2img": PARTICIPANTS,
    "distributed-prompts": PARTICIPANTS,
    "route-to-free-gpu": 1,
    "pull-many-pictures": 12,
}
"""How many pictures each example makes on this fleet; the others need models that no test has."""
SIZE_PX = 128
"""The tiny model's own size, instead of the example's: the same run in a fraction of the time."""


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def the_node(workflow: dict[str, Any], kind: str) -> int:
    (node_id,) = [node["id"] for node in workflow["nodes"] if node["type"] == kind]
    return int(node_id)


def test_there_are_examples() -> None:
    assert set(PICTURES) < {file.stem for file in FILES}


def test_the_host_offers_the_examples(master: Client) -> None:
    offered = master.get("/workflow_templates")[PACK_LINK]
    assert sorted(offered) == [file.stem for file in FILES]
    for file in FILES:
        picture = master.request("GET", f"/api/workflow_templates/{PACK_LINK}/{file.stem}.jpg")
        assert (picture.status, picture.body[:2]) == (200, b"\xff\xd8"), f"{file.stem} has a preview picture"


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_example_opens_as_it_was_saved(tab: FrontEnd, artefacts: Path, file: Path) -> None:
    workflow = read(file)

    tab.open(workflow)

    assert tab.missing() == set()
    opened = tab.saved()
    assert opened["links"] == workflow["links"]
    for node, saved in zip(opened["nodes"], workflow["nodes"], strict=True):
        assert node.get("widgets_values", []) == saved.get("widgets_values", []), node["type"]
        assert node.get("outputs") == saved.get("outputs"), node["type"]
    tab.picture_of_graph(artefacts / "examples" / f"{file.stem}.jpg")


@pytest.mark.parametrize("name", PICTURES)
def test_example_runs(tab: FrontEnd, name: str) -> None:
    workflow = read(FOLDER / f"{name}.json")
    tab.open(workflow)
    for side in ("width", "height"):
        tab.set_value(the_node(workflow, "EmptyLatentImage"), side, SIZE_PX)

    tab.run()

    assert len(set(tab.await_images(the_node(workflow, "SaveImage"), PICTURES[name]))) == PICTURES[name]
