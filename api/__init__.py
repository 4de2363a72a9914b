"""Floor 5: HTTP: routes, wire models, prompt interception."""

from __future__ import annotations

from . import compat_config, compat_queue, links, v2_fleet, v2_jobs
from .intercept import Interceptor
from .services import Services


def register_routes(services: Services, interceptor: Interceptor) -> None:
    """Adds all routes to the host's table, which serves them under ``/api`` as well."""
    routes = services.server.routes
    links.register(services, routes)
    v2_jobs.register(services, routes)
    v2_fleet.register(services, routes)
    compat_queue.register(services, interceptor, routes)
    compat_config.register(services, routes)
