"""How every route reads a body and tells an error."""

from __future__ import annotations

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
                    "Something went wrong inside Flotilla.", cure="The server's log has the details; please report them."
                )
                return web.json_response(body(unexpected), status=unexpected.status)

        return wrapped

    return decorate


async def json_object(request: web.Request, *, cap_bytes: int = BODY_CAP_BYTES) -> dict[str, Any]:
    """The request's body as a JSON object.

    Raises NotAllowed for requests that a page of another site makes, InvalidInput for anything but a JSON object,
    TooLarge beyond ``cap_bytes`` (which is noticed before the rest is read).
    """
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise NotAllowed("Pages of other sites may not do this.")
    if request.content_type != "application/json":
        raise InvalidInput(
            f"The body is {request.content_type}, not JSON.", cure="Send it with Content-Type: application/json."
        )
    body = bytearray()
    async for chunk in request.content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > cap_bytes:
            raise TooLarge(
                f"The body is larger than {cap_bytes} bytes.", details={"cap_bytes": cap_bytes}, cure="Send less at once."
            )
    try:
        value = json.loads(body.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput(f"The body is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidInput("The body must be a JSON object.")
    return value
