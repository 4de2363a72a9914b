"""Must be true 8: whatever is sent, the answer is a 4xx or a typed error that names the cause; nothing hangs or falls."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from blake3 import blake3
from fleetkit.as_master import BLOBS, LinkedMaster
from fleetkit.background import Background
from fleetkit.client import Answer, Client
from fleetkit.graphs import images
from fleetkit.refusing import LINK_PATH
from fleetkit.waiting import eventually
from flotilla.workers.messages import SpoolOffer

from devtools.fleet import Fleet

MIB = 1024 * 1024
HUGE = json.dumps({"name": "x" * (10 * MIB)}).encode()
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
UNKNOWN_HASH = "ab" * 32
WORKER = {"id": "bad", "name": "Bad", "address": "http://127.0.0.1:1", "enabled": False}


@pytest.fixture(autouse=True)
def _still_works(master: Client, w1: Client, w2: Client) -> Iterator[None]:
    """After each of these tests a normal job runs on everybody."""
    yield
    job = master.run(images("still-works"))
    assert len(master.job(job)["items"]) == 3


def assert_refused(answer: Answer, *statuses: int) -> dict[str, Any]:
    """One schema for all errors: code, message, cure, details. Returns the error."""
    assert answer.status in statuses, f"{answer.status} {answer.text}"
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "cure", "details"}
    assert error["message"]
    assert "Traceback" not in answer.text
    return dict(error)


V2_BODIES: dict[str, tuple[str, str, Any]] = {
    "worker without address": ("POST", "/workers", {"name": "x"}),
    "worker that is a list": ("POST", "/workers", []),
    "address is a number": ("POST", "/workers", {**WORKER, "address": 5}),
    "address with credentials": ("POST", "/workers", {**WORKER, "address": "http://me:hunter2@127.0.0.1:1"}),
    "address of another scheme": ("POST", "/workers", {**WORKER, "address": "file:///etc/passwd"}),
    "address with a query": ("POST", "/workers", {**WORKER, "address": "http://127.0.0.1:1/?a=b"}),
    "address with a newline": ("POST", "/workers", {**WORKER, "address": "http://127.0.0.1:1\r\nX: y"}),
    "wildcard address": ("POST", "/workers", {**WORKER, "address": "http://0.0.0.0:8188"}),
    "enabled is a text": ("POST", "/workers", {**WORKER, "enabled": "yes"}),
    "tags are numbers": ("POST", "/workers", {**WORKER, "tags": [1]}),
    "unknown kind": ("POST", "/workers", {**WORKER, "kind": "moon"}),
    "id means the master": ("POST", "/workers", {**WORKER, "id": "master"}),
    "unknown precision": ("PATCH", "/workers/w1", {"precision": "2bit"}),
    "null name": ("PATCH", "/workers/w1", {"name": None}),
    "another id": ("PATCH", "/workers/w1", {"id": "w9"}),
    "setting of a wrong type": ("PATCH", "/settings", {"max_attempts": True}),
    "setting out of range": ("PATCH", "/settings", {"queue_ahead": -1}),
    "unknown setting": ("PATCH", "/settings", {"no_such_setting": 1}),
    "cancel with a list": ("POST", f"/jobs/{UNKNOWN_ID}/cancel", [1]),
}


@pytest.mark.parametrize("name", V2_BODIES)
def test_mbt8_bad_bodies(name: str, master: Client) -> None:
    method, path, body = V2_BODIES[name]
    before = master.get("/distributed/v2/workers"), master.get("/distributed/v2/settings")
    answer = master.request(method, f"/distributed/v2{path}", body)
    error = assert_refused(answer, 400)
    assert "hunter2" not in answer.text
    assert error["code"] == "invalid_input"
    after = master.get("/distributed/v2/workers"), master.get("/distributed/v2/settings")
    assert [one["id"] for one in after[0]["workers"]] == [one["id"] for one in before[0]["workers"]]
    assert after[1] == before[1]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/workers/nobody", 404),
        ("PATCH", "/workers/nobody", 404),
        ("DELETE", "/workers/nobody", 404),
        ("POST", "/workers/nobody/connect", 404),
        ("GET", f"/jobs/{UNKNOWN_ID}", 404),
        ("GET", "/jobs/..%2f..%2fetc", 404),
        ("GET", f"/jobs/{UNKNOWN_ID}/items", 404),
        ("GET", "/jobs?limit=0", 400),
        ("GET", "/jobs?limit=many", 400),
        ("GET", "/jobs?state=sleeping", 400),
        ("GET", "/no-such-route", 404),
        ("PUT", "/workers", 405),
    ],
)
def test_mbt8_unknown_ids_and_routes(method: str, path: str, status: int, master: Client) -> None:
    body: dict[str, Any] | None = None if method == "GET" else {}
    assert_refused(master.request(method, f"/distributed/v2{path}", body), status)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b"1e999", b'{"a": NaN}', b"null"])
def test_mbt8_bodies_that_are_no_json_object(raw: bytes, master: Client) -> None:
    for method, path in (("POST", "/workers"), ("PATCH", "/settings"), ("PATCH", "/workers/w1")):
        assert_refused(master.request(method, f"/distributed/v2{path}", raw=raw), 400)
    for path in ("/distributed/queue", "/distributed/config", "/distributed/config/update_worker"):
        answer = master.request("POST", path, raw=raw)
        assert answer.status == 400, (path, answer.status)
        assert answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/distributed/v2/workers"),
        ("PATCH", "/distributed/v2/workers/w1"),
        ("PATCH", "/distributed/v2/settings"),
        ("POST", "/distributed/config"),
        ("POST", "/distributed/config/update_worker"),
        ("POST", "/distributed/config/update_setting"),
        ("POST", "/distributed/config/update_master"),
        ("POST", "/distributed/config/delete_worker"),
    ],
)
def test_mbt8_ten_megabytes_of_json(method: str, path: str, master: Client) -> None:
    """Refused before the body is read whole, so the sender may see the connection close instead of the answer."""
    try:
        answer = master.request(method, path, raw=HUGE)
    except OSError:
        return
    assert answer.status == 413
    assert len(answer.body) < MIB


def test_mbt8_requests_of_other_sites_and_other_content_types(master: Client) -> None:
    """No page of another site can make a browser send either: DELETE needs its site's leave, JSON as well."""
    changes: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/workers", WORKER),
        ("PATCH", "/settings", {"max_attempts": 9}),
    ]
    removal: tuple[str, str, dict[str, Any]] = ("DELETE", "/workers/w1", {})
    for method, path, body in [*changes, removal]:
        answer = master.request(method, f"/distributed/v2{path}", body, headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status == 403, path
    for method, path, body in changes:
        answer = master.request(method, f"/distributed/v2{path}", body, headers={"Content-Type": "text/plain"})
        assert_refused(answer, 400)
    assert set(master.states()) == {"w1", "w2"}
    assert master.get("/distributed/v2/settings")["max_attempts"] == 3


def test_mbt8_a_worker_that_cannot_be_reached_never_holds_a_job_up(master: Client) -> None:
    """A server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        master.post("/distributed/v2/workers", {**WORKER, "address": address, "enabled": True})
        job = master.job(master.run(images("silent")))
        assert "bad" in job["left_out"]
        assert len(job["items"]) == 3


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Flotilla", "Bearer x", "Flotilla " + "0" * 32 + ".60." + "0" * 64, "Flotilla ä.1.ü"],
)
def test_mbt8_blobs_want_a_token(authorization: str | None, w1: Client) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode().decode("latin-1")}
    for name in (UNKNOWN_HASH, "x", "..%2f..%2fcomfyui.log"):
        assert_refused(w1.request("GET", BLOBS + name, headers=headers), 403)


def test_mbt8_blobs_with_a_token(fleet: Fleet, w1: Client) -> None:
    """Even a fleet's own master gets nothing but blobs, and a token opens one path only."""
    with LinkedMaster(w1.url, fleet.key) as own:
        for name in (UNKNOWN_HASH, "x", "..%2f..%2fcomfyui.log", "%2e%2e%2fcomfyui.log", "a" * 5_000, "%00", "C:%5cx"):
            path = BLOBS + name
            answer = w1.request("GET", path, headers=own.token(path))
            assert_refused(answer, 403, 404)
            assert b"Starting server" not in answer.body
        path = BLOBS + UNKNOWN_HASH
        assert_refused(w1.request("GET", path, headers=own.token(path)), 404)
        assert_refused(w1.request("GET", path, headers=own.token(BLOBS + "00")), 403)
        assert_refused(w1.request("GET", path, headers=own.token(path, method="PUT")), 403)
    assert_refused(w1.request("GET", path, headers=own.token(path)), 403)


def spool_folders(own: LinkedMaster) -> list[Path]:
    """Where the worker at the other end keeps its blobs."""
    offer = next(message for message in own.first_messages(3) if isinstance(message, SpoolOffer))
    return [Path(place.nonce_path).parent for place in offer.places]


def leftovers(folders: list[Path]) -> list[str]:
    """Half-written blobs, and those of the hash that nobody has."""
    names = [path.name for folder in folders for path in folder.iterdir()]
    return [name for name in names if name.startswith(("draft-", UNKNOWN_HASH))]


def test_mbt8_inputs_that_are_no_blobs(fleet: Fleet, w1: Client) -> None:
    """What a fleet's own master sends with PUT is stored as a blob of that name, or nothing stays of it."""
    rubbish = b"no blob at all"
    rows = [
        (UNKNOWN_HASH, "?job=x", rubbish, 400),
        (blake3(rubbish).hexdigest(), "?job=x", rubbish, 400),
        (UNKNOWN_HASH, "", rubbish, 400),
        (UNKNOWN_HASH, "?job=" + "x" * 1_000, rubbish, 400),
        ("..%2f..%2fcomfyui.log", "?job=x", rubbish, 400),
        ("x", "?job=x", b"", 400),
    ]
    with LinkedMaster(w1.url, fleet.key) as own:
        for name, query, body, status in rows:
            path = BLOBS + name + query
            assert_refused(w1.request("PUT", path, raw=body, headers=own.token(path, method="PUT")), status)
            assert_refused(w1.request("PUT", path, raw=body), 403)
            assert_refused(w1.request("PUT", path, raw=body, headers=own.token(path)), 403)
            assert_refused(w1.request("PUT", path, raw=body, headers=own.token(BLOBS + "0" * 64, method="PUT")), 403)
        path = f"{BLOBS}{UNKNOWN_HASH}?job=x"
        for size_bytes, status in ((1 << 40, 413), (1 << 35, 507)):
            headers = {**own.token(path, method="PUT"), "Content-Length": str(size_bytes)}
            assert_refused(w1.request("PUT", path, raw=b"", headers=headers), status)
        assert leftovers(spool_folders(own)) == []


def test_mbt8_an_input_that_breaks_off(fleet: Fleet, w1: Client) -> None:
    """A sender that is gone in the middle of a body leaves no file."""
    host, port = w1.url.removeprefix("http://").split(":")
    path = f"{BLOBS}{UNKNOWN_HASH}?job=x"
    with LinkedMaster(w1.url, fleet.key) as own:
        folders = spool_folders(own)
        head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {8 * MIB}\r\n"
        head += f"Authorization: {own.token(path, method='PUT')['Authorization']}\r\n\r\n"
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(head.encode() + b"x" * 6 * MIB)
            eventually(lambda: leftovers(folders), "it is being written")
        eventually(lambda: not leftovers(folders), "nothing of it is left")


RUBBISH: list[Any] = [
    "",
    "rubbish",
    "[]",
    "{}",
    '{"type": "hello"}',
    '{"type": "lease", "job_id": "x"}',
    '{"type": "proof", "mac": "' + "0" * 64 + '"}',
    "[" * 10_000,
    "x" * MIB,
    b"\x00" * 1_000,
    b"\xff" * MIB,
]


def test_mbt8_rubbish_on_the_link(w1: Client) -> None:
    async def say(rubbish: Any) -> list[Any]:
        async with aiohttp.ClientSession() as session, session.ws_connect(w1.url + LINK_PATH) as link:
            await (link.send_bytes(rubbish) if isinstance(rubbish, bytes) else link.send_str(rubbish))
            return [message.data async for message in link if message.type is aiohttp.WSMsgType.TEXT]

    with Background() as background:
        for rubbish in RUBBISH:
            for answer in background.call(say(rubbish)):
                assert json.loads(answer)["type"] == "refused", answer[:200]


def test_mbt8_rubbish_from_a_fleets_own_master(fleet: Fleet, w1: Client) -> None:
    """A peer that has proved the key and then sends what is no message loses its link, and nothing else happens."""
    with LinkedMaster(w1.url, fleet.key) as own:
        told = {type(message).__name__ for message in own.first_messages(3)}
        assert told == {"Status", "SpoolOffer", "Capabilities"}
        own.send_raw('{"type": "lease", "job_id": 7, "prompt": "no"}')
        eventually(lambda: own.ended, "the worker ends the link")
    assert w1.idle()


def test_mbt8_link_without_websocket_and_from_a_page(w1: Client) -> None:
    assert_refused(w1.request("GET", LINK_PATH), 400)
    page = w1.request("GET", LINK_PATH, headers={"Origin": w1.url})
    assert_refused(page, 403)


BAD_PROMPTS: dict[str, Any] = {
    "link into nowhere": {"3": {"class_type": "DistributedCollector", "inputs": {"images": ["99", 0]}}},
    "nothing connected": {"3": {"class_type": "DistributedCollector", "inputs": {}}},
    "inputs are a list": {"3": {"class_type": "DistributedCollector", "inputs": []}},
    "no inputs": {"3": {"class_type": "DistributedCollector"}},
    "circle": {
        "3": {"class_type": "DistributedCollector", "inputs": {"images": ["4", 0]}},
        "4": {"class_type": "ImageInvert", "inputs": {"image": ["3", 0]}},
    },
    "seed is a text": {"1": {"class_type": "DistributedSeed", "inputs": {"seed": "many"}}},
    "node is a number": {"5": 5},
}


@pytest.mark.parametrize("name", BAD_PROMPTS)
def test_mbt8_bad_prompts(name: str, master: Client) -> None:
    """In the host's shape, which front ends can show."""
    prompt = {**images("bad-prompt"), **BAD_PROMPTS[name]}
    answer = master.request("POST", "/prompt", {"prompt": prompt})
    assert answer.status == 400, answer.text
    told = answer.json()
    assert set(told["error"]) == {"type", "message", "details", "extra_info"}
    assert told["error"]["message"]
    assert "node_errors" in told
