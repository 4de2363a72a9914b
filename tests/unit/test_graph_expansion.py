"""One item as nodes for the running prompt."""

from __future__ import annotations

import copy

from flotilla.graph.expansion import expand_item
from flotilla.graph.plan import JobPlan, Participant, PlanOptions, plan_job

PROMPT = {
    "1": {"class_type": "DistributedSeed", "inputs": {"seed": 5}},
    "2": {"class_type": "UNETLoader", "inputs": {"unet_name": "a"}},
    "3": {"class_type": "KSampler", "inputs": {"seed": ["1", 0], "model": ["2", 0]}},
    "4": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0]}},
    "5": {"class_type": "DistributedCollector", "inputs": {"images": ["4", 0], "load_balance": False}},
    "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0]}},
}


def plan() -> JobPlan:
    participants = [Participant("master", "Master", True), Participant("w1", "One", False)]
    made = plan_job(PROMPT, participants, PlanOptions(), choose=lambda ids: ids[0])
    assert made is not None
    return made


def test_only_what_varies_is_repeated() -> None:
    nodes, delivered = expand_item(plan(), plan().items[1], "5.1.", {})
    assert nodes == {
        "5.1.1": {"class_type": "DistributedSeed", "inputs": {"seed": 6}},
        "5.1.3": {"class_type": "KSampler", "inputs": {"seed": ["5.1.1", 0], "model": ["2", 0]}},
        "5.1.4": {"class_type": "VAEDecode", "inputs": {"samples": ["5.1.3", 0]}},
    }
    assert delivered == {"images": ["5.1.4", 0]}


def test_a_graph_in_which_nothing_varies_is_taken_as_it_is() -> None:
    fixed = {**PROMPT, "3": {"class_type": "KSampler", "inputs": {"seed": 7, "model": ["2", 0]}}}
    participants = [Participant("master", "Master", True), Participant("w1", "One", False)]
    made = plan_job(fixed, participants, PlanOptions(), choose=lambda ids: ids[0])
    assert made is not None
    assert expand_item(made, made.items[1], "5.1.", {}) == ({}, {"images": ["4", 0]})


def test_constants_are_those_that_the_hosts_validation_made_of_them() -> None:
    """Added nodes are not validated: the text "20" would stay a text."""
    posted = copy.deepcopy(PROMPT)
    posted["3"]["inputs"]["steps"] = "20"
    posted["1"]["inputs"]["seed"] = "5"
    participants = [Participant("master", "Master", True), Participant("w1", "One", False)]
    made = plan_job(posted, participants, PlanOptions(), choose=lambda ids: ids[0])
    assert made is not None
    running = copy.deepcopy(posted)
    running["3"]["inputs"]["steps"] = 20
    running["1"]["inputs"]["seed"] = 5
    nodes, _ = expand_item(made, made.items[1], "5.1.", running)
    assert nodes["5.1.3"]["inputs"] == {"seed": ["5.1.1", 0], "model": ["2", 0], "steps": 20}
    assert nodes["5.1.1"]["inputs"] == {"seed": 6}, "the item's own values stay"
