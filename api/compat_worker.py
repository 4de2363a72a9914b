"""Workers as the older extension's configuration writes them: host, port and type where ours have one address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..utils.errors import InvalidInput
from ..workers.address import MAX_PORT
from ..workers.entries import MASTER_ID, Kind, WorkerEntry
from ..workers.importer import infer_kind, older_address

KINDS: tuple[Kind, ...] = ("local", "remote", "cloud")
OLDER_FIELDS = ("name", "type", "host", "port", "cuda_device", "enabled", "extra_args")
NEEDED_FOR_NEW = ("name", "port", "cuda_device")
"""An update of an unknown worker makes a new one if it has these fields."""

NEW_WORKER: dict[str, Any] = {"host": "localhost", "enabled": False, "extra_args": "", "type": "local"}
_OWN_FIELDS = ("tags", "precision")
MAX_PORT_CHARS = 5


def to_older(entry: WorkerEntry) -> dict[str, Any]:
    """The worker with the fields that the older configuration had, and no others."""
    host, port = _place(entry)
    older = {
        "id": entry.id,
        "name": entry.name,
        "type": entry.kind,
        "host": host,
        "port": port,
        "cuda_device": entry.cuda_device,
        "enabled": entry.enabled,
        "extra_args": entry.extra_args,
    }
    return {key: value for key, value in older.items() if value is not None}


def updated(entry: WorkerEntry, fields: Mapping[str, Any], position: int) -> dict[str, Any]:
    """The entry, as JSON, with some older fields changed; all others, ours too, stay. Raises InvalidInput."""
    wanted = {**to_older(entry), **_checked(fields)}
    return {**entry.to_json(), **_own_form(wanted, position, entry)}


def rewritten(worker: Mapping[str, Any], position: int, before: WorkerEntry | None) -> dict[str, Any]:
    """An entry, as JSON, made of a whole older worker; unknown keys are kept, and of the entry that had this id
    ``before`` what the older form cannot say. Raises InvalidInput."""
    known = {*WorkerEntry.model_fields, *OLDER_FIELDS}
    unknown = {key: value for key, value in worker.items() if key not in known}
    ours = {key: value for key, value in (before.to_json() if before else {}).items() if key in _OWN_FIELDS}
    wanted = {**_checked(worker), "id": read_id(worker.get("id"), "id")}
    return {**unknown, **ours, **_own_form(wanted, position, before), "id": wanted["id"]}


def read_id(value: object, field: str) -> str:
    """A worker's id as text. Raises InvalidInput."""
    text = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not text:
        raise InvalidInput(f"{field} is missing, or neither a text nor a whole number.")
    if text == MASTER_ID:
        raise InvalidInput(f"{field} {MASTER_ID} means this server and cannot be a worker's.")
    return text


def clean_host(text: str) -> str:
    """A host as typed, without scheme and path; a port stays."""
    host = text.strip()
    for scheme in ("http://", "https://"):
        if host.lower().startswith(scheme):
            host = host[len(scheme) :]
    return host.partition("/")[0]


def without_login(host: str | None) -> str | None:
    """A host that an old file holds, or None where it holds a user name or a password, which is nobody's business."""
    return None if host is None or "@" in host else host


def read_port(value: object) -> int | None:
    """A port as older clients send it: a number, or that number as text. Raises InvalidInput."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value.strip()[: MAX_PORT_CHARS + 1])
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_PORT:
        return value
    raise InvalidInput(f"port must be a number from 1 to {MAX_PORT}.")


def read_text(value: object, field: str) -> str | None:
    """A text or null. Raises InvalidInput."""
    if value is None or isinstance(value, str):
        return value
    raise InvalidInput(f"{field} must be a text or null.")


def read_device(value: object) -> int | None:
    """The number of a CUDA device, or null. Raises InvalidInput."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise InvalidInput("cuda_device must be a whole number or null.")


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The older fields among ``fields``, of the right types. Raises InvalidInput."""
    read: dict[str, Any] = {}
    for field in ("name", "host", "extra_args"):
        if field in fields:
            read[field] = read_text(fields[field], field)
    if "port" in fields:
        read["port"] = read_port(fields["port"])
    if "cuda_device" in fields:
        read["cuda_device"] = read_device(fields["cuda_device"])
    if "enabled" in fields:
        if not isinstance(fields["enabled"], (bool, type(None))):
            raise InvalidInput("enabled must be a boolean.")
        read["enabled"] = bool(fields["enabled"])
    if "type" in fields:
        if fields["type"] not in (*KINDS, None):
            raise InvalidInput(f"type must be one of {', '.join(KINDS)}.")
        read["type"] = fields["type"]
    return read


def _own_form(older: Mapping[str, Any], position: int, before: WorkerEntry | None) -> dict[str, Any]:
    """Checked older fields as fields of an entry. What is absent or null falls back to what older clients assume."""
    host, port = older.get("host"), older.get("port")
    kind = older.get("type") or infer_kind(None, host)
    if before is not None and (host, port, kind) == (*_place(before), before.kind):
        address = before.address  # also where it is no longer what these three would give
    elif kind != "local" and not (host or "").strip():
        address = ""
    else:
        address = older_address(host, port, kind)
    return {
        "name": (older.get("name") or "").strip() or f"Worker {position}",
        "address": address,
        "enabled": older.get("enabled", False),
        "kind": kind,
        "host": host,
        "port": port,
        "cuda_device": older.get("cuda_device"),
        "extra_args": older.get("extra_args"),
    }


def _place(entry: WorkerEntry) -> tuple[str | None, int | None]:
    """Host and port: as they were given while they lead to the entry's address, else made from the address."""
    if not entry.address or _leads_to(entry.address, entry.host, entry.port, entry.kind):
        return without_login(entry.host), entry.port
    where = entry.where
    host = f"[{where.host}]" if ":" in where.host else where.host
    if _leads_to(entry.address, host, where.port, entry.kind):
        return host, where.port
    return entry.address, where.port


def _leads_to(address: str, host: str | None, port: int | None, kind: Kind) -> bool:
    try:
        return (host is not None or port is not None) and older_address(host, port, kind) == address
    except InvalidInput:
        return False
