"""``/distributed/v2/workers``, ``settings`` and ``system``: who belongs to the fleet, and how it is."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from ..jobs.model import ParticipantState
from ..utils.errors import Conflict, NotFound
from ..utils.ids import new_id
from ..utils.version import VERSION
from ..workers.address import is_https_host, parse_address
from ..workers.connection import WorkerHealth
from ..workers.entries import Kind, WorkerEntry, make_entry
from . import openapi, v2_jobs, wire
from .openapi import Call, Route
from .services import Services
from .wire import WorkerState

WORKERS = openapi.PREFIX + "/workers"
WORKER = WORKERS + "/{id}"
SETTINGS = openapi.PREFIX + "/settings"
SYSTEM = openapi.PREFIX + "/system"
DOCUMENT = openapi.PREFIX + "/openapi.json"

REST_CURE = "It is asked again by itself; its last failures are shown with the jobs' items."


class Document(BaseModel):
    """An OpenAPI 3.1 document."""

    model_config = ConfigDict(extra="allow")


def register(services: Services, routes: web.RouteTableDef) -> None:
    """Adds the routes, and behind them the answer to everything else below ``/distributed/v2``."""
    openapi.add_routes(services, ROUTES, routes)
    openapi.add_fallback(ALL_ROUTES, routes)


# Workers. The registry writes a file and waits for the disk, which must not hold up the server's loop.


async def list_workers(services: Services, call: Call) -> wire.WorkersOut:
    """Answers ``GET /workers``."""
    health = services.pool.health()
    entries = services.registry.entries()
    return wire.WorkersOut(workers=[_worker_out(services, entry, health.get(entry.id)) for entry in entries])


async def add_worker(services: Services, call: Call) -> wire.WorkerOut:
    """Answers ``POST /workers``."""
    fields = call.body.given()
    fields.setdefault("id", new_id())
    fields.setdefault("name", fields["address"])
    fields.setdefault("kind", kind_of(fields["address"]))
    entry = await asyncio.to_thread(services.registry.add, make_entry(fields))
    return _one_worker(services, entry)


async def get_worker(services: Services, call: Call) -> wire.WorkerOut:
    """Answers ``GET /workers/{id}``."""
    return _one_worker(services, services.registry.get(call.path["id"]))


async def patch_worker(services: Services, call: Call) -> wire.WorkerOut:
    """Answers ``PATCH /workers/{id}``."""
    entry = await asyncio.to_thread(services.registry.patch, call.path["id"], call.body.given())
    return _one_worker(services, entry)


async def remove_worker(services: Services, call: Call) -> wire.WorkerRemoved:
    """Answers ``DELETE /workers/{id}``."""
    entry = await asyncio.to_thread(services.registry.remove, call.path["id"])
    return wire.WorkerRemoved(removed=entry.id)


async def connect_worker(services: Services, call: Call) -> wire.WorkerOut:
    """Answers ``POST /workers/{id}/connect``."""
    entry = services.registry.get(call.path["id"])
    if not entry.enabled:
        raise Conflict("The worker is disabled.", cure="Enable it; it is then linked by itself.")
    services.pool.kick(entry.id)
    return _one_worker(services, entry)


def kind_of(address: str) -> Kind:
    """What kind of worker lives at an address, if nobody says. Raises InvalidInput."""
    where = parse_address(address)
    if where.is_loopback:
        return "local"
    return "cloud" if is_https_host(where.host) else "remote"


def _one_worker(services: Services, entry: WorkerEntry) -> wire.WorkerOut:
    return _worker_out(services, entry, services.pool.health().get(entry.id))


def _worker_out(services: Services, entry: WorkerEntry, health: WorkerHealth | None) -> wire.WorkerOut:
    status = services.coordinator.participants.status(entry.id)
    known = services.coordinator.participant(entry.id)
    rest = ""
    # A change of the registry reaches the pool a moment later.
    state: WorkerState = "disabled" if not entry.enabled else health.state if health is not None else "connecting"
    if state == "online" and known is not None and known.state == ParticipantState.RESTING.value:
        state, rest = "resting", known.reason
    return wire.WorkerOut(
        id=entry.id,
        name=entry.name,
        address=entry.address,
        enabled=entry.enabled,
        kind=entry.kind,
        tags=entry.tags,
        precision=entry.precision,
        state=state,
        reason=health.reason if health else "",
        message=rest or (health.message if health else ""),
        cure=REST_CURE if rest else health.cure if health else "",
        since_s=max(0.0, services.clock.now_s() - health.since_s) if health and health.since_s else None,
        rtt_ms=health.rtt_ms if health else None,
        version=health.peer.version if health and health.peer else None,
        same_host=entry.enabled and services.fetcher.is_same_host(entry.id),
        queue=wire.QueueOut(running=status.running, pending=status.pending, ours=status.ours)
        if status and entry.enabled
        else None,
    )


# The instance


async def get_settings(services: Services, call: Call) -> wire.SettingsOut:
    """Answers ``GET /settings``."""
    return wire.SettingsOut.model_validate(services.registry.settings().model_dump())


async def patch_settings(services: Services, call: Call) -> wire.SettingsOut:
    """Answers ``PATCH /settings``."""
    settings = await asyncio.to_thread(services.registry.patch_settings, call.body.given())
    return wire.SettingsOut.model_validate(settings.model_dump())


async def get_system(services: Services, call: Call) -> wire.SystemOut:
    """Answers ``GET /system``."""
    facts, usage = await asyncio.gather(asyncio.to_thread(host_facts), asyncio.to_thread(services.spool.usage))
    return wire.SystemOut(
        version=VERSION,
        instance_id=services.identity.instance_id,
        name=services.identity.name,
        key_fingerprint=services.key.fingerprint if services.key is not None else None,
        spool=wire.SpoolOut(**dataclasses.asdict(usage)),
        journal=wire.JournalOut(**dataclasses.asdict(services.journal.status())),
        **facts,
    )


async def get_openapi(services: Services, call: Call) -> Document:
    """Answers ``GET /openapi.json``."""
    return Document(**openapi.document(ALL_ROUTES))


def host_facts() -> dict[str, Any]:
    """What only the host knows: its version and the device that it computes on."""
    from ..host import facts  # here, because it brings the host's own modules along

    return {"host_version": facts.host_version(), "device": facts.device_name()}


ROUTES = (
    Route("GET", WORKERS, "Lists the workers with their health", list_workers, wire.WorkersOut, tag="workers"),
    Route(
        "POST",
        WORKERS,
        "Adds a worker",
        add_worker,
        wire.WorkerOut,
        body=wire.WorkerIn,
        errors=(Conflict,),
        status=web.HTTPCreated.status_code,
        tag="workers",
    ),
    Route("GET", WORKER, "Shows a worker", get_worker, wire.WorkerOut, errors=(NotFound,), tag="workers"),
    Route(
        "PATCH",
        WORKER,
        "Changes the given fields of a worker",
        patch_worker,
        wire.WorkerOut,
        body=wire.WorkerPatch,
        errors=(NotFound, Conflict),
        tag="workers",
    ),
    Route(
        "DELETE",
        WORKER,
        "Removes a worker",
        remove_worker,
        wire.WorkerRemoved,
        errors=(NotFound, Conflict),
        tag="workers",
    ),
    Route(
        "POST",
        WORKER + "/connect",
        "Tries to link a worker at once",
        connect_worker,
        wire.WorkerOut,
        body=wire.Nothing,
        errors=(NotFound, Conflict),
        tag="workers",
    ),
    Route("GET", SETTINGS, "Shows the fleet's settings", get_settings, wire.SettingsOut, tag="instance"),
    Route(
        "PATCH",
        SETTINGS,
        "Changes the given settings",
        patch_settings,
        wire.SettingsOut,
        body=wire.SettingsPatch,
        errors=(Conflict,),
        tag="instance",
    ),
    Route("GET", SYSTEM, "Shows this instance", get_system, wire.SystemOut, tag="instance"),
    Route("GET", DOCUMENT, "This document", get_openapi, Document, tag="instance"),
)
ALL_ROUTES = (*v2_jobs.ROUTES, *ROUTES)
