"""The two doors of a link: `dial` on the master, `accept` on the worker. Both run the handshake in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket as sockets
import ssl
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp import web

from ..utils.clock import Clock, SystemClock
from ..utils.errors import InvalidInput, LinkLost, LinkRefused
from ..utils.log import get_logger
from .address import WorkerAddress, is_loopback_host
from .framing import MAX_FRAME_BYTES
from .handshake import MAX_HANDSHAKE_CHARS, Acceptor, Dialler, Established, Refusal
from .heart import LiveLink
from .link import CLOSE_TIMEOUT_S, Socket, WebSocketLink, lost

log = get_logger("workers")

CONNECT_TIMEOUT_S = 5.0
HANDSHAKE_TIMEOUT_S = 10.0
"""For everything from the first packet to the last proof."""

REFUSED_BEFORE: dict[str, str] = {
    "not_flotilla": "Check the address; install Flotilla on that ComfyUI and restart it.",
    "redirected": "Enter the address to which the server redirects.",
    "tls": "Check the certificate of the worker's server, or use its http:// address inside a trusted network.",
    "login": "A proxy before the worker asks for a login; give Flotilla an address without one.",
    "browser": "Links are made by Flotilla itself, never from a web page.",
}
"""Reasons for which there was no handshake at all, beside those in `handshake.REASONS`."""

_PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "CF-Connecting-IP", "Via")
_STATUS_LOGIN = frozenset({401, 403, 407})
_STATUS_GATEWAY = frozenset({500, 502, 503, 504, 530})


class _Redirected(Exception):
    """The server answered with a redirect, which is never followed: it would choose whom we talk to."""


async def dial(
    session: aiohttp.ClientSession,
    address: WorkerAddress,
    dialler: Dialler,
    *,
    clock: Clock | None = None,
    timeout_s: float = HANDSHAKE_TIMEOUT_S,
) -> WebSocketLink:
    """Opens a link to a worker, using the connector of ``session``.

    The link is bare: wrap it in `heart.LiveLink`. Raises LinkRefused where trying again changes nothing until somebody acts, LinkLost where it may.
    """
    if not dialler.has_key and not address.is_loopback:
        raise Refusal("loopback_only", "This server has no fleet key and links only with workers on its own machine.")
    if session.connector is None:
        raise lost("local", "This side is shutting down.")
    # A session of its own keeps the caller's cookies and headers out of the link and forbids redirects.
    own = aiohttp.ClientSession(
        connector=session.connector,
        connector_owner=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S),
        trace_configs=[_no_redirects()],
    )
    try:
        try:
            return await asyncio.wait_for(_dial(own, address, dialler, clock or SystemClock()), timeout_s)
        finally:
            await own.close()  # the socket of a link belongs to the connector and stays open
    except asyncio.TimeoutError:
        raise lost("timeout", f"{address} did not answer the handshake within {timeout_s:g} s.") from None
    except _Redirected:
        raise _refused("redirected", f"{address} answers with a redirect.") from None
    except aiohttp.WSServerHandshakeError as error:
        raise _from_status(address, error.status) from None
    except (aiohttp.ClientSSLError, ssl.SSLError) as error:
        raise _refused("tls", f"The secure connection to {address} failed ({type(error).__name__}).") from None
    except aiohttp.ClientResponseError:
        raise _refused("not_flotilla", f"What answers at {address} does not speak HTTP.") from None
    except (aiohttp.ClientError, OSError) as error:
        raise lost("unreachable", f"{address} cannot be reached: {_why(error)}.") from None


async def accept(
    request: web.Request, acceptor: Acceptor, *, clock: Clock | None = None, timeout_s: float = HANDSHAKE_TIMEOUT_S
) -> tuple[WebSocketLink, web.WebSocketResponse]:
    """Takes a link from a master; the handler returns the response when the link has ended.

    The link is bare: wrap it in `heart.LiveLink`. Raises InvalidInput before anything is answered if this is no
    WebSocket request, LinkRefused if it comes from a web page; later LinkRefused or LinkLost, with the connection closed.
    """
    if "Origin" in request.headers:
        raise LinkRefused("browser", "A web page tried to open a link.", cure=REFUSED_BEFORE["browser"])
    socket = web.WebSocketResponse(timeout=CLOSE_TIMEOUT_S, compress=False, max_msg_size=MAX_FRAME_BYTES)
    if not socket.can_prepare(request):
        raise InvalidInput("This route takes WebSocket connections only.", cure="It is used by Flotilla itself.")
    await socket.prepare(request)

    def cut() -> None:
        if request.transport is not None:
            request.transport.abort()

    try:
        established = await asyncio.wait_for(_converse(socket, acceptor), timeout_s)
    except asyncio.TimeoutError:
        cut()
        raise lost("timeout", f"The master did not finish the handshake within {timeout_s:g} s.") from None
    except (OSError, RuntimeError, aiohttp.ClientError) as error:
        cut()
        raise lost("closed", f"The connection ended during the handshake ({type(error).__name__}).") from None
    return WebSocketLink(socket, established, clock or SystemClock(), cut), socket


async def serve_link(
    request: web.Request, acceptor: Acceptor, on_link: Callable[[LiveLink], Awaitable[None]]
) -> web.StreamResponse:
    """A whole route handler: accepts, runs ``on_link`` until it ends, closes.

    Raises only before anything was answered: InvalidInput, and LinkRefused for a web page.
    """
    try:
        link, response = await accept(request, acceptor)
    except (LinkRefused, LinkLost) as error:
        if error.details.get("reason") == "browser":
            raise
        log.warning("link from a master was refused", remote=request.remote, cause=error.message)
        # The connection is closed already; aiohttp only wants a response object.
        return web.Response()
    live = LiveLink(link)
    try:
        await on_link(live)
    except LinkLost as error:
        log.info("link to a master ended", master=link.peer.name, cause=error.message)
    finally:
        await live.close("the worker ended the link")
    return response


def peer_is_loopback(request: web.Request) -> bool:
    """Whether the caller surely is on this machine: a tunnel or proxy here also connects from loopback, but says so."""
    if any(header in request.headers for header in _PROXY_HEADERS):
        return False
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    return isinstance(peer, tuple) and is_loopback_host(str(peer[0]))


# Parts


async def _dial(
    session: aiohttp.ClientSession, address: WorkerAddress, dialler: Dialler, clock: Clock
) -> WebSocketLink:
    socket = await session.ws_connect(
        address.link_url(),
        timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
        compress=0,
        max_msg_size=MAX_FRAME_BYTES,
    )
    raw = socket.get_extra_info("socket")

    def cut() -> None:
        # The client's transport is not public, but ending its socket makes the transport notice and close.
        with contextlib.suppress(OSError):
            raw.shutdown(sockets.SHUT_RDWR)

    try:
        established = await _converse(socket, dialler)
    except BaseException:
        cut()
        await socket.close()
        raise
    return WebSocketLink(socket, established, clock, cut)


async def _converse(socket: Socket, side: Dialler | Acceptor) -> Established:
    """Carries the messages of a handshake until it is done."""
    try:
        await _say(socket, side.start())
        while side.established is None:
            await _say(socket, side.receive(await _hear(socket)))
        return side.established
    except LinkRefused as error:
        if isinstance(error, Refusal):
            with contextlib.suppress(OSError, RuntimeError, aiohttp.ClientError):
                await _say(socket, [error.farewell])
        await socket.close()
        raise


async def _say(socket: Socket, messages: list[dict[str, Any]]) -> None:
    for message in messages:
        await socket.send_str(json.dumps(message))


async def _hear(socket: Socket) -> dict[str, Any]:
    frame = await socket.receive()
    if frame.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED):
        raise lost("closed", "The other side ended the connection during the handshake.")
    if frame.type is not aiohttp.WSMsgType.TEXT or len(frame.data) > MAX_HANDSHAKE_CHARS:
        raise Refusal("malformed", "A frame came that does not belong into a handshake.")
    try:
        value = json.loads(frame.data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Refusal("malformed", "A message of the handshake is not a JSON object.")
    return value


def _no_redirects() -> aiohttp.TraceConfig:
    async def refuse(
        _session: aiohttp.ClientSession, _context: SimpleNamespace, _params: aiohttp.TraceRequestRedirectParams
    ) -> None:
        raise _Redirected

    config = aiohttp.TraceConfig()
    config.on_request_redirect.append(refuse)
    return config


def _refused(reason: str, message: str) -> LinkRefused:
    return LinkRefused(reason, message, cure=REFUSED_BEFORE[reason])


def _from_status(address: WorkerAddress, status: int) -> LinkRefused | LinkLost:
    if status in _STATUS_GATEWAY:
        return lost("unreachable", f"{address} answers with HTTP status {status}; its server may be down.")
    if status in _STATUS_LOGIN:
        return _refused("login", f"{address} does not let us in (HTTP status {status}).")
    return _refused("not_flotilla", f"{address} answers, but has no link route of Flotilla (HTTP status {status}).")


def _why(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host name is not known"
    if isinstance(error, aiohttp.ServerTimeoutError):
        return f"no connection within {CONNECT_TIMEOUT_S:g} s"
    if isinstance(error, ConnectionRefusedError) or isinstance(
        getattr(error, "os_error", None), ConnectionRefusedError
    ):
        return "nothing listens there"
    return type(error).__name__
