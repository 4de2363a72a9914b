"""Workflows saved with ComfyUI-Distributed, opened unchanged in the real front end; one of them runs unchanged.

The model that they name exists in the fleet: the project's tiny model with a text encoder that encodes every text as
zeros (see `browserkit.checkpoint`). Nothing in the workflow is replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from browserkit.frontend import FrontEnd
from fleetkit.client import Client

Reader = Callable[[str], dict[str, Any]]

COLLECTOR, PREVIEW, SEED, LOADER = 2, 3, 4, 7
PARTICIPANTS = 3

OTHERS = {"ImageResize+"}
"""Classes of packs that are not installed in the fleet."""
UPSCALE = 30


def by_id(workflow: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {node["id"]: node for node in workflow["nodes"]}


def links(workflow: dict[str, Any]) -> set[tuple[int, int, int, int]]:
    """(from, slot, to, slot) of every link; the ids and type names of links are the front end's own business."""
    return {(link[1], link[2], link[3], link[4]) for link in workflow["links"]}


def test_txt2img_opens_whole(tab: FrontEnd, peer_workflow: Reader) -> None:
    file = peer_workflow("distributed-txt2img")
    tab.open(file)
    opened = tab.saved()

    assert tab.missing() == set()
    assert tab.missing_card() == ""
    assert links(opened) == links(file)
    for node_id, node in by_id(file).items():
        if node.get("widgets_values") is not None:
            assert by_id(opened)[node_id].get("widgets_values", []) == node["widgets_values"], node["type"]
    assert tab.values(SEED) == {"seed": 504373561407102, "control_after_generate": "randomize"}
    # Saved before load_balance existed: without values, and with one output that was called IMAGE.
    assert tab.values(COLLECTOR) == {"load_balance": False, "items": 0, "on_failure": "fail"}
    outputs = tab.node(COLLECTOR)["outputs"]
    assert [output["name"] for output in outputs] == ["images", "audio", "latent", "mask"]
    assert outputs[0]["links"] and not any(output["links"] for output in outputs[1:])


def test_txt2img_exports_for_the_api(tab: FrontEnd, peer_workflow: Reader) -> None:
    tab.open(peer_workflow("distributed-txt2img"))
    prompt = tab.exported()
    assert prompt[str(COLLECTOR)]["inputs"] == {
        "load_balance": False,
        "items": 0,
        "on_failure": "fail",
        "images": ["1", 0],
    }
    assert prompt[str(PREVIEW)]["inputs"]["images"] == [str(COLLECTOR), 0]
    assert prompt["8"]["inputs"]["seed"] == [str(SEED), 0]


def test_txt2img_runs_unchanged(tab: FrontEnd, master: Client, peer_workflow: Reader, artefacts: Path) -> None:
    tab.open(peer_workflow("distributed-txt2img"))

    prompt_id = tab.run()

    pictures = tab.await_images(PREVIEW, PARTICIPANTS)
    assert len(set(pictures)) == PARTICIPANTS, "every item has a seed of its own"
    assert master.job(prompt_id)["state"] == "done"
    said = tab.progress(COLLECTOR)
    assert [value for value, _ in said] == sorted(value for value, _ in said), "progress only grows"
    assert said[-1][0] == said[-1][1]
    for theme in ("light", "dark"):
        tab.setting("Comfy.ColorPalette", theme)
        tab.picture(artefacts / f"txt2img-{theme}.png")


def test_upscale_opens_whole(tab: FrontEnd, peer_workflow: Reader, artefacts: Path) -> None:
    file = peer_workflow("distributed-upscale")
    tab.open(file)
    opened = tab.saved()

    assert tab.missing() <= OTHERS
    assert links(opened) == links(file)
    for node_id, node in by_id(file).items():
        if node.get("widgets_values") is not None and node_id != UPSCALE:
            assert by_id(opened)[node_id].get("widgets_values", []) == node["widgets_values"], node["type"]
    saved = by_id(file)[UPSCALE]["widgets_values"]
    values = list(tab.values(UPSCALE).values())
    assert values[: len(saved) - 1] == saved[:-1], "its last value is of a widget that is no more"
    assert list(tab.values(UPSCALE))[len(saved) - 1] == "mode"
    tab.picture(artefacts / "upscale-opened.png")


def test_upscale_exports_for_the_api(tab: FrontEnd, peer_workflow: Reader) -> None:
    tab.open(peer_workflow("distributed-upscale"))
    inputs = tab.exported()[str(UPSCALE)]["inputs"]
    names = ("steps", "tile_width", "mask_blur", "tiled_decode", "seam_fix_mode", "tile_batch")
    assert [inputs[name] for name in names] == [20, 1024, 16, False, "None", 1]
    assert all(isinstance(inputs[name], list) for name in ("upscaled_image", "model", "positive", "negative", "vae"))
