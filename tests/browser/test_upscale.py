"""The upscale nodes in the real front end: in the library, in workflows of the older node, at work, stopped and failing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from browserkit.frontend import FrontEnd
from browserkit.saved import Saved
from fleetkit.client import Client
from fleetkit.waiting import eventually
from loader import REPOSITORY
from test_node_library import definition, found

CAUSE = "the fifth mast is broken"
PEER = {"aux_id": "robertvoy/ComfyUI-Distributed"}

UPSCALE, UPSCALE_MODEL = "UltimateSDUpscaleDistributed", "DistributedUpscale"
NAMES = {UPSCALE: "Ultimate SD Upscale Distributed (No Upscale)", UPSCALE_MODEL: "Distributed Upscale"}
MODEL_SIDE = ["model", "positive", "negative", "vae"]
OLD = [
    *("seed", "control_after_generate", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    *("tile_width", "tile_height", "padding", "mask_blur", "force_uniform_tiles", "tiled_decode"),
]
"""The older node's widgets, as saved."""
NEW = {
    "mode": "mosaic",
    "seam_fix_mode": "None",
    "seam_fix_denoise": 1,
    "seam_fix_width": 64,
    "seam_fix_mask_blur": 8,
    "seam_fix_padding": 16,
    "canvas": "8bit",
    "tile_batch": 1,
    "on_failure": "fail",
    "frame_chunk": 0,
    "seam_fix_own_denoise": False,
}
"""The widgets that ours has more, at their defaults."""
CUSTOM = ["custom_sampler", "custom_sigmas"]

AS_IN_PICTURES = [
    *(269777990474642, "randomize", 20, 7, "dpmpp_2m_sde", "karras", 0.6000000000000001),
    *(1024, 1024, 32, 16, True, False, True),
]
"""As in the older pack's workflow for pictures: the last value is of a widget that it had lost itself, and stands on
`mode` now, where true and false count for nothing."""
AS_IN_VIDEOS = [157027921504581, "fixed", 5, 1, "res_2s", "bong_tangent", 0.35, 1024, 1024, 32, 16, True, False]
"""As in its workflow for videos. Sampler and scheduler come with a pack that is not installed in the fleet."""
SAVED = {
    "12 values": AS_IN_VIDEOS[:12],
    "13 values": AS_IN_VIDEOS,
    "14 values": AS_IN_PICTURES,
    "15 values": [*AS_IN_PICTURES, False],
}

SIZE_PX, TILE_PX, TILES = 256, 64, 16
PARTICIPANTS = {"master", "w1", "w2"}

_PICTURE = """id => {
    const shown = app.nodePreviewImages?.[String(id)] ?? [];
    return shown.find(source => source.startsWith('blob:')) ?? null;
}"""

_WIDTH_OF = """async source => {
    const image = new Image();
    image.src = source;
    await image.decode();
    return image.naturalWidth;
}"""

_DRAWN_TEXT = """([id, text]) => {
    const node = app.rootGraph.getNodeById(id);
    return (node.widgets ?? []).some(widget => String(widget.value ?? '').includes(text));
}"""


def upscaling(
    values: list[Any], *, salt: str, watch: tuple[Any, ...] = ("tiles",), properties: dict[str, str] | None = None
) -> tuple[Saved, int, int]:
    """A picture on the tiny model, with an upscale as it was saved; ids of the upscale and of what shows its result.

    ``watch`` are the values of a KitWatchVae.
    """
    graph = Saved()
    image = graph.add("KitImage", [5, "fixed", SIZE_PX, SIZE_PX, 1, 0, salt], outputs=[("image", "IMAGE")])
    model = graph.add("UNETLoader", ["flotilla_tiny.safetensors", "default"], outputs=[("MODEL", "MODEL")])
    vae = graph.add("VAELoader", ["flotilla_tiny_vae.safetensors"], outputs=[("VAE", "VAE")])
    vae = graph.add("KitWatchVae", list(watch), sockets={"vae": ((vae, 0), "VAE")}, outputs=[("vae", "VAE")])
    wish = graph.add("KitConditioning", [2, "day"], outputs=[("conditioning", "CONDITIONING")])
    none = graph.add(
        "ConditioningZeroOut",
        [],
        sockets={"conditioning": ((wish, 0), "CONDITIONING")},
        outputs=[("CONDITIONING", "CONDITIONING")],
    )
    upscale = graph.add(
        UPSCALE,
        values,
        sockets={
            "upscaled_image": ((image, 0), "IMAGE"),
            "model": ((model, 0), "MODEL"),
            "positive": ((wish, 0), "CONDITIONING"),
            "negative": ((none, 0), "CONDITIONING"),
            "vae": ((vae, 0), "VAE"),
        },
        outputs=[("IMAGE", "IMAGE")],
        properties=properties,
    )
    shown = graph.add("PreviewImage", [], sockets={"images": ((upscale, 0), "IMAGE")}, place=(3, 0))
    return graph, upscale, shown


def small(mode: str = "mosaic", on_failure: str = "fail") -> list[Any]:
    """Values of an upscale of few steps in small tiles."""
    new = {**NEW, "mode": mode, "on_failure": on_failure}
    return [7, "fixed", 2, 2, "euler", "simple", 0.5, TILE_PX, TILE_PX, 16, 4, True, False, *new.values()]


def watched(*, delay_s: float = 0, fail: str = "", only_worker: str = "") -> tuple[Any, ...]:
    """Values of a KitWatchVae: name, delay_s, speeds, fail, stall, only_worker, times, only_marked."""
    return ("tiles", delay_s, "", fail, "", only_worker, 0, False)


@pytest.mark.parametrize("node_id", NAMES)
def test_library_lists_the_node(tab: FrontEnd, node_id: str) -> None:
    assert NAMES[node_id] in found(tab, "Upscale")
    shown = definition(tab, node_id)
    assert (shown["display_name"], shown["category"]) == (NAMES[node_id], "image/upscaling")
    assert shown["description"]
    inputs = {**shown["input"].get("required", {}), **shown["input"].get("optional", {})}
    without = [name for name, (_, *options) in inputs.items() if not (options and options[0].get("tooltip"))]
    assert without == [], "inputs without a tooltip"


@pytest.mark.parametrize("node_id", NAMES)
def test_inputs_come_in_the_order_of_the_older_node(tab: FrontEnd, node_id: str) -> None:
    shown = definition(tab, node_id)
    widgets = [name for name in OLD if name != "control_after_generate"]
    image = {UPSCALE: ["upscaled_image"], UPSCALE_MODEL: ["image"]}[node_id]
    factor = {UPSCALE: [], UPSCALE_MODEL: ["upscale_by"]}[node_id]
    assert list(shown["input"]["required"]) == [*image, *MODEL_SIDE, *factor, *widgets]
    upscaler = {UPSCALE: [], UPSCALE_MODEL: ["upscale_model"]}[node_id]
    assert list(shown["input"]["optional"]) == [*upscaler, *NEW, *CUSTOM]


def test_a_new_node_has_the_defaults(tab: FrontEnd) -> None:
    tab.open(Saved().workflow())
    node_id = tab.page.evaluate(
        "kind => { const node = LiteGraph.createNode(kind); app.rootGraph.add(node); return node.id; }", UPSCALE
    )
    values = tab.values(node_id)
    assert list(values) == [*OLD, *NEW]
    assert {name: values[name] for name in NEW} == NEW
    old = ("steps", "cfg", "denoise", "tile_width", "tile_height", "padding", "mask_blur", "force_uniform_tiles")
    assert [values[name] for name in old] == [20, 8, 0.5, 512, 512, 32, 8, True]


@pytest.mark.parametrize("form", SAVED)
def test_older_saved_forms_open_and_run(form: str, tab: FrontEnd, master: Client) -> None:
    """Every value is on its widget, and what is new has no value that counts. It runs with all that it can run with here:
    the tiles are smaller, and a sampler is chosen that the fleet has."""
    values = SAVED[form]
    graph, upscale, shown = upscaling(values, salt=f"saved form {form}", properties=PEER)

    tab.open(graph.workflow())

    assert tab.missing() == set()
    kept = tab.values(upscale)
    saved = dict(zip(OLD, values, strict=False))
    assert {name: kept[name] for name in saved} == saved
    said = [value for value in (kept[name] for name in NEW) if not isinstance(value, bool)]
    assert said == [value for value in NEW.values() if not isinstance(value, bool)][-len(said) :]
    for widget, value in (("tile_width", TILE_PX), ("tile_height", TILE_PX), ("steps", 1)):
        tab.set_value(upscale, widget, value)
    if saved["sampler_name"] == "res_2s":
        tab.set_value(upscale, "sampler_name", "euler")
        tab.set_value(upscale, "scheduler", "simple")
    prompt_id = tab.run()
    assert master.job(prompt_id)["items_total"] == TILES
    assert len(tab.await_images(shown, 1)) == 1


def test_what_is_no_mode_is_refused(tab: FrontEnd, master: Client) -> None:
    graph, upscale, _ = upscaling(small(), salt="no mode")
    tab.open(graph.workflow())
    prompt = tab.exported()
    prompt[str(upscale)]["inputs"]["mode"] = "spiral"
    answer = master.request("POST", "/prompt", {"prompt": prompt})
    assert answer.status == 400
    assert "'spiral' is not one of mosaic, linear" in answer.text


def test_upscale_at_work(tab: FrontEnd, master: Client, artefacts: Path) -> None:
    graph, upscale, shown = upscaling(small(), salt="at work", watch=watched(delay_s=0.5))
    tab.open(graph.workflow())

    prompt_id = tab.press_run()

    first = tab.await_bar(upscale)
    picture = tab.page.wait_for_function(_PICTURE, arg=upscale).json_value()
    assert tab.page.evaluate(_WIDTH_OF, picture) == SIZE_PX, "the whole canvas, not a tile"
    for theme in ("light", "dark"):
        tab.setting("Comfy.ColorPalette", theme)
        tab.picture(artefacts / f"upscale-{theme}.png")
    assert tab.ending(prompt_id) == "execution_success", tab.error()
    said = [value / maximum for value, maximum in tab.progress(upscale)]
    assert said == sorted(said), "progress only grows"
    assert first < said[-1] == 1
    assert len({value for value in said if 0 < value < 1}) >= 4
    job = master.job(prompt_id)
    assert (job["state"], job["items_total"]) == ("done", TILES)
    assert {item["participant"] for item in job["items"]} == PARTICIPANTS
    assert len(tab.await_images(shown, 1)) == 1


def test_cancel_button_stops_an_upscale(tab: FrontEnd, master: Client, w1: Client, w2: Client) -> None:
    graph, _, _ = upscaling(small(), salt="cancelled by hand", watch=watched(delay_s=60))
    tab.open(graph.workflow())
    prompt_id = tab.press_run()
    for server in (master, w1, w2):
        eventually(lambda server=server: server.queued()[0], f"{server} works on the job")
    eventually(lambda: master.job(prompt_id)["items_total"] == TILES, "the tiles are known")

    tab.page.get_by_role("button", name="Cancel current run").click()

    for server in (master, w1, w2):
        eventually(server.idle, f"{server} has stopped")
    assert tab.ending(prompt_id) == "execution_interrupted"
    assert master.job(prompt_id)["state"] == "cancelled"


def test_failure_names_the_tile_and_the_cause(tab: FrontEnd, artefacts: Path) -> None:
    graph, upscale, _ = upscaling(small("linear"), salt="fails everywhere", watch=watched(fail=CAUSE))
    tab.open(graph.workflow())

    prompt_id = tab.press_run()

    assert tab.ending(prompt_id) == "execution_error"
    error = tab.error()
    assert error["node_id"] == str(upscale)
    assert CAUSE in error["exception_message"]
    assert f"tile 1 of {TILES} (redraw, x 0, y 0)" in error["exception_message"]
    tab.page.get_by_role("button", name="View details").wait_for()
    tab.open_errors()
    tab.picture(artefacts / "upscale-failure.png")
    tab.page.get_by_test_id("properties-panel").get_by_text(CAUSE).first.wait_for()


def test_a_failure_of_one_worker_is_no_failure(tab: FrontEnd, master: Client) -> None:
    graph, _, shown = upscaling(small(), salt="fails on one", watch=watched(delay_s=0.2, fail=CAUSE, only_worker="w1"))
    tab.open(graph.workflow())
    prompt_id = tab.run()
    job = master.job(prompt_id)
    assert (job["state"], {item["participant"] for item in job["items"]}) == ("done", PARTICIPANTS - {"w1"})
    assert len(tab.await_images(shown, 1)) == 1


def test_example_upscales(tab: FrontEnd, master: Client) -> None:
    """The example that needs no file but a checkpoint, at the tiny model's size."""
    workflow = json.loads((REPOSITORY / "example_workflows" / "upscale-txt2img-then-tiles.json").read_text("utf-8"))
    tab.open(workflow)
    by_kind = {node["type"]: int(node["id"]) for node in workflow["nodes"]}
    for kind, size_px in (("EmptyLatentImage", SIZE_PX // 2), ("ImageScale", SIZE_PX)):
        for side in ("width", "height"):
            tab.set_value(by_kind[kind], side, size_px)
    for side in ("tile_width", "tile_height"):
        tab.set_value(by_kind[UPSCALE], side, SIZE_PX // 2)

    prompt_id = tab.run()

    assert len(tab.await_images(by_kind["SaveImage"], 1)) == 1
    assert master.job(prompt_id)["items_total"] == 4
