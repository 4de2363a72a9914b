"""A blob's file, sent to another machine."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path

from ..utils.errors import Conflict, FetchFailed, FlotillaError, InvalidBlob, NotAllowed, NotFound, SpoolFull, TooLarge
from ..utils.log import get_logger
from .http_try import TRANSIENT, HttpTry, Interrupted, Target, backoff, run_try
from .limits import DEFAULT_POLICY, KIB, FetchPolicy
from .local_read import open_regular

MAX_ANSWER_BYTES = 64 * KIB

_REFUSALS: dict[int, tuple[type[FlotillaError], str]] = {
    HTTPStatus.UNAUTHORIZED: (NotAllowed, "does not take the blob from us"),
    HTTPStatus.FORBIDDEN: (NotAllowed, "does not take the blob from us"),
    HTTPStatus.NOT_FOUND: (NotFound, "takes no blobs at this address"),
    HTTPStatus.METHOD_NOT_ALLOWED: (NotFound, "takes no blobs at this address"),
    HTTPStatus.CONFLICT: (Conflict, "has no use for the blob any more"),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (TooLarge, "does not take blobs of this size"),
    HTTPStatus.INSUFFICIENT_STORAGE: (SpoolFull, "has no room for the blob"),
}

log = get_logger("transport")


async def put_file(
    url: str,
    path: Path,
    size_bytes: int,
    *,
    headers: Callable[[], Mapping[str, str]],
    policy: FetchPolicy = DEFAULT_POLICY,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    tls: ssl.SSLContext | None = None,
) -> bool:
    """Sends the file at ``path`` with PUT. True if the receiver stored it now, False if it had it already.

    Another thread sends, the event loop only waits. A try that breaks is made anew, from the start: at most
    ``policy.max_tries`` of them; one more where the bytes arrived wrong. ``headers`` is asked anew for each try.
    Redirects and proxies are not followed. Cancelling it cuts the connection.

    Raises NotFound or InvalidBlob (the file is not there, or not of ``size_bytes``; the receiver found other bytes than
    the address says), NotAllowed, Conflict, TooLarge, SpoolFull, FetchFailed (no try got through), InvalidInput (bad
    address).
    """
    target = Target.parse(url)
    failed = wrong = 0
    while True:
        attempt = HttpPut(target, path, size_bytes, headers(), policy, tls)
        try:
            await run_try(attempt, policy)
            return attempt.is_new
        except Interrupted as error:
            reason = str(error)
            failed += 1
        except InvalidBlob as fault:
            reason = fault.message
            wrong += 1
            if wrong > 1 or not attempt.was_sent:
                raise
            log.warning("a blob arrived wrong, sending it once more", host=target.host, reason=reason)
        if failed >= policy.max_tries:
            raise FetchFailed(
                f"The blob could not be sent in {failed} tries: {reason}.",
                cure="Look whether the other machine runs and the network holds.",
                details={"size_bytes": size_bytes, "host": target.host},
            )
        await backoff(failed + wrong, policy, sleep)


class HttpPut(HttpTry):
    """One try to send the whole file. After `run`: ``is_new`` says whether the receiver did not have it before."""

    peer = "receiver"

    def __init__(
        self,
        target: Target,
        path: Path,
        size_bytes: int,
        headers: Mapping[str, str],
        policy: FetchPolicy,
        tls: ssl.SSLContext | None,
    ) -> None:
        described = {"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)}
        super().__init__(target, {**described, **headers}, policy, tls)
        self._path = path
        self._size_bytes = size_bytes
        self.was_sent = False
        self.is_new = False

    def _exchange(self, connection: http.client.HTTPConnection) -> None:
        with os.fdopen(open_regular(self._path), "rb", buffering=0) as file:
            found_bytes = os.fstat(file.fileno()).st_size
            if found_bytes != self._size_bytes:
                raise InvalidBlob(f"The blob's file has {found_bytes} bytes, not {self._size_bytes}.")
            connection.putrequest("PUT", self._target.path, skip_accept_encoding=True)
            for name, value in self._headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            try:
                connection.sock.sendfile(file, 0, self._size_bytes)
            except (BrokenPipeError, ConnectionResetError):
                if not self._read_answer_after_break(connection):
                    raise
                return
        self.was_sent = True
        self._take(connection.getresponse())

    def _read_answer_after_break(self, connection: http.client.HTTPConnection) -> bool:
        """A receiver that refuses answers first and then hangs up, in the middle of what we send. False if it has said
        nothing that can still be read."""
        try:
            response = connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
        self._take(response)
        return True

    def _take(self, response: http.client.HTTPResponse) -> None:
        status = response.status
        if status in (HTTPStatus.OK, HTTPStatus.CREATED):
            self.is_new = status == HTTPStatus.CREATED
            return
        if status in TRANSIENT:
            raise Interrupted(f"the receiver answered {status}")
        words = _words(response.read(MAX_ANSWER_BYTES))
        if status == HTTPStatus.BAD_REQUEST:
            raise InvalidBlob(f"The receiver refuses the blob{words}.", details={"status": status})
        kind, what = _REFUSALS.get(status, (FetchFailed, f"answered {status}"))
        raise kind(f"The receiver {what}{words}.", details={"status": status})


def _words(body: bytes) -> str:
    """The message of an answer in the project's shape of errors, as the end of a sentence."""
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return f": {message.rstrip('.')}" if isinstance(message, str) else ""
