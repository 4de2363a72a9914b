"""One HTTP request about a blob, made by a thread of its own over a connection that anybody may cut at any moment."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from ..utils.errors import FetchFailed, InvalidInput
from .limits import FetchPolicy
from .readers import READERS

TRANSIENT = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Answers after which another try may do better."""


class Interrupted(Exception):
    """This try came to nothing, another may do better."""


@dataclass(frozen=True)
class Target:
    """A URL taken apart."""

    host: str
    port: int | None
    path: str
    secure: bool

    @classmethod
    def parse(cls, url: str) -> Target:
        """Raises InvalidInput unless ``url`` is plain http or https, without credentials and control characters."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise InvalidInput(f"The blob's address cannot be read: {error}.") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput("The blob's address is not http or https with a host.")
        if parts.username is not None or parts.password is not None:
            raise InvalidInput("The blob's address holds credentials.")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not path.isascii() or any(not char.isprintable() or char == " " for char in path):
            raise InvalidInput("The blob's address holds characters that need quoting.")
        return cls(parts.hostname, port, path, parts.scheme == "https")


class HttpTry:
    """One try. `run` belongs to a thread; `stop` may come from any other and ends it at once."""

    peer = "other side"
    """What the one who answers is called in errors."""

    def __init__(
        self, target: Target, headers: Mapping[str, str], policy: FetchPolicy, tls: ssl.SSLContext | None = None
    ) -> None:
        self._target = target
        self._headers = dict(headers)
        self._policy = policy
        self._tls = tls
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._stopped = False

    def stop(self) -> None:
        """Cuts the connection, so that `run` returns and touches nothing more."""
        with self._lock:
            self._stopped = True
            if self._socket is not None:
                _cut(self._socket)

    def run(self) -> None:
        """Makes the request. Raises Interrupted where a new try makes sense, else a typed error."""
        connection = self._connection()
        try:
            self._connect(connection)
            self._exchange(connection)
        except TimeoutError as error:
            raise Interrupted(f"no byte came for {self._policy.idle_timeout_s:g} s") from error
        except ssl.SSLCertVerificationError as error:
            raise FetchFailed(f"The {self.peer}'s certificate is not trusted: {error.verify_message}.") from error
        except (OSError, http.client.HTTPException) as error:
            raise Interrupted(f"{type(error).__name__}: {error}") from error
        finally:
            with self._lock:
                self._socket = None
            connection.close()

    def _exchange(self, connection: http.client.HTTPConnection) -> None:
        """Sends the request and reads the answer."""
        raise NotImplementedError

    def _connection(self) -> http.client.HTTPConnection:
        target, timeout_s = self._target, self._policy.connect_timeout_s
        if not target.secure:
            return http.client.HTTPConnection(target.host, target.port, timeout=timeout_s)
        context = self._tls or ssl.create_default_context()
        return http.client.HTTPSConnection(target.host, target.port, timeout=timeout_s, context=context)

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        try:
            connection.connect()
        except TimeoutError as error:
            raise Interrupted(f"no connection within {self._policy.connect_timeout_s:g} s") from error
        sock = connection.sock
        sock.settimeout(self._policy.idle_timeout_s)
        with self._lock:
            if self._stopped:
                raise Interrupted("it was stopped")
            self._socket = sock


async def run_try(attempt: HttpTry, policy: FetchPolicy) -> None:
    """Has a thread make the try. Cancelling this cuts its connection."""
    done = READERS.submit(attempt.run)
    try:
        await asyncio.shield(done)
    except asyncio.CancelledError:
        attempt.stop()
        done.add_done_callback(_note)
        await asyncio.wait([done], timeout=policy.stop_wait_s)
        raise


def backoff(failed: int, policy: FetchPolicy, sleep: Callable[[float], Awaitable[None]]) -> Awaitable[None]:
    """The pause after the try number ``failed`` that brought nothing."""
    return sleep(min(policy.backoff_first_s * 2 ** (failed - 1), policy.backoff_max_s))


def _note(done: asyncio.Future[None]) -> None:
    """Looks at the outcome of a try that was cancelled, or asyncio would complain that nobody did."""
    if not done.cancelled():
        done.exception()


def _cut(sock: socket.socket) -> None:
    # The plain method also for TLS: the other one takes the session apart under the reading thread.
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return  # it is cut already
