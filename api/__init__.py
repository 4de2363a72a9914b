"""Floor 5: HTTP: routes, wire models, prompt interception."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import links

if TYPE_CHECKING:  # both bring the host's own modules along, which routes can do without
    from .intercept import Interceptor
    from .services import Services


def register_routes(services: Services, interceptor: Interceptor) -> None:
    """Adds all routes to the host's table, which serves them under ``/api`` as well."""
    routes = services.server.routes
    links.register(services, routes)
