"""Must be true 9: after all the other tests, no secret is in anything that an instance shows or leaves behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fleetkit import scan
from fleetkit.as_master import BLOBS, LinkedMaster
from fleetkit.client import Client
from fleetkit.graphs import Graph, Prompt, images
from fleetkit.waiting import eventually

from devtools.fleet import Fleet
from devtools.instances import Instance

PLANTED = {"auth_token_comfy_org": "planted-auth-token-4711", "api_key_comfy_org": "planted-api-key-0815"}
CANARY = "canary-in-the-open"
"""No secret: it is sent in a workflow, and finding it shows that the search looks where it should."""


def saving() -> Prompt:
    graph = Graph()
    gathered = graph.collect(graph.image(graph.seed(), salt=CANARY))
    graph.add("SaveImage", images=gathered, filename_prefix="secrets")
    return graph.prompt


@pytest.fixture(scope="module")
def session_key(fleet: Fleet, master: Client, w1: Client, second: Instance) -> Iterator[bytes]:
    """Does what uses secrets: every kind of run, links, blob requests good and bad. Yields a link's session key."""
    extra_data = {**PLANTED, "extra_pnginfo": {"workflow": {"name": CANARY}}}
    master.run(saving(), extra_data=extra_data)
    master.post("/distributed/queue", {"prompt": images("secrets-order"), "client_id": "me"})
    eventually(master.idle, "the order is done")
    other = Client(second.url)
    eventually(lambda: "online" in other.states().values(), "the second master is linked")
    other.run(images("secrets-http", size_px=256), extra_data=PLANTED)
    failing = images("secrets-fail")
    failing["5"] = {"class_type": "KitFail", "inputs": {"image": ["2", 0], "message": "x", "only_worker": "w1"}}
    failing["3"]["inputs"]["images"] = ["5", 0]
    master.run(failing, extra_data=PLANTED)
    with LinkedMaster(w1.url, fleet.key) as own:
        for path in (BLOBS + "ab" * 32, BLOBS + "x"):
            w1.request("GET", path, headers=own.token(path))
        w1.request("GET", BLOBS + "x", headers={"Authorization": f"Flotilla {fleet.key}"})
        yield own.session_key


def places(fleet: Fleet) -> Iterator[tuple[str, bytes]]:
    """Everything, of every instance."""
    for instance in fleet.instances:
        yield from scan.left(instance)
        if instance.alive():
            yield from scan.shown(Client(instance.url))


def test_the_search_finds_what_is_there(fleet: Fleet, session_key: bytes, master: Client) -> None:
    """In the master's history, its pictures, its jobs; in the workers' histories."""
    found = scan.found([CANARY.encode()], places(fleet))
    for part in ("/history", "metadata of", "/output/secrets_"):
        assert any(part in where for where in found), (part, found)
    for worker in fleet.workers:
        assert f"{worker.url}/history" in found


def test_mbt9_fleet_key_is_nowhere(fleet: Fleet, session_key: bytes) -> None:
    assert scan.found(scan.forms(fleet.key.encode()), places(fleet)) == []


def test_mbt9_session_keys_and_tokens_are_nowhere(fleet: Fleet, session_key: bytes) -> None:
    assert scan.found(scan.forms(session_key), places(fleet)) == []
    assert [where for where, data in places(fleet) if scan.TOKEN.search(data)] == []


def test_mbt9_users_tokens_are_nowhere(fleet: Fleet, session_key: bytes) -> None:
    """Those that a front end sends along for paid services stay on the master, in the host's own safe place."""
    needles = [form for secret in PLANTED.values() for form in scan.forms(secret.encode())]
    assert scan.found(needles, places(fleet)) == []
    names = [name.encode() for name in PLANTED]
    for worker in fleet.workers:
        assert scan.found(names, scan.left(worker)) == []


def test_mbt9_users_tokens_are_not_in_a_workers_queue(master: Client, w1: Client, w2: Client) -> None:
    """While the items are at work and waiting."""
    jobs = [master.queue(images(f"secret-{n}", delay_s=1.0), extra_data=PLANTED) for n in range(2)]
    eventually(lambda: all(w1.queued()) and all(w2.queued()), "items run and wait on both workers")
    needles = [secret.encode() for secret in PLANTED.values()]
    assert scan.found(needles, [*scan.shown(w1), *scan.shown(w2), *scan.shown(master)]) == []
    for job in jobs:
        master.succeeded(job)


def test_mbt9_errors_name_no_secret(fleet: Fleet, w1: Client) -> None:
    """An answer never repeats what was sent as proof."""
    for header in (fleet.key, f"Flotilla {fleet.key}", f"Bearer {fleet.key}"):
        answer = w1.request("GET", BLOBS + "x", headers={"Authorization": header})
        assert answer.status == 403
        assert fleet.key.encode() not in answer.body + answer.headers.as_bytes()
