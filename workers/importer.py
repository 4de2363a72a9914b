"""Takes over ``gpu_config.json``, the configuration of an older tool.

What that file means was learned from its documentation and behaviour: a worker without a type is remote when its host
is not this machine; ids may be numbers; the order of the workers matters; an entry without a host is a placeholder.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ..utils.errors import FlotillaError, InvalidInput
from .address import COMFYUI_PORT, DEFAULT_PORTS, MAX_PORT, is_https_host, parse_address
from .entries import Kind, RegistryData, Settings, WorkerEntry, make_data, make_entry

THIS_MACHINE = "127.0.0.1"
_WILDCARDS = frozenset({"0.0.0.0", "[::]"})  # noqa: S104 (recognised, not bound to)
_LOCAL_HOSTS = frozenset({"", "localhost", "127.0.0.1", "::1", "[::1]", *_WILDCARDS})
_KINDS: tuple[Kind, ...] = ("local", "remote", "cloud")
_CLOUDFLARE = (".trycloudflare.com", ".cloudflare.dev")
_NOT_KEPT = frozenset({"type", "listen_port"})


def import_gpu_config(data: Mapping[str, Any]) -> tuple[RegistryData, list[str]]:
    """The registry made from an older configuration, and remarks for people about what could not be taken as it was.

    Processes and tunnels are not taken over: they belong to the other tool. Raises InvalidInput only if ``data`` is no
    object; single bad entries become remarks.
    """
    if not isinstance(data, Mapping):
        raise InvalidInput("The older configuration is not a JSON object.", cure="Check the file.")
    remarks: list[str] = []
    workers: list[WorkerEntry] = []
    raw_workers = data.get("workers")
    for number, raw in enumerate(raw_workers if isinstance(raw_workers, list) else [], start=1):
        if isinstance(raw, Mapping):
            workers.append(_import_worker(raw, number, workers, remarks))
        else:
            remarks.append(f"Worker number {number} was left out: it is not an object.")
    master = data.get("master")
    master = dict(master) if isinstance(master, Mapping) else {}
    settings = _import_settings(data.get("settings"), master, remarks)
    if _host_of(master.get("host")).endswith(_CLOUDFLARE):
        remarks.append("The master's host looks like the address of an old tunnel; it may no longer exist.")
    return make_data(
        {"workers": [entry.to_json() for entry in workers], "settings": settings, "master": master}
    ), remarks


def infer_kind(kind: object, host: object) -> Kind:
    """The kind of an older entry: the one it states, else remote unless its host is this machine."""
    for known in _KINDS:
        if kind == known:
            return known
    return "local" if _host_of(host) in _LOCAL_HOSTS else "remote"


def older_address(host: object, port: object, kind: Kind) -> str:
    """The address that ``host`` and ``port`` of an older entry stand for. Raises InvalidInput for an unusable host.

    A host may be a full URL (used as it is) or ``host:port`` (which wins over ``port``); an empty one is this machine;
    a bad port is 8188; https for cloud workers, providers known to serve it, and port 443.
    """
    text = host.strip() if isinstance(host, str) else ""
    if "://" in text:
        return str(parse_address(text))
    bare, _, tail = text.partition("/")
    if bare.count(":") > 1 and not bare.startswith("["):
        bare = f"[{bare}]"
    if not bare or bare in _WILDCARDS:
        bare = THIS_MACHINE
    has_port = ":" in bare.rpartition("]")[2]
    secure = kind == "cloud" or is_https_host(bare)
    if not has_port:
        number = DEFAULT_PORTS["https"] if secure and port in (None, "") else older_port(port)
        bare = f"{bare}:{number}"
    scheme = "https" if secure or bare.endswith(f":{DEFAULT_PORTS['https']}") else "http"
    return str(parse_address(f"{scheme}://{bare}/{tail}"))


def older_port(port: object) -> int:
    """A port as older files spell it; 8188 for a bad one."""
    if isinstance(port, str) and port.strip().isascii() and port.strip().isdigit():
        port = int(port.strip()[:6])
    if isinstance(port, int) and not isinstance(port, bool) and 0 < port <= MAX_PORT:
        return port
    return COMFYUI_PORT


def _host_of(host: object) -> str:
    """The bare lower-case host name in an older ``host`` field."""
    if not isinstance(host, str):
        return ""
    text = host.strip().lower().partition("://")[2] or host.strip().lower()
    text = text.partition("/")[0]
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text if text.count(":") > 1 else text.partition(":")[0]


def _import_worker(raw: Mapping[str, Any], number: int, earlier: list[WorkerEntry], remarks: list[str]) -> WorkerEntry:
    worker_id = _unique_id(raw.get("id"), number, {entry.id for entry in earlier}, remarks)
    name = raw.get("name")
    name = name.strip()[:200] if isinstance(name, str) and name.strip() else f"Worker {number}"
    kind = infer_kind(raw.get("type"), raw.get("host"))
    port = raw.get("port") if raw.get("port") is not None else raw.get("listen_port")
    enabled = raw.get("enabled") is True
    address = _address_or_none(raw.get("host"), port, kind, enabled, name, remarks)
    if address and parse_address(address).identity in {entry.where.identity for entry in earlier if entry.address}:
        remarks.append(f"{name}: disabled, because another worker has the same address {address}.")
        address = ""
    if not address and enabled:
        enabled = False
    older: dict[str, Any] = {}
    cuda_device, extra_args = raw.get("cuda_device"), raw.get("extra_args")
    if isinstance(cuda_device, int) and not isinstance(cuda_device, bool):
        older["cuda_device"] = cuda_device
    if isinstance(extra_args, str):
        older["extra_args"] = extra_args
    if isinstance(raw.get("host"), str) and "@" not in raw["host"]:  # else it may hold credentials
        older["host"] = raw["host"]
    if port is not None:
        older["port"] = older_port(port)
    known = {*WorkerEntry.model_fields, *_NOT_KEPT}
    unknown = {str(key): value for key, value in raw.items() if key not in known}
    own = {"id": worker_id, "name": name, "address": address, "enabled": enabled, "kind": kind}
    return make_entry({**unknown, **older, **own})


def _address_or_none(host: object, port: object, kind: Kind, enabled: bool, name: str, remarks: list[str]) -> str:
    """The address, or "" for a placeholder and for one that cannot be used."""
    if kind != "local" and not _host_of(host) and not enabled:
        remarks.append(f"{name}: kept as a disabled placeholder, because it has no host yet.")
        return ""
    try:
        return older_address(host, port, kind)
    except FlotillaError as error:
        remarks.append(f"{name}: disabled, because its host cannot be used. {error.message}")
        return ""


def _unique_id(raw_id: object, number: int, taken: set[str], remarks: list[str]) -> str:
    usable = isinstance(raw_id, (str, int, float)) and not isinstance(raw_id, bool)
    worker_id = str(raw_id).strip()[:100] if usable else ""
    if not worker_id or not worker_id.isprintable():
        remarks.append(f"Worker number {number} had no usable id and got a new one.")
        worker_id = str(uuid.uuid4())
    unique, copy = worker_id, 2
    while unique in taken:
        unique, copy = f"{worker_id}-{copy}", copy + 1
    if unique != worker_id:
        remarks.append(f"Worker number {number} shared the id {worker_id} and is now {unique}.")
    return unique


def _import_settings(raw: object, master: Mapping[str, Any], remarks: list[str]) -> dict[str, Any]:
    """Each setting on its own: a bad one falls back to its default and leaves a remark."""
    taken: dict[str, Any] = {}
    name = master.get("name")
    if isinstance(name, str) and name.strip():
        taken["master_name"] = name.strip()[:200]
    for key, value in raw.items() if isinstance(raw, Mapping) else ():
        if value is None and key in Settings.model_fields:
            continue
        try:
            Settings.model_validate({str(key): value})
        except ValidationError:
            remarks.append(f"The setting {key} had an unusable value and is back at its default.")
        else:
            taken[str(key)] = value
    return taken
