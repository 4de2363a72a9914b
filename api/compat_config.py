"""``/distributed/config…``: the registry in the shape of the older extension's ``gpu_config.json``.

An older worker has host, port and type where ours has one address; `to_older` and `from_older` translate. Only fields
that the older configuration had are ever sent. Ids are compared as text, and wrong types are refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ..utils.errors import FlotillaError, InvalidInput, NotFound
from ..workers.entries import RegistryData, Settings, WorkerEntry, make_entry, make_settings
from .compat_queue import compat_error
from .compat_worker import change_older, clean_host, is_int, read_id, to_older
from .http import answers_errors, json_object

if TYPE_CHECKING:
    from .services import Services

CONFIG = "/distributed/config"
FLAT_SETTINGS = (
    "worker_timeout_seconds",
    "debug",
    "auto_launch_workers",
    "stop_workers_on_master_exit",
    "master_delegate_only",
    "websocket_orchestration",
    "has_auto_populated_workers",
)
"""The settings that single-field routes know."""

RAW_SETTINGS = {
    "worker_probe_concurrency": 8,
    "worker_prep_concurrency": 4,
    "media_sync_concurrency": 2,
    "media_sync_timeout_seconds": 120,
}
"""Settings that nothing here needs, kept for those who wrote them, with the defaults that readers expect."""

OLDER_SETTINGS = (*FLAT_SETTINGS, *RAW_SETTINGS)
SECTIONS = ("master", "settings", "tunnel", "managed_processes")
MASTER_FIELDS = ("host", "port", "cuda_device", "extra_args")
TUNNEL_DEFAULTS: dict[str, Any] = {
    "status": "stopped",
    "public_url": "",
    "pid": None,
    "log_file": "",
    "previous_master_host": "",
}
PROCESS_FIELDS = ("pid", "started_at", "log_file", "launching")
PLAIN = (str, int, float, bool, type(None))

Change = dict[str, Any]


def register(services: Services, routes: web.RouteTableDef) -> None:
    """Adds the routes."""
    registry = services.registry

    async def change(make: Callable[[RegistryData], Change]) -> RegistryData:
        # The registry writes a file and waits for the disk, which must not hold up the server's loop.
        return await asyncio.to_thread(registry.change, make)

    @routes.get(CONFIG)
    @answers_errors(compat_error)
    async def get_config(request: web.Request) -> web.StreamResponse:
        return web.json_response(config_of(registry.data()))

    @routes.post(CONFIG)
    @answers_errors(compat_error)
    async def post_config(request: web.Request) -> web.StreamResponse:
        body = await json_object(request)
        try:
            data = await change(lambda old: replaced(old, body))
        except FlotillaError as error:
            return web.json_response(bulk_error(error), status=web.HTTPBadRequest.status_code)
        return web.json_response({"status": "success", "config": config_of(data)})

    @routes.post(CONFIG + "/update_worker")
    @answers_errors(compat_error)
    async def update_worker(request: web.Request) -> web.StreamResponse:
        body = await json_object(request)
        worker_id = read_id(body.pop("worker_id", None), "worker_id")
        await change(lambda old: worker_updated(old, worker_id, body))
        return web.json_response({"status": "success"})

    @routes.post(CONFIG + "/delete_worker")
    @answers_errors(compat_error)
    async def delete_worker(request: web.Request) -> web.StreamResponse:
        body = await json_object(request)
        worker_id = read_id(body.get("worker_id"), "worker_id")
        entry = await asyncio.to_thread(registry.remove, worker_id)
        return web.json_response({"status": "success", "message": f"The worker {entry.name} was deleted."})

    @routes.post(CONFIG + "/update_setting")
    @answers_errors(compat_error)
    async def update_setting(request: web.Request) -> web.StreamResponse:
        body = await json_object(request)
        key, value = body.get("key"), body.get("value")
        if not isinstance(key, str) or key not in FLAT_SETTINGS:
            raise InvalidInput("key names no setting.", cure=f"Known ones: {', '.join(FLAT_SETTINGS)}.")
        if value is None:
            raise InvalidInput("value is missing.")
        await asyncio.to_thread(registry.patch_settings, {key: value})
        return web.json_response({"status": "success", "message": f"The setting {key} was stored."})

    @routes.post(CONFIG + "/update_master")
    @answers_errors(compat_error)
    async def update_master(request: web.Request) -> web.StreamResponse:
        body = await json_object(request)
        await change(lambda old: master_updated(old, body))
        return web.json_response({"status": "success", "message": "The master's settings were stored."})


# Reading


def config_of(data: RegistryData) -> dict[str, Any]:
    """The whole configuration as older clients read it, defaults filled in."""
    settings = data.settings.model_dump()
    config: dict[str, Any] = {
        "master": _master_of(data),
        "workers": [to_older(entry) for entry in data.workers],
        "settings": {key: _plain(settings.get(key, RAW_SETTINGS.get(key))) for key in OLDER_SETTINGS},
        "tunnel": {key: _plain(data.tunnel.get(key, default)) for key, default in TUNNEL_DEFAULTS.items()},
    }
    if data.managed_processes:
        config["managed_processes"] = {
            name: {key: _plain(process[key]) for key in PROCESS_FIELDS if key in process}
            for name, process in data.managed_processes.items()
            if isinstance(process, dict)
        }
    return config


def _master_of(data: RegistryData) -> dict[str, Any]:
    master = {key: _plain(data.master[key]) for key in MASTER_FIELDS if key in data.master}
    master.setdefault("host", "")
    if data.settings.master_name != Settings().master_name or "name" in data.master:
        master["name"] = data.settings.master_name
    return master


def _plain(value: Any) -> Any:
    """Whatever an old file holds where a plain value belongs is not sent."""
    return value if isinstance(value, PLAIN) else None


# Changing: each returns what is to be replaced in the registry


def replaced(old: RegistryData, body: Mapping[str, Any]) -> Change:
    """What ``POST /distributed/config`` asks for. Raises InvalidInput with all faults in ``details["faults"]``."""
    faults = [f"Unknown key: {key}" for key in body if key not in ("workers", *SECTIONS, *FLAT_SETTINGS)]
    faults += [f"{key} must be an object" for key in SECTIONS if key in body and not isinstance(body[key], dict)]
    if "workers" in body and not isinstance(body["workers"], list):
        faults.append("workers must be a list")
    _raise(faults)
    change: Change = {}
    settings = data_settings = old.settings.model_dump()
    if "settings" in body:
        # Ours that older clients do not know stay as they are.
        settings = {key: value for key, value in data_settings.items() if key in _OWN_SETTINGS} | body["settings"]
    settings = {**settings, **{key: body[key] for key in FLAT_SETTINGS if key in body}}
    if "master" in body:
        master = dict(body["master"])
        if "name" in master:
            settings["master_name"] = _name(master.pop("name"), faults)
        change["master"] = {**_checked_master(master, faults), **({"name": ""} if "name" in body["master"] else {})}
    for section in ("tunnel", "managed_processes"):
        if section in body:
            change[section] = body[section]
    change["settings"] = _collect(lambda: make_settings(settings).model_dump(), faults)
    if "workers" in body:
        change["workers"] = _replaced_workers(old, body["workers"], faults)
    _raise(faults)
    return change


_OWN_SETTINGS = frozenset(Settings.model_fields) - set(OLDER_SETTINGS)
