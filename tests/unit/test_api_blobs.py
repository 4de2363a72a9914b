"""PUT of a blob: what is stored, what is refused, and that nothing stays of what was refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from fakes.agents import until
from fakes.inputs import Depot, run_depot
from fakes.spools import picture
from flotilla.api import blobs
from flotilla.transport.codec import plan_blob
from flotilla.transport.limits import MIB, TransportLimits
from flotilla.workers import messages as m

WAIT_S = 10.0


@pytest.fixture
async def depot(tmp_path: Path) -> AsyncIterator[Depot]:
    async with run_depot(tmp_path) as made:
        await until(lambda: bool(made.worker.agent._sessions))
        yield made


def blob(seed: int = 1, size_bytes: int = MIB) -> tuple[bytes, str]:
    data = b"".join(plan_blob(picture(seed, size_bytes)).chunks())
    return data, blake3(data).hexdigest()


class Raw:
    """One connection on which a test says exactly what it wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> None:
        lines = [f"{method} {target} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers.items())]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await self.writer.drain()

    async def answer(self) -> tuple[int, Any]:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), WAIT_S)
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
        body = await asyncio.wait_for(self.reader.readexactly(int(fields["Content-Length"])), WAIT_S)
        return int(head.split()[1]), json.loads(body)

    async def hang_up(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def open_raw(depot: Depot) -> Raw:
    return Raw(*await asyncio.open_connection("127.0.0.1", depot.port))


async def put(
    depot: Depot, target: str, body: bytes, headers: dict[str, str] | None = None, method: str = "PUT"
) -> tuple[int, Any]:
    """One request on a connection of its own: with a good token and length unless ``headers`` says otherwise."""
    given = {**depot.token(target), "Content-Length": str(len(body))} if headers is None else headers
    raw = await open_raw(depot)
    try:
        await raw.say(method, target, given, body)
        return await raw.answer()
    finally:
        await raw.hang_up()


def assert_refused(depot: Depot, answer: tuple[int, Any], status: int, code: str) -> str:
    assert answer[0] == status, answer
    assert set(answer[1]["error"]) == {"code", "message", "cure", "details"}
    assert answer[1]["error"]["code"] == code
    assert_nothing(depot)
    return str(answer[1]["error"]["message"])


def assert_nothing(depot: Depot) -> None:
    usage = depot.worker.spool.usage()
    assert depot.files() == []
    assert (usage.blobs, usage.memory_bytes, usage.disk_bytes) == (0, 0, 0)
    assert depot.held() == {}


async def test_a_blob_is_stored_once(depot: Depot) -> None:
    data, name = blob()
    target = depot.target(name)
    assert await put(depot, target, data) == (201, {"hash": name})
    assert depot.worker.spool.open(name).read_bytes() == data
    assert await put(depot, target, data) == (200, {"hash": name})
    assert depot.files() == [f"{name}.safetensors"]
    assert depot.held() == {("job", name): (False, 2)}
    assert await put(depot, depot.target(name, keep=True), data) == (200, {"hash": name})
    assert depot.held() == {("job", name): (True, 2)}
    assert depot.worker.spool.usage().disk_bytes == len(data)


async def test_two_at_once(depot: Depot) -> None:
    data, name = blob(size_bytes=3 * MIB)
    target = depot.target(name)
    answers = await asyncio.gather(*(put(depot, target, data) for _ in range(2)))
    assert {status for status, _ in answers} <= {200, 201}
    assert depot.held() == {("job", name): (False, 2)}
    assert depot.files() == [f"{name}.safetensors"]
    await depot.master.send(m.JobOver(job_id="job"))
    await until(lambda: depot.worker.spool.usage().blobs == 0)


async def test_two_jobs_hold_one_file_each_in_its_own_right(depot: Depot) -> None:
    data, name = blob()
    assert (await put(depot, depot.target(name, job_id="one", keep=True), data))[0] == 201
    assert (await put(depot, depot.target(name, job_id="a/b&keep=0?ü", keep=True), data))[0] == 200
    assert set(depot.held()) == {("one", name), ("a/b&keep=0?ü", name)}
    await depot.master.send(m.JobOver(job_id="one"))
    await until(lambda: len(depot.held()) == 1)
    assert depot.worker.spool.open(name).exists()
    await depot.master.send(m.JobOver(job_id="a/b&keep=0?ü"))
    await until(lambda: depot.worker.spool.usage().blobs == 0)


async def test_a_token_opens_one_method_and_one_target(depot: Depot) -> None:
    data, name = blob()
    target = depot.target(name)
    others = [
        {},
        {"Authorization": "Bearer x"},
        depot.token(target, "GET"),
        depot.token(target.partition("?")[0]),
        depot.token(depot.target(name, keep=True)),
        depot.token(depot.target(name, job_id="other")),
        depot.token(depot.target("0" * 64)),
    ]
    for headers in others:
        answer = await put(depot, target, data, {**headers, "Content-Length": str(len(data))})
        assert_refused(depot, answer, 403, "not_allowed")
    await depot.worker.unlink(depot.master)
    assert_refused(depot, await put(depot, target, data), 403, "not_allowed")


async def test_a_blob_needs_its_length(depot: Depot) -> None:
    target = depot.target(blob()[1])
    headers = {**depot.token(target), "Transfer-Encoding": "chunked"}
    assert_refused(depot, await put(depot, target, b"3\r\nabc\r\n0\r\n\r\n", headers), 411, "length_required")


@pytest.mark.parametrize(
    "query", ["", "?job=", "?job=" + "x" * 201, "?keep=1"], ids=["none", "empty", "long", "keep alone"]
)
async def test_a_blob_needs_its_job(depot: Depot, query: str) -> None:
    data, name = blob()
    target = depot.target(name).partition("?")[0] + query
    assert_refused(depot, await put(depot, target, data), 400, "invalid_input")


@pytest.mark.parametrize("name", ["x", "0" * 63, "A" * 64, "..%2f..%2fetc%2fpasswd", "%00", "0" * 65])
async def test_a_blob_is_named_by_a_hash(depot: Depot, name: str) -> None:
    assert_refused(depot, await put(depot, depot.target(name), b"abc"), 400, "invalid_input")


async def test_other_bytes_than_the_name_says(depot: Depot) -> None:
    data, name = blob()
    other, _ = blob(2)
    assert len(other) == len(data)
    message = assert_refused(depot, await put(depot, depot.target(name), other), 400, "invalid_blob")
    assert "hash" in message
    rubbish = b"no blob at all, but a hash that fits"
    name = blake3(rubbish).hexdigest()
    assert_refused(depot, await put(depot, depot.target(name), rubbish), 400, "invalid_blob")
    assert_refused(depot, await put(depot, depot.target(blake3(b"").hexdigest()), b""), 400, "invalid_blob")


async def test_more_than_the_announced_length_is_no_part_of_the_blob(depot: Depot) -> None:
    data, name = blob()
    target = depot.target(name)
    assert (await put(depot, target, data + b"x" * 1_000, {**depot.token(target), "Content-Length": str(len(data))}))[
        0
    ] == 201
    assert depot.worker.spool.open(name).read_bytes() == data


@pytest.mark.parametrize("sent", [0, 10, 700_000])
async def test_a_connection_that_breaks_in_the_middle(depot: Depot, sent: int) -> None:
    data, name = blob(size_bytes=3 * MIB)
    target = depot.target(name)
    raw = await open_raw(depot)
    await raw.say("PUT", target, {**depot.token(target), "Content-Length": str(len(data))}, data[:sent])
    await until(lambda: depot.worker.spool.usage().disk_bytes > 0)
    await raw.hang_up()
    await until(lambda: depot.worker.spool.usage().disk_bytes == 0)
    await until(lambda: depot.files() == [])
    assert_nothing(depot)
    assert (await put(depot, target, data))[0] == 201


async def test_a_sender_that_stops_in_the_middle(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "IDLE_TIMEOUT_S", 0.05)
    data, name = blob()
    target = depot.target(name)
    raw = await open_raw(depot)
    await raw.say("PUT", target, {**depot.token(target), "Content-Length": str(len(data))}, data[:100])
    assert "did not go on" in assert_refused(depot, await raw.answer(), 400, "invalid_blob")
    await raw.hang_up()


async def test_over_the_caps(depot: Depot) -> None:
    name = "0" * 64
    target = depot.target(name)
    too_large = str(TransportLimits().max_blob_bytes + 1)
    answer = await put(depot, target, b"", {**depot.token(target), "Content-Length": too_large})
    assert_refused(depot, answer, 413, "too_large")
    answer = await put(depot, target, b"", {**depot.token(target), "Content-Length": str(1 << 30)})
    assert_refused(depot, answer, 507, "spool_full")


async def test_a_job_that_ends_while_its_input_comes(depot: Depot) -> None:
    data, name = blob(size_bytes=2 * MIB)
    target = depot.target(name, keep=True)
    raw = await open_raw(depot)
    await raw.say("PUT", target, {**depot.token(target), "Content-Length": str(len(data))}, data[:MIB])
    await until(lambda: depot.worker.spool.usage().disk_bytes > 0)
    await depot.master.send(m.JobOver(job_id="job"))
    session = next(iter(depot.worker.agent._sessions.values()))
    await until(lambda: not any(arrival.wanted for arrival in session.arrivals))
    raw.writer.write(data[MIB:])
    status, body = await raw.answer()
    assert (status, body["error"]["code"]) == (409, "conflict")
    await raw.hang_up()
    await until(lambda: depot.worker.spool.usage().blobs == 0)
    assert_nothing(depot)
