"""What a person sees of items that are pulled: pictures of remote work, and what is missing in the end."""

from __future__ import annotations

from pathlib import Path

from browserkit.frontend import FrontEnd
from browserkit.saved import Saved
from fleetkit.client import Client

CAUSE = "the fourth mast is broken"

_PREVIEW = """id => {
    const node = app.rootGraph.getNodeById(id);
    const shown = [...(app.nodePreviewImages?.[String(id)] ?? []), ...(node.imgs ?? []).map(image => image.src)];
    return shown.some(source => source.startsWith('blob:')) ? shown : null;
}"""

_DRAWN_TEXT = """([id, text]) => {
    const node = app.rootGraph.getNodeById(id);
    return (node.widgets ?? []).some(widget => String(widget.value ?? '').includes(text));
}"""


def test_pictures_of_remote_work_show_on_the_collector(tab: FrontEnd, artefacts: Path) -> None:
    graph = Saved()
    seed = graph.add("DistributedSeed", [510, "fixed"], outputs=[("seed", "INT")])
    image = graph.add(
        "KitImage",
        [0, "fixed", 256, 256, 1, 0, "pictures of remote work"],
        outputs=[("image", "IMAGE")],
        widgets={"seed": ((seed, 0), "INT")},
    )
    steps = graph.add(
        "KitSteps", [3.0, 30, 256], sockets={"image": ((image, 0), "IMAGE")}, outputs=[("image", "IMAGE")]
    )
    collector = graph.add(
        "DistributedCollector",
        [False, 6, "fail"],
        sockets={"images": ((steps, 0), "IMAGE")},
        outputs=[("images", "IMAGE")],
    )
    graph.add("PreviewImage", [], sockets={"images": ((collector, 0), "IMAGE")})
    tab.open(graph.workflow())

    prompt_id = tab.press_run()

    tab.page.wait_for_function(_PREVIEW, arg=collector)
    tab.picture(artefacts / "preview.png")
    assert tab.ending(prompt_id) == "execution_success", tab.error()


def test_the_collector_says_what_is_missing(tab: FrontEnd, master: Client, artefacts: Path) -> None:
    """Both workers fail everything; the master, whose first item is its own prompt's, computes none of what failed."""
    graph = Saved()
    seed = graph.add("DistributedSeed", [610, "fixed"], outputs=[("seed", "INT")])
    image = graph.add(
        "KitImage",
        [0, "fixed", 64, 64, 1, 0, "missing in the end"],
        outputs=[("image", "IMAGE")],
        widgets={"seed": ((seed, 0), "INT")},
    )
    for worker in ("w1", "w2"):
        image = graph.add(
            "KitFail", [CAUSE, worker], sockets={"image": ((image, 0), "IMAGE")}, outputs=[("image", "IMAGE")]
        )
    collector = graph.add(
        "DistributedCollector",
        [False, 0, "partial"],
        sockets={"images": ((image, 0), "IMAGE")},
        outputs=[("images", "IMAGE")],
    )
    shown = graph.add("PreviewImage", [], sockets={"images": ((collector, 0), "IMAGE")})
    tab.open(graph.workflow())

    prompt_id = tab.run()

    job = master.job(prompt_id)
    assert job["state"] == "partial"
    missing = len(job["missing"])
    assert missing
    assert all(CAUSE in reason for reason in job["missing"].values())
    tab.page.wait_for_function(_DRAWN_TEXT, arg=[collector, f"{missing} of 3 items are missing"])
    assert len(tab.await_images(shown, 3 - missing)) == 3 - missing
    tab.picture(artefacts / "partial.png")
