"""The routes that another instance uses: the link, results that were announced over it, and inputs for items."""

from __future__ import annotations

from aiohttp import web

from ..runtime.results import BLOB_ROUTE
from ..workers.address import LINK_PATH
from ..workers.doors import peer_is_loopback, serve_link
from ..workers.handshake import Acceptor
from .blobs import receive_blob
from .http import answers_errors
from .services import Services


def register(services: Services, routes: web.RouteTableDef) -> None:
    """Adds the routes. The link proves the fleet key; a blob wants a token that was made from a link's session."""

    @routes.get(LINK_PATH)
    @answers_errors()
    async def link(request: web.Request) -> web.StreamResponse:
        acceptor = Acceptor(services.key, services.identity, peer_is_loopback(request))
        return await serve_link(request, acceptor, services.agent.serve)

    @routes.get(BLOB_ROUTE + "{hash}")
    @answers_errors()
    async def blob(request: web.Request) -> web.StreamResponse:
        services.agent.authorise(request.headers.get("Authorization"), request.method, request.rel_url.raw_path)
        path = services.spool.open(request.match_info["hash"])
        return web.FileResponse(path, headers={"Content-Type": "application/octet-stream"})

    @routes.put(BLOB_ROUTE + "{hash}")
    @answers_errors()
    async def take_blob(request: web.Request) -> web.StreamResponse:
        target = request.rel_url.raw_path_qs
        session = services.agent.authorise(request.headers.get("Authorization"), request.method, target)
        return await receive_blob(services.agent, session, request)
