"""What is not distributed passes: nodes without workers, prompts without nodes, to the byte."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fleetkit.client import Answer, Client
from fleetkit.fleets import record, tensor
from fleetkit.graphs import SEED, Graph, Prompt, changed, image_alone, images, out

from devtools.fleet import Fleet

PROMPT_ID = "6f1c2f6e-5d3c-4b36-9c54-6f7f0f3f6b0{}"
VOLATILE = {"timestamp", "create_time"}


@pytest.fixture
def no_workers(master: Client) -> Iterator[None]:
    for worker_id in ("w1", "w2"):
        master.change_worker(worker_id, enabled=False)
    yield


@pytest.mark.usefixtures("no_workers")
def test_nodes_pass_through_without_workers(fleet: Fleet, master: Client, bare: Client) -> None:
    graph = Graph()
    image = graph.image(graph.seed(), batch=2)
    audio = graph.add("KitAudio", seed=1, seconds=0.1, sample_rate=8_000, channels=1)
    gathered = graph.collect(image, audio=audio)
    item = graph.add("DistributedItem")
    line = graph.add("DistributedPrompts", text="first\nsecond")
    value = graph.add("DistributedValue", default_value="4", worker_values='{"1": "9", "_type": "INT"}')
    for prefix, link in {
        "pass": gathered,
        "pass-in": image,
        "pass-audio": out(gathered, 1),
        "pass-audio-in": audio,
        "pass-index": item,
        "pass-count": out(item, 1),
        "pass-line": line,
        "pass-value": value,
    }.items():
        graph.hash(link, prefix)
    job = master.run(graph.prompt)
    assert not master.is_job(job)
    assert record(fleet.master, "pass") == record(fleet.master, "pass-in")
    assert record(fleet.master, "pass-audio") == record(fleet.master, "pass-audio-in")
    values = {
        name: record(fleet.master, f"pass-{name}")["values"]["value"] for name in ("index", "count", "line", "value")
    }
    assert values == {"index": 0, "count": 1, "line": "first", "value": 4}
    bare.run(image_alone("pass", seed=SEED, batch=2))
    assert tensor(fleet.master, "pass") == tensor(fleet.extras[0], "pass")


@pytest.mark.usefixtures("no_workers")
def test_collector_without_workers_and_without_audio_gives_silence(fleet: Fleet, master: Client) -> None:
    graph = Graph()
    graph.hash(out(graph.collect(graph.image(SEED)), 1), "silence")
    master.run(graph.prompt)
    found = record(fleet.master, "silence")
    assert found["tensors"]["waveform"]["shape"] == [1, 2, 1]
    assert found["values"] == {"sample_rate": 44_100}


def without_volatile(value: Any) -> Any:
    """JSON without times, and without the numbers that depend on what the server did before."""
    if isinstance(value, dict):
        return {key: without_volatile(inner) for key, inner in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [without_volatile(inner) for inner in value]
    return value


def headers_of(answer: Answer) -> dict[str, str]:
    return {name: text for name, text in answer.headers.items() if name != "Date"}


def body(number: int, **fields: Any) -> dict[str, Any]:
    return {"prompt": plain(f"plain-{number}"), "prompt_id": PROMPT_ID.format(number), "number": number, **fields}


def plain(prefix: str) -> Prompt:
    return image_alone(prefix, seed=9)


REQUESTS: dict[str, dict[str, Any]] = {
    "good": body(1, client_id="me", extra_data={"extra_pnginfo": {"workflow": {"ä": [1, 2]}}}),
    "unknown class": {**body(2), "prompt": {"1": {"class_type": "NoSuchNode", "inputs": {}}}},
    "invalid value": {**body(3), "prompt": changed(plain("x"), "1", seed="no number")},
    "no outputs": {**body(4), "prompt": {"1": {"class_type": "KitImage", "inputs": {}}}},
    "no prompt": {"client_id": "me"},
    "prompt is a list": {**body(5), "prompt": []},
    "odd node": {**body(6), "prompt": {"1": {"inputs": {}}}},
    "bad prompt id": {**body(7), "prompt_id": "not a uuid"},
}


@pytest.mark.parametrize("path", ["/prompt", "/api/prompt"])
@pytest.mark.parametrize("name", REQUESTS)
def test_prompts_without_our_nodes_get_the_hosts_own_answer(name: str, path: str, master: Client, bare: Client) -> None:
    """Byte for byte, with the same status and headers, as from a server without the pack."""
    request = REQUESTS[name]
    with_pack, without = (client.request("POST", path, copy.deepcopy(request)) for client in (master, bare))
    assert with_pack.status == without.status
    assert with_pack.body == without.body
    assert headers_of(with_pack) == headers_of(without)
    if with_pack.status == 200:
        prompt_id = with_pack.json()["prompt_id"]
        entries = [without_volatile(client.succeeded(prompt_id)) for client in (master, bare)]
        assert json.dumps(entries[0]) == json.dumps(entries[1])
        for client in (master, bare):
            client.post("/history", {"delete": [prompt_id]})


def test_bodies_that_are_no_json_get_the_hosts_own_answer(master: Client, bare: Client) -> None:
    for raw in (b"", b"{", b"[1]", b"null", b'"prompt"', b"\xff\xfe"):
        answers = [client.request("POST", "/prompt", raw=raw) for client in (master, bare)]
        assert answers[0].status == answers[1].status, raw
        assert answers[0].body == answers[1].body, raw


def test_order_of_queue_numbers_counts_on(master: Client) -> None:
    """Distributed prompts and others share the host's one counter."""
    prompts = [images("number-1"), plain("number-2"), images("number-3")]
    answers = [master.post("/prompt", {"prompt": prompt}) for prompt in prompts]
    numbers = [answer["number"] for answer in answers]
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]
    for answer in answers:
        assert set(answer) == {"prompt_id", "number", "node_errors"}
        master.succeeded(answer["prompt_id"])


def test_front_of_the_queue_and_own_prompt_id_are_kept(master: Client) -> None:
    blocker = master.queue(images("blocker-front", delay_s=0.5))
    own_id = PROMPT_ID.format(9)
    last = master.queue(images("front-last"))
    first = master.queue(images("front-first"), prompt_id=own_id, front=True)
    assert first == own_id
    for prompt_id in (blocker, last, first):
        master.succeeded(prompt_id)
    order = [prompt_id for prompt_id in master.get("/history") if prompt_id in (last, first)]
    assert order == [first, last]
    assert master.job(own_id)["state"] == "done"
