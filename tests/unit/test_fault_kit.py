"""The fault kit's cable, with plain sockets at both ends: every fault does what it says, and ends when mended."""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

FLEETKIT = Path(__file__).resolve().parents[1] / "integration"
if str(FLEETKIT) not in sys.path:
    sys.path.insert(0, str(FLEETKIT))

pytest.importorskip("aiohttp")

from fleetkit.cable_line import Spoiler  # noqa: E402
from fleetkit.proxy import BLOBS_PATH, Cable  # noqa: E402

WAIT_S = 10.0
QUIET_S = 0.2
BODY = bytes(range(256)) * 64
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)
BLOB_REQUEST = b"GET " + BLOBS_PATH.encode() + b"ab HTTP/1.1\r\n\r\n"
OTHER_REQUEST = b"GET /distributed/v2/system HTTP/1.1\r\n\r\n"


class _Echo(socketserver.BaseRequestHandler):
    """Answers requests for blobs with `BODY`, and sends all else back."""

    def handle(self) -> None:
        while chunk := self._receive():
            self.request.sendall(HEAD + BODY if chunk.startswith(b"GET") else chunk)

    def _receive(self) -> bytes:
        try:
            return bytes(self.request.recv(65_536))
        except OSError:
            return b""


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with _Server(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def cable(server: str) -> Iterator[Cable]:
    with Cable(server) as cable:
        yield cable


@pytest.fixture
def near(cable: Cable) -> Iterator[socket.socket]:
    with connect(cable) as connection:
        assert said(connection, b"hello") == b"hello"
        yield connection


def connect(cable: Cable) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(cable.url.rsplit(":", 1)[1])), timeout=WAIT_S)


def said(connection: socket.socket, words: bytes) -> bytes:
    """What comes back, as much as was sent."""
    connection.sendall(words)
    return received(connection, len(words))


def received(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        chunk = connection.recv(count - len(found))
        assert chunk, f"ended after {len(found)} of {count} bytes"
        found += chunk
    return found


def is_silent(connection: socket.socket) -> bool:
    """Whether neither bytes nor an end come within a moment."""
    connection.settimeout(QUIET_S)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(WAIT_S)
    return False


def answer(cable: Cable, request: bytes) -> bytes:
    with connect(cable) as connection:
        connection.sendall(request)
        return received(connection, len(HEAD) + len(BODY))


def test_a_whole_cable_carries_every_byte_both_ways(cable: Cable, near: socket.socket) -> None:
    assert said(near, BODY * 20) == BODY * 20
    assert answer(cable, BLOB_REQUEST) == HEAD + BODY


def test_a_goodbye_is_carried_after_all_that_was_said_before(near: socket.socket) -> None:
    near.sendall(BODY)
    near.shutdown(socket.SHUT_WR)
    assert received(near, len(BODY)) == BODY
    assert near.recv(1) == b""


def test_cut_resets_what_is_open_and_what_comes_until_it_is_mended(cable: Cable, near: socket.socket) -> None:
    cable.cut()
    with pytest.raises(ConnectionResetError):
        near.recv(1)
    with pytest.raises(ConnectionResetError), connect(cable) as refused:
        refused.recv(1)
    cable.mend()
    with connect(cable) as again:
        assert said(again, b"again") == b"again"


def test_cut_kindly_says_goodbye(cable: Cable, near: socket.socket) -> None:
    cable.cut(kindly=True)
    assert near.recv(1) == b""


def test_drop_ends_only_connections_of_a_path_and_once(cable: Cable, near: socket.socket) -> None:
    with connect(cable) as blob:
        blob.sendall(BLOB_REQUEST)
        received(blob, len(HEAD) + len(BODY))
        cable.drop(BLOBS_PATH)
        with pytest.raises(ConnectionResetError):
            blob.recv(1)
    assert said(near, b"still here") == b"still here"
    assert answer(cable, BLOB_REQUEST) == HEAD + BODY


def test_swallow_tells_nobody_and_mend_resets_what_has_lost_bytes(cable: Cable, near: socket.socket) -> None:
    with connect(cable) as untouched:
        assert said(untouched, b"hello") == b"hello"
        cable.swallow()
        near.sendall(b"into the void")
        assert is_silent(near)
        with connect(cable) as late:
            late.sendall(b"hello?")
            assert is_silent(late)
            cable.mend()
            with pytest.raises(ConnectionResetError):
                late.recv(1)
        with pytest.raises(ConnectionResetError):
            near.recv(1)
        assert said(untouched, b"nothing lost") == b"nothing lost"


def test_a_goodbye_is_swallowed_too(server: str) -> None:
    """The far end must not hear that the near one has gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_S)
        with Cable(f"http://127.0.0.1:{listener.getsockname()[1]}") as cable:
            near = connect(cable)
            far, _ = listener.accept()
            with far:
                near.sendall(b"x")
                assert received(far, 1) == b"x"
                cable.swallow()
                near.close()
                assert is_silent(far)
                cable.mend()
                with pytest.raises(ConnectionResetError):
                    far.recv(1)


@pytest.mark.parametrize(("delay_s", "jitter_s"), [(0.1, 0.0), (0.05, 0.05)])
def test_delay_makes_both_ways_late_and_keeps_the_order(
    delay_s: float, jitter_s: float, cable: Cable, near: socket.socket
) -> None:
    cable.delay(delay_s, jitter_s)
    began_s = time.monotonic()
    for number in range(50):
        near.sendall(b"%03d" % number)
    assert received(near, 150) == b"".join(b"%03d" % number for number in range(50))
    assert time.monotonic() - began_s >= 2 * delay_s
    cable.mend()
    assert said(near, b"fast again") == b"fast again"


def test_throttle_bounds_the_speed(cable: Cable) -> None:
    cable.throttle(len(BODY) * 4)
    began_s = time.monotonic()
    assert answer(cable, BLOB_REQUEST) == HEAD + BODY
    assert time.monotonic() - began_s >= 0.2


def differences(found: bytes) -> list[int]:
    """Where the answer is not what the server sent; places in the body, negative ones in the head."""
    sent = HEAD + BODY
    return [place - len(HEAD) for place in range(len(sent)) if found[place] != sent[place]]


@pytest.mark.parametrize("after_bytes", [0, 1, len(BODY) - 1])
def test_corrupt_flips_one_byte_of_the_next_blob_and_of_no_other_answer(after_bytes: int, cable: Cable) -> None:
    cable.corrupt(after_bytes)
    assert differences(answer(cable, OTHER_REQUEST)) == []
    assert cable.spoiled == 0
    assert differences(answer(cable, BLOB_REQUEST)) == [after_bytes]
    assert cable.spoiled == 1
    assert differences(answer(cable, BLOB_REQUEST)) == []


def test_corrupt_as_often_as_asked_for(cable: Cable) -> None:
    cable.corrupt(5, times=2)
    assert [differences(answer(cable, BLOB_REQUEST)) for _ in range(3)] == [[5], [5], []]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1_000])
def test_the_body_is_found_however_the_answer_is_cut_into_pieces(size: int) -> None:
    spoiler = Spoiler(3)
    sent = HEAD + BODY
    found = b"".join(spoiler.spoil(sent[place : place + size]) for place in range(0, len(sent), size))
    assert differences(found) == [3]
    assert spoiler.done


def test_hold_next_lets_a_later_connection_overtake(cable: Cable) -> None:
    cable.hold_next()
    with connect(cable) as first:
        first.sendall(b"first")
        assert is_silent(first)
        assert cable.overtaken == 0
        with connect(cable) as second:
            assert said(second, b"second") == b"second"
        assert received(first, 5) == b"first"
        assert cable.overtaken == 1


def test_mend_lets_a_held_connection_through(cable: Cable) -> None:
    cable.hold_next()
    with connect(cable) as first:
        first.sendall(b"first")
        assert is_silent(first)
        cable.mend()
        assert received(first, 5) == b"first"


def test_a_server_that_is_gone_resets_the_near_end(server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with (
        Cable(f"http://127.0.0.1:{port}") as cable,
        pytest.raises(ConnectionResetError),  # the connection itself may be reset already
        connect(cable) as near,
    ):
        near.recv(1)


def test_it_counts_connections_and_what_they_carry(cable: Cable, near: socket.socket) -> None:
    assert cable.connections == 1
    with connect(cable) as blob:
        blob.sendall(BLOB_REQUEST)
        received(blob, len(HEAD) + len(BODY))
        assert cable.carried_bytes(BLOBS_PATH) == len(HEAD) + len(BODY)
    assert cable.carried_bytes() >= 5
    assert cable.connections == 2
