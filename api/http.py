"""How every route reads a body and tells an error."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from ..utils.errors import FlotillaError, InvalidInput, NotAllowed, TooLarge
from ..utils.log import get_logger

log = get_logger("api")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

BODY_CAP_BYTES = 1024 * 1024
PROMPT_BODY_CAP_BYTES = 64 * 1024 * 1024
BODY_TIMEOUT_S = 60.0
CHUNK_BYTES = 64 * 1024
MAX_DEPTH = 100


def error_body(error: FlotillaError) -> dict[str, Any]:
    """The one shape of errors in ``/distributed/v2``."""
    return {"error": {"code": error.code, "message": error.message, "cure": error.cure, "details": error.details}}


def answers_errors(body: Callable[[FlotillaError], dict[str, Any]] = error_body) -> Callable[[Handler], Handler]:
    """A decorator that turns errors of a handler into JSON answers: ours with their status, all others 500."""

    def decorate(handler: Handler) -> Handler:
        @functools.wraps(handler)
        async def wrapped(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except FlotillaError as error:
                return web.json_response(body(error), status=error.status)
            except (web.HTTPException, ConnectionError):
                raise
            except Exception:
                log.exception("a request failed", method=request.method, path=request.path)
                unexpected = FlotillaError(
                    "Something went wrong inside Flotilla.",
                    cure="The server's log has the details; please report them.",
                )
                return web.json_response(body(unexpected), status=unexpected.status)

        return wrapped

    return decorate


def refuse_other_sites(request: web.Request) -> None:
    """Raises NotAllowed for requests that a page of another site makes."""
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise NotAllowed(
            "Pages of other sites may not do this.", cure="Send it from this server's own pages or a script."
        )


async def json_object(request: web.Request, *, cap_bytes: int = BODY_CAP_BYTES) -> dict[str, Any]:
    """The request's body as a JSON object.

    Raises NotAllowed for requests that a page of another site makes, InvalidInput for anything but a JSON object,
    TooLarge beyond ``cap_bytes`` (which is noticed before the rest is read).
    """
    refuse_other_sites(request)
    if request.content_type != "application/json":
        raise InvalidInput(
            f"The body is {request.content_type}, not JSON.", cure="Send it with Content-Type: application/json."
        )
    try:
        body = await asyncio.wait_for(_read(request, cap_bytes), BODY_TIMEOUT_S)
    except asyncio.TimeoutError:
        raise InvalidInput(f"The body did not arrive within {BODY_TIMEOUT_S} s.", cure="Send it at once.") from None
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, a number of thousands of digits, too deep
        raise InvalidInput(f"The body is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidInput("The body must be a JSON object.")
    _check_depth(value)
    if b"\\ud" in body.lower():
        _check_texts(value)
    return value


async def _read(request: web.Request, cap_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_chunked(CHUNK_BYTES):
        body += chunk
        if len(body) > cap_bytes:
            raise TooLarge(
                f"The body is larger than {cap_bytes} bytes.",
                details={"cap_bytes": cap_bytes},
                cure="Send less at once.",
            )
    return bytes(body)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _check_depth(value: Any) -> None:
    """Raises InvalidInput for nesting that would only break later, in a place that cannot say so."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise InvalidInput(f"The body is nested more than {MAX_DEPTH} levels deep.", cure="Send a flatter one.")


def _check_texts(value: Any) -> None:
    """Raises InvalidInput for escapes of half a character, which can be stored nowhere."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInput("The body holds a text with half a character (a lone surrogate).") from None
