"""The host's HTTP server: where routes and middlewares go, which loop it runs on, where private files live."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import folder_paths
from aiohttp import web
from server import PromptServer

PromptHandler = Callable[[dict[str, Any]], dict[str, Any]]

SYSTEM_USER = "flotilla"


class HostServer:
    """A thin face of ``PromptServer.instance``. Everything must be registered while custom nodes are being imported:
    afterwards the host's routes are frozen."""

    @property
    def _instance(self) -> Any:
        return PromptServer.instance

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that serves HTTP. It is never the loop that nodes run in."""
        loop: asyncio.AbstractEventLoop = self._instance.loop
        return loop

    @property
    def routes(self) -> web.RouteTableDef:
        """Routes added here are served under ``/api`` as well."""
        routes: web.RouteTableDef = self._instance.routes
        return routes

    def add_middleware(self, middleware: Any) -> None:
        """Adds an aiohttp middleware behind the host's own."""
        self._instance.app.middlewares.append(middleware)

    def add_prompt_handler_last(self, handler: PromptHandler) -> None:
        """Registers ``handler`` behind those of every other pack, so that it sees the prompt as it will be queued."""

        async def register(_app: web.Application) -> None:
            self._instance.add_on_prompt_handler(handler)

        self._instance.app.on_startup.append(register)

    def on_startup(self, start: Callable[[], Awaitable[None]]) -> None:
        """Runs ``start`` on the server's loop when the server is set up, after all packs were imported."""

        async def run(_app: web.Application) -> None:
            await start()

        self._instance.app.on_startup.append(run)

    @property
    def port(self) -> int | None:
        """The bound port; None before the server listens."""
        return getattr(self._instance, "port", None)

    @property
    def address(self) -> str | None:
        """The address listened on; None before the server listens."""
        return getattr(self._instance, "address", None)

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Runs ``callback`` on the server's loop, from any thread. Silent when that loop is already closed."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(callback, *args)


def private_folder() -> Path:
    """The folder of the host's private system user, which no HTTP route reaches. Made if missing."""
    folder = Path(folder_paths.get_system_user_directory(SYSTEM_USER))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
