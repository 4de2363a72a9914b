"""POST /distributed/queue in all its forms (compat.md 2.1), and the routes beside it, on real servers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fleetkit.client import Client
from fleetkit.fleets import count_of, tensor
from fleetkit.graphs import SEED, Graph, Prompt, image_alone, images

from devtools.fleet import Fleet

QUEUE = "/distributed/queue"
FIVE_KEYS = {"prompt_id", "number", "node_errors", "worker_count", "auto_prepare_supported"}


def ordered(master: Client, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a good order, whose prompt has then ended well."""
    answer = dict(master.post(QUEUE, body))
    assert set(answer) == FIVE_KEYS
    assert answer["node_errors"] == {}
    assert answer["auto_prepare_supported"] is True
    assert isinstance(answer["number"], int)
    master.succeeded(answer["prompt_id"])
    return answer


def batch_size(fleet: Fleet, prefix: str) -> int:
    return int(tensor(fleet.master, prefix)["shape"][0])


FORMS: dict[str, tuple[dict[str, Any], int]] = {
    "ids": ({"enabled_worker_ids": ["w1", "w2"]}, 3),
    "ids in another order and with blanks": ({"enabled_worker_ids": [" w2 ", "", "w1"]}, 3),
    "one id": ({"enabled_worker_ids": ["w2"]}, 2),
    "no ids": ({"enabled_worker_ids": []}, 1),
    "alias with ids": ({"workers": ["w1"]}, 2),
    "alias with objects": ({"workers": [{"id": "w1", "name": "x"}, {"id": "w2"}]}, 3),
    "alias is second": ({"enabled_worker_ids": ["w1"], "workers": ["w2", "w1"]}, 2),
    "oldest form": ({}, 3),
    "delegated": ({"enabled_worker_ids": ["w1", "w2"], "delegate_master": True}, 2),
    "not delegated": ({"enabled_worker_ids": ["w1"], "delegate_master": False}, 2),
    "null delegate": ({"enabled_worker_ids": ["w1"], "delegate_master": None}, 2),
    "all extras": ({"enabled_worker_ids": ["w1"], "auto_prepare": True, "trace_execution_id": "abc"}, 2),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_an_order(name: str, fleet: Fleet, master: Client, bare: Client) -> None:
    form, count = FORMS[name]
    prompt = images("order", salt=name)
    answer = ordered(master, {"prompt": prompt, "client_id": " me ", **form})
    delegated = form.get("delegate_master") is True
    assert answer["worker_count"] == count - (0 if delegated else 1)
    rows = []
    for k in range(count):
        bare.run(image_alone("order", seed=SEED + k))
        rows += tensor(fleet.extras[0], "order")["rows"]
    assert tensor(fleet.master, "order")["rows"] == rows


def test_prompt_inside_the_workflow(fleet: Fleet, master: Client) -> None:
    prompt = images("inside")
    answer = ordered(master, {"workflow": {"prompt": prompt, "x": 1}, "client_id": "me", "enabled_worker_ids": ["w1"]})
    assert batch_size(fleet, "inside") == 2
    entry = master.succeeded(answer["prompt_id"])
    assert entry["prompt"][2] == prompt
    assert entry["prompt"][3]["extra_pnginfo"]["workflow"] == {"prompt": prompt, "x": 1}
    assert entry["prompt"][3]["client_id"] == "me"


def test_oldest_form_needs_no_client_id(fleet: Fleet, master: Client) -> None:
    ordered(master, {"prompt": images("oldest")})
    assert batch_size(fleet, "oldest") == 3


def test_prompt_without_our_nodes_is_queued_here_only(master: Client) -> None:
    answer = ordered(master, {"prompt": image_alone("plain-order", seed=4), "client_id": "me"})
    assert answer["worker_count"] == 0
    assert not master.is_job(answer["prompt_id"])


def test_route_by_an_order(fleet: Fleet, master: Client) -> None:
    prompt = images("order-route", load_balance=True)
    body = {"prompt": prompt, "client_id": "me", "enabled_worker_ids": ["w1", "w2"], "delegate_master": True}
    assert ordered(master, body)["worker_count"] == 1
    assert batch_size(fleet, "order-route") == 1


def test_delegate_of_one_request_wins_over_the_setting(fleet: Fleet, master: Client) -> None:
    master.change_settings(master_delegate_only=True)
    body = {
        "prompt": counted("request-wins"),
        "client_id": "me",
        "enabled_worker_ids": ["w1"],
        "delegate_master": False,
    }
    ordered(master, body)
    assert count_of(fleet.master, "request-wins") == 1
    ordered(master, {**body, "prompt": counted("setting-wins"), "delegate_master": None})
    assert count_of(fleet.master, "setting-wins") == 0


def counted(name: str) -> Prompt:
    graph = Graph()
    graph.hash(graph.collect(graph.add("KitCount", image=graph.image(graph.seed()), name=name)), name)
    return graph.prompt


BAD: dict[str, dict[str, Any]] = {
    "auto_prepare is a text": {"auto_prepare": "yes"},
    "prompt is a list": {"prompt": []},
    "no prompt": {"prompt": None},
    "workers is an object": {"workers": {}},
    "ids are a text": {"enabled_worker_ids": "w1"},
    "id is null": {"enabled_worker_ids": [None]},
    "unknown ids": {"enabled_worker_ids": ["w1", "no-such-worker"]},
    "delegate is a number": {"delegate_master": 1},
    "client_id is blank": {"client_id": "  "},
    "client_id is a number": {"client_id": 7},
    "trace id is a list": {"trace_execution_id": []},
}


@pytest.mark.parametrize("name", BAD)
def test_bad_orders(name: str, master: Client, w1: Client) -> None:
    body = {"prompt": images("bad-order"), "client_id": "me", "enabled_worker_ids": ["w1"], **BAD[name]}
    answer = master.request("POST", QUEUE, body)
    assert answer.status == 400
    assert isinstance(answer.json()["error"], str)
    if name == "unknown ids":
        assert "no-such-worker" in answer.json()["error"]
    assert master.idle()
    assert w1.idle()


def test_order_that_the_host_refuses(master: Client, w1: Client) -> None:
    prompt = images("refused-order")
    prompt["2"]["inputs"]["width"] = "wide"
    answer = master.request("POST", QUEUE, {"prompt": prompt, "client_id": "me", "enabled_worker_ids": ["w1"]})
    assert answer.status == 400
    assert isinstance(answer.json()["error"], str)
    assert "2" in answer.json()["node_errors"]
    assert w1.idle()


def test_same_idempotency_key_is_one_job(master: Client) -> None:
    """Also when the requests arrive at the same time."""
    body = {"prompt": images("idempotent", delay_s=0.3), "client_id": "me"}
    headers = {"X-Idempotency-Key": "key-of-this-test"}

    def send(_number: int) -> dict[str, Any]:
        return dict(master.request("POST", QUEUE, body, headers=headers).json())

    before = master.get("/distributed/v2/jobs")["total"]
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(send, range(5)))
    assert all(answer == answers[0] for answer in answers)
    master.succeeded(answers[0]["prompt_id"])
    assert send(5) == answers[0]
    assert master.get("/distributed/v2/jobs")["total"] == before + 1


def test_queue_status(master: Client) -> None:
    job = master.queue(images("status", delay_s=0.5))
    assert master.get(f"/distributed/queue_status/{job}") == {"exists": True, "job_id": job}
    master.succeeded(job)
    assert master.get("/distributed/queue_status/unknown") == {"exists": False, "job_id": "unknown"}


def test_system_and_network_info(master: Client) -> None:
    system = master.get("/distributed/system_info")
    keys = {"status", "hostname", "machine_id", "platform", "is_docker", "is_runpod", "runpod_pod_id"}
    assert keys <= set(system)
    assert set(system["platform"]) == {"system", "machine", "node", "path_separator", "os_name"}
    network = master.get("/distributed/network_info")
    keys = {"status", "hostname", "all_ips", "recommended_ip", "cuda_device", "cuda_device_count", "message"}
    assert keys <= set(network)
    assert system["status"] == network["status"] == "success"


def test_config_round_trip(master: Client) -> None:
    """A script of the older extension reads the workers, adds one, renames it and takes it away again."""
    config = master.get("/distributed/config")
    assert [worker["id"] for worker in config["workers"]] == ["w1", "w2"]
    added = {"worker_id": "old", "name": "Old", "port": 1, "cuda_device": None, "host": "127.0.0.1", "enabled": False}
    assert master.post("/distributed/config/update_worker", added)["status"] == "success"
    assert master.worker("old")["address"] == "http://127.0.0.1:1"
    master.post("/distributed/config/update_worker", {"worker_id": "old", "name": "Older"})
    assert master.worker("old")["name"] == "Older"
    master.post("/distributed/config/update_setting", {"key": "master_delegate_only", "value": True})
    assert master.get("/distributed/v2/settings")["master_delegate_only"] is True
    master.post("/distributed/config/delete_worker", {"worker_id": "old"})
    assert "old" not in master.states()


def test_routes_answer_under_api_as_well(master: Client) -> None:
    assert master.get("/api/distributed/config") == master.get("/distributed/config")
    answer = master.request("POST", "/api" + QUEUE, {"prompt": images("under-api"), "client_id": "me"})
    master.succeeded(answer.json()["prompt_id"])
