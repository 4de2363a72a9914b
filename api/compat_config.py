"""``/distributed/config…``: the registry in the shape of the older extension's ``gpu_config.json``.

An older worker has host, port and type where ours has one address; `to_older` and `from_older` translate. Only fields
that the older configuration had are ever sent. Ids are compared as text, and wrong types are refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from ..utils.errors import FlotillaError, InvalidInput, NotFound
from ..workers.entries import RegistryData, Settings, make_entry, make_settings
from .compat_queue import compat_error
from .compat_worker import (
    NEEDED_FOR_NEW,
    NEW_WORKER,
    clean_host,
    read_device,
    read_id,
    read_port,
    read_text,
    rewritten,
    to_older,
    updated,
    without_login,
)
from .http import answers_errors, json_object
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
DEFAULT_MASTER_NAME = Settings().master_name
_OWN_SETTINGS = frozenset(Settings.model_fields) - set(OLDER_SETTINGS)

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
    master["host"] = without_login(str(master.get("host") or "")) or ""
    if data.settings.master_name != DEFAULT_MASTER_NAME:
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
    change: Change = {key: body[key] for key in ("tunnel", "managed_processes") if key in body}
    settings = _replaced_settings(old, body, faults)
    if "master" in body:
        with _collecting(faults, "master"):
            change["master"] = _checked_master(body["master"], settings, clean=False)
    with _collecting(faults):
        change["settings"] = make_settings(settings).model_dump()
    if "workers" in body:
        change["workers"] = _replaced_workers(old, body["workers"], faults)
    _raise(faults)
    return change


def worker_updated(old: RegistryData, worker_id: str, fields: Mapping[str, Any]) -> Change:
    """What ``update_worker`` asks for. Raises NotFound for an unknown id without the fields of a new worker."""
    fields = dict(fields)
    if isinstance(fields.get("host"), str):
        fields["host"] = clean_host(fields["host"])
    workers = [entry.to_json() for entry in old.workers]
    for at, entry in enumerate(old.workers):
        if entry.id == worker_id:
            workers[at] = make_entry(updated(entry, fields, at + 1)).to_json()
            return {"workers": workers}
    if not all(field in fields for field in NEEDED_FOR_NEW):
        raise NotFound("There is no worker with this id.", cure=f"A new one needs {', '.join(NEEDED_FOR_NEW)}.")
    new = rewritten({**NEW_WORKER, **fields, "id": worker_id}, len(workers) + 1, None)
    return {"workers": [*workers, make_entry(new).to_json()]}


def master_updated(old: RegistryData, fields: Mapping[str, Any]) -> Change:
    """What ``update_master`` asks for; fields that it does not know are passed over."""
    known = {key: value for key, value in fields.items() if key in ("name", *MASTER_FIELDS)}
    settings = old.settings.model_dump()
    master = _checked_master({**old.master, **known}, settings, clean=True)
    return {"master": master, "settings": make_settings(settings).model_dump()}


def bulk_error(error: FlotillaError) -> dict[str, Any]:
    """The shape of errors of ``POST /distributed/config`` alone."""
    texts = _texts(error)
    return {"status": "error", "error": texts, "message": "; ".join(texts)}


def _replaced_settings(old: RegistryData, body: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    settings = old.settings.model_dump()
    if "settings" in body:
        # Ours, which older clients do not know, stay as they are.
        settings = {**{key: value for key, value in settings.items() if key in _OWN_SETTINGS}, **body["settings"]}
    given = {key: settings[key] for key in RAW_SETTINGS if key in settings}
    faults += [f"settings.{key} must be a number" for key, value in given.items() if type(value) not in (int, float)]
    return {**settings, **{key: body[key] for key in FLAT_SETTINGS if key in body}}


def _replaced_workers(old: RegistryData, workers: list[Any], faults: list[str]) -> list[dict[str, Any]]:
    before = {entry.id: entry for entry in old.workers}
    entries: list[dict[str, Any]] = []
    for position, worker in enumerate(workers, start=1):
        with _collecting(faults, f"workers[{position - 1}]"):
            if not isinstance(worker, dict):
                raise InvalidInput("It must be an object.")
            worker_id = read_id(worker.get("id"), "id")
            entries.append(make_entry(rewritten(worker, position, before.get(worker_id))).to_json())
    return entries


def _checked_master(master: Mapping[str, Any], settings: dict[str, Any], *, clean: bool) -> dict[str, Any]:
    """The section without what is null; the master's name is one of our settings and goes there."""
    checked = dict(master)
    if "name" in checked:
        name = read_text(checked.pop("name"), "name")
        settings["master_name"] = (name or "").strip() or DEFAULT_MASTER_NAME
    host = read_text(checked.get("host"), "host")
    if host is not None:
        checked["host"] = clean_host(host) if clean else host
        if "@" in host:
            raise InvalidInput("host holds a user name or a password.", cure="Remove it.")
    checked["port"] = read_port(checked.get("port"))
    checked["cuda_device"] = read_device(checked.get("cuda_device"))
    checked["extra_args"] = read_text(checked.get("extra_args"), "extra_args")
    return {key: value for key, value in checked.items() if value is not None}


def _texts(error: FlotillaError) -> list[str]:
    """Every fault in an error, as a text of its own."""
    faults = error.details.get("faults")
    if not isinstance(faults, list):
        return [str(error)]
    return [f"{one['field']}: {one['problem']}" if isinstance(one, dict) else str(one) for one in faults]


@contextmanager
def _collecting(faults: list[str], where: str = "") -> Iterator[None]:
    try:
        yield
    except FlotillaError as error:
        faults.extend(f"{where}: {text}" if where else text for text in _texts(error))


def _raise(faults: list[str]) -> None:
    if faults:
        raise InvalidInput("The configuration is not valid.", details={"faults": faults})
