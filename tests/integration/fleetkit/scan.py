"""Everything that a fleet's instances show or leave behind, as bytes to search in."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from devtools.instances import Instance

from .client import Client

SHOWN = (
    "/history",
    "/queue",
    "/prompt",
    "/system_stats",
    "/api/jobs",
    "/internal/logs/raw",
    "/distributed/v2/workers",
    "/distributed/v2/settings",
    "/distributed/v2/system",
    "/distributed/v2/jobs?limit=200",
    "/distributed/v2/openapi.json",
    "/distributed/v2/no-such-route",
    "/distributed/config",
    "/distributed/system_info",
    "/distributed/network_info",
    "/distributed/queue_status/x",
)
"""GET routes of the host and of the pack; a server without the pack answers 404 to some."""

TOKEN = re.compile(rb"Flotilla [0-9a-f]{32}\.[0-9]{1,12}\.[0-9a-f]{64}")
"""What stands in an Authorization header."""

MAX_FILE_BYTES = 64 * 1024 * 1024


def forms(secret: bytes) -> set[bytes]:
    """How a secret might be written: as it is, and in hex and base64 as people and libraries write them."""
    encoded = {base64.b64encode(secret), base64.urlsafe_b64encode(secret)}
    return {
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        *encoded,
        *(one.rstrip(b"=") for one in encoded),
    }


def shown(client: Client) -> Iterator[tuple[str, bytes]]:
    """``(where, bytes)`` of every answer, with its headers, and of every job and its items."""
    paths = list(SHOWN)
    jobs = client.request("GET", "/distributed/v2/jobs?limit=200")
    if jobs.status == 200:
        for job in jobs.json()["jobs"]:
            paths += [f"/distributed/v2/jobs/{job['id']}", f"/distributed/v2/jobs/{job['id']}/items"]
    for path in paths:
        answer = client.request("GET", path)
        yield f"{client.url}{path}", answer.headers.as_bytes() + answer.body


def left(instance: Instance) -> Iterator[tuple[str, bytes]]:
    """``(where, bytes)`` of every file of an instance: logs, pictures, settings, databases; and its command line."""
    for path in sorted(instance.folder.rglob("*")):
        if path.is_file() and not _is_source(path, instance) and path.stat().st_size <= MAX_FILE_BYTES:
            yield str(path), path.read_bytes()
            if path.suffix == ".png":
                with Image.open(path) as picture:
                    yield f"metadata of {path}", repr(picture.info).encode()
    command_line = Path(f"/proc/{instance.pid}/cmdline")
    if instance.alive() and command_line.exists():
        yield str(command_line), command_line.read_bytes()


def _is_source(path: Path, instance: Instance) -> bool:
    return instance.folder / "custom_nodes" in path.parents


def found(needles: Iterable[bytes], places: Iterable[tuple[str, bytes]]) -> list[str]:
    """Where any of the needles is. The list names places only: a failing test must not print a secret."""
    wanted = list(needles)
    return [where for where, data in places if any(needle in data for needle in wanted)]
