"""How the pack's nodes show in the front end's node library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browserkit.frontend import FrontEnd

DISPLAY_NAMES = {
    "DistributedCollector": "Distributed Collector",
    "DistributedCollectorAny": "Distributed Collector (Any)",
    "DistributedSeed": "Distributed Seed",
    "DistributedValue": "Distributed Value",
    "DistributedItem": "Distributed Item",
    "DistributedPrompts": "Distributed Prompts",
    "DistributedModelName": "Distributed Model Name",
    "DistributedEmptyImage": "Distributed Empty Image",
    "ImageBatchDivider": "Image Batch Divider",
    "AudioBatchDivider": "Audio Batch Divider",
}
RETIRED = "Distributed Queue (old)"
INTERNAL = {
    "FlotillaDeliver": "Deliver Item",
    "FlotillaOffset": "Seed of Item",
    "FlotillaPick": "Prompt of Item",
    "FlotillaItem": "Number of Item",
    "FlotillaGather": "Gather Items",
    "FlotillaHandIn": "Hand In Item",
    "FlotillaRound": "Round of Items",
    "FlotillaTake": "Take Item",
    "FlotillaTile": "Redraw Tile",
    "FlotillaModelTile": "Enlarge Tile",
    "FlotillaPrepare": "Prepare for Tiles",
    "FlotillaInput": "Value from Master",
    "FlotillaConstant": "Constant",
    "FlotillaPack": "Pack Values",
    "FlotillaUpscale": "Continue Upscale",
}


def found(tab: FrontEnd, text: str) -> set[str]:
    """The names of the nodes that the library's search finds."""
    if not tab.page.get_by_placeholder("Search...").count():
        tab.page.get_by_role("button", name="Node Library").click()
    tab.page.get_by_placeholder("Search...").first.fill(text)
    tab.page.wait_for_function(
        """text => {
            const rows = [...document.querySelectorAll('[role=treeitem]')].map(row => row.innerText.trim()).join();
            const still = window.flotillaRows === text + rows;
            window.flotillaRows = text + rows;
            return still;
        }""",
        arg=text,
        polling=400,
    )
    return {row.strip() for row in tab.page.get_by_role("treeitem").all_inner_texts()}


def definition(tab: FrontEnd, node_id: str) -> dict[str, Any]:
    script = "id => JSON.parse(JSON.stringify(LiteGraph.registered_node_types[id].nodeData))"
    return dict(tab.page.evaluate(script, node_id))


def test_library_lists_the_nodes_by_their_names(tab: FrontEnd, artefacts: Path) -> None:
    assert set(DISPLAY_NAMES.values()) <= found(tab, "Distributed") | found(tab, "Divider")
    found(tab, "Distributed")
    artefacts.mkdir(parents=True, exist_ok=True)
    tab.page.screenshot(path=artefacts / "node-library.png")


@pytest.mark.parametrize("name", INTERNAL.values())
def test_library_hides_internal_nodes(tab: FrontEnd, name: str) -> None:
    assert name not in found(tab, name)


def test_library_hides_the_retired_node(tab: FrontEnd) -> None:
    assert RETIRED not in found(tab, "Distributed Queue")


@pytest.mark.parametrize("node_id", DISPLAY_NAMES)
def test_nodes_explain_themselves(tab: FrontEnd, node_id: str) -> None:
    shown = definition(tab, node_id)
    assert shown["display_name"] == DISPLAY_NAMES[node_id]
    assert shown["description"]
    inputs = {**shown["input"].get("required", {}), **shown["input"].get("optional", {})}
    without = [name for name, (_, *options) in inputs.items() if not (options and options[0].get("tooltip"))]
    assert without == [], "inputs without a tooltip"
