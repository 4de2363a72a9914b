"""An input that a master sends with PUT: its body goes to the spool as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from ..runtime.agent import Agent
from ..runtime.pushes import JOB_FIELD, KEEP, KEEP_FIELD
from ..runtime.session import Arrival, MasterSession
from ..transport.limits import MIB
from ..transport.manifest import is_blob_hash
from ..utils.errors import InvalidBlob, InvalidInput, LengthRequired
from ..workers.messages import MAX_ID_CHARS

BATCH_BYTES = 1 * MIB  # what a thread writes at a time; as much may wait for it
IDLE_TIMEOUT_S = 30.0


async def receive_blob(agent: Agent, session: MasterSession, request: web.Request) -> web.Response:
    """Answers an authorised PUT: 201 when the blob was stored, 200 when it was here. Raises what the sender is to hear."""
    blob_hash = request.match_info["hash"]
    if not is_blob_hash(blob_hash):
        raise InvalidInput("A blob is named by 64 lowercase hex digits.")
    job_id = request.query.get(JOB_FIELD, "")
    if not 0 < len(job_id) <= MAX_ID_CHARS:
        raise InvalidInput(f"The query names no {JOB_FIELD}.")
    size_bytes = request.content_length
    if size_bytes is None:
        raise LengthRequired("The blob comes without its length.", cure="Send it with a Content-Length.")
    arrival = Arrival(job_id, blob_hash, keep=request.query.get(KEEP_FIELD) == KEEP)
    is_new = await agent.receive_input(session, arrival, size_bytes, _batches(request))
    return web.json_response({"hash": blob_hash}, status=201 if is_new else 200)


async def _batches(request: web.Request) -> AsyncIterator[list[bytes]]:
    """The body in pieces, `BATCH_BYTES` of them at a time. Raises InvalidBlob if it breaks off or does not go on."""
    batch: list[bytes] = []
    batch_bytes = 0
    while piece := await _next_piece(request):
        batch.append(piece)
        batch_bytes += len(piece)
        if batch_bytes >= BATCH_BYTES:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch


async def _next_piece(request: web.Request) -> bytes:
    try:
        return await asyncio.wait_for(request.content.readany(), IDLE_TIMEOUT_S)
    except asyncio.TimeoutError:
        raise InvalidBlob(f"The blob did not go on for {IDLE_TIMEOUT_S:g} s.", cure="Send it again.") from None
    except (aiohttp.ClientError, OSError) as error:
        raise InvalidBlob(f"The blob broke off: {type(error).__name__}.", cure="Send it again.") from error
