"""Older saved forms that a loader must survive, opened in the real front end and run by its own button."""

from __future__ import annotations

from pathlib import Path

import pytest
from browserkit.frontend import FrontEnd
from browserkit.saved import Output, Saved

MASTER_FRAMES, W1_FRAMES, W2_FRAMES = 7, 3, 4
PEER = {"aux_id": "robertvoy/ComfyUI-Distributed"}


def make_images(graph: Saved, plain_seed: int, frames: int = 1, **widgets: tuple[Output, str]) -> int:
    """A Kit Image of 32 pixels squared; the widgets named are linked instead. "fixed" is the front end's control after a seed."""
    return graph.add(
        "KitImage", [plain_seed, "fixed", 32, 32, frames, 0, ""], outputs=[("image", "IMAGE")], widgets=widgets
    )


def old_collector(graph: Saved, images: int, values: object) -> int:
    """A collector as it was before it could gather anything but images."""
    return graph.add(
        "DistributedCollector",
        values,
        sockets={"images": ((images, 0), "IMAGE")},
        outputs=[("IMAGE", "IMAGE")],
        properties=PEER,
    )


def preview(graph: Saved, source: tuple[int, int]) -> int:
    return graph.add("PreviewImage", [], sockets={"images": (source, "IMAGE")})


@pytest.mark.parametrize("values", [None, []], ids=["null", "empty"])
def test_collector_saved_without_values(tab: FrontEnd, values: object) -> None:
    graph = Saved()
    seed = graph.add("DistributedSeed", [11, "fixed"], outputs=[("seed", "INT")], properties=PEER)
    images = make_images(graph, 0, seed=((seed, 0), "INT"))
    collector = old_collector(graph, images, values)
    shown = preview(graph, (collector, 0))

    tab.open(graph.workflow())

    assert tab.missing() == set()
    assert tab.values(collector) == {"load_balance": False, "items": 0, "on_failure": "fail"}
    assert tab.exported()[str(shown)]["inputs"]["images"] == [str(collector), 0]
    tab.run()
    assert len(set(tab.await_images(shown, 3))) == 3


def test_image_divider_saved_with_few_outputs(tab: FrontEnd, artefacts: Path) -> None:
    graph = Saved()
    seed = graph.add("DistributedSeed", [21, "fixed"], outputs=[("seed", "INT")], properties=PEER)
    images = make_images(graph, 0, frames=2, seed=((seed, 0), "INT"))
    collector = old_collector(graph, images, [])
    divider = graph.add(
        "ImageBatchDivider",
        [3],
        sockets={"images": ((collector, 0), "IMAGE")},
        outputs=[(f"batch_{number}", "IMAGE") for number in (1, 2, 3)],
        properties=PEER,
    )
    parts = [preview(graph, (divider, slot)) for slot in range(3)]

    tab.open(graph.workflow())

    assert tab.values(divider) == {"divide_by": 3}
    exported = tab.exported()
    assert [exported[str(part)]["inputs"]["images"] for part in parts] == [[str(divider), slot] for slot in range(3)]
    tab.run()
    pictures = [picture for part in parts for picture in tab.await_images(part, 2)]
    assert len(set(pictures)) == 6
    tab.picture(artefacts / "image-divider.png")


def test_audio_divider_saved_with_few_outputs(tab: FrontEnd) -> None:
    graph = Saved()
    audio = graph.add("KitAudio", [5, "fixed", 0.3, 8_000, 1], outputs=[("audio", "AUDIO")])
    divider = graph.add(
        "AudioBatchDivider",
        [2],
        sockets={"audio": ((audio, 0), "AUDIO")},
        outputs=[("audio_1", "AUDIO"), ("audio_2", "AUDIO")],
        properties=PEER,
    )
    parts = [graph.add("PreviewAudio", [], sockets={"audio": ((divider, slot), "AUDIO")}) for slot in (0, 1)]

    tab.open(graph.workflow())

    assert tab.values(divider) == {"divide_by": 2}
    tab.run()
    assert all(len(tab.output(part)["audio"]) == 1 for part in parts)


def test_value_saved_with_widgets_of_its_old_panel(tab: FrontEnd) -> None:
    """The number of frames comes from the value: 7 from the master's item, 3 and 4 from the workers' items."""
    graph = Saved()
    value = graph.add(
        "DistributedValue",
        [str(MASTER_FRAMES), '{"1":"3","2":"4","_type":"INT"}', MASTER_FRAMES, W1_FRAMES, W2_FRAMES],
        outputs=[("value", "*")],
        properties=PEER,
    )
    images = make_images(graph, 31, batch=((value, 0), "INT"))
    shown = preview(graph, (old_collector(graph, images, [False]), 0))

    tab.open(graph.workflow())

    kept = tab.values(value)
    assert (kept["default_value"], kept["worker_values"]) == ("7", '{"1":"3","2":"4","_type":"INT"}')
    assert tab.exported()[str(images)]["inputs"]["batch"] == [str(value), 0]
    tab.run()
    assert len(tab.await_images(shown, MASTER_FRAMES + W1_FRAMES + W2_FRAMES)) == 14


def test_model_name_saved_nested(tab: FrontEnd) -> None:
    graph = Saved()
    name = graph.add("DistributedModelName", [["b"]], outputs=[("output", "*")], properties=PEER)
    combo = graph.add("KitCombo", ["a"], outputs=[("choice", "STRING")], widgets={"choice": ((name, 0), "COMBO")})
    shown = graph.add("PreviewAny", [], sockets={"source": ((combo, 0), "*")})

    tab.open(graph.workflow())

    assert tab.missing() == set()
    tab.run()
    assert tab.output(shown)["text"] == ["b"]


def test_removed_queue_node(tab: FrontEnd) -> None:
    graph = Saved()
    queue = graph.add(
        "DistributedQueue", [], outputs=[("worker_id", "STRING"), ("prompt_id", "STRING")], properties=PEER
    )

    tab.open(graph.workflow())

    assert tab.missing() == set()
    assert tab.missing_card() == ""
    tab.run()
    assert "load_balance" in tab.output(queue)["text"][0]
