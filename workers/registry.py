"""The list of workers and the settings, kept in one file.

Readers take a snapshot and never wait. A change is made on a copy, checked as a whole, written atomically and only then
becomes visible; changes follow one another under a lock. Listeners are called after the lock is free again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.errors import Conflict, FlotillaError, InvalidInput, NotFound
from ..utils.files import write_json_atomic
from ..utils.log import get_logger
from .entries import RegistryData, Settings, WorkerEntry, make_data, make_entry, make_settings
from .importer import import_gpu_config

log = get_logger("workers")

MAX_FILE_BYTES = 16 * 1024 * 1024
SECTIONS = ("master", "tunnel", "managed_processes")


class WorkerRegistry:
    """The registry in ``path`` (``workers.json``). Safe to use from several threads.

    At the first start (no such file) the older configuration ``import_from`` is taken over if it exists;
    ``import_remarks`` then tells what changed on the way. A damaged file is kept aside as ``workers.json.broken-<n>``.
    Raises OSError where the folder cannot be written.
    """

    def __init__(self, path: Path, import_from: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._unsafe_to_write = ""
        self.import_remarks: list[str] = []
        self._data = self._load(import_from)

    # Reading

    def data(self) -> RegistryData:
        """Everything, as one consistent snapshot."""
        return self._data

    def entries(self) -> list[WorkerEntry]:
        """All workers in their order, which decides their position in a job."""
        return list(self._data.workers)

    def get(self, worker_id: str) -> WorkerEntry:
        """Raises NotFound."""
        for entry in self._data.workers:
            if entry.id == worker_id:
                return entry
        raise NotFound("There is no worker with this id.", cure="List the workers to see the ids.")

    def settings(self) -> Settings:
        """The fleet's settings."""
        return self._data.settings

    # Changing: each raises InvalidInput, Conflict or NotFound before anything is stored

    def change(self, make: Callable[[RegistryData], Mapping[str, Any]]) -> RegistryData:
        """Replaces the top-level keys that ``make`` returns for the present data; all or nothing."""
        with self._lock:
            if self._unsafe_to_write:
                raise Conflict(self._unsafe_to_write, cure="Make the file readable, then restart this server.")
            old = self._data
            # Workers travel as plain data, so that all are checked again together.
            changed = make_data({**old.to_json(), **make(old)})
            if changed == old:
                return old
            write_json_atomic(self._path, changed.to_json())
            self._data = changed
        self._notify()
        return changed

    def add(self, entry: WorkerEntry) -> WorkerEntry:
        """Appends a worker."""
        self.change(lambda old: {"workers": [*_plain(old.workers), entry.to_json()]})
        return self.get(entry.id)

    def patch(self, worker_id: str, fields: Mapping[str, Any]) -> WorkerEntry:
        """Changes only the given fields; the id is not among those that can change."""
        if fields.get("id", worker_id) != worker_id:
            raise InvalidInput("A worker's id cannot be changed.", cure="Remove the worker and add it anew.")

        def patched(old: RegistryData) -> dict[str, Any]:
            entries = list(old.workers)
            at = _position(entries, worker_id)
            # Checked alone first: its errors then name the field and not the place in the list.
            entries[at] = make_entry({**entries[at].model_dump(), **fields})
            return {"workers": _plain(entries)}

        changed = self.change(patched)
        return changed.workers[_position(changed.workers, worker_id)]

    def remove(self, worker_id: str) -> WorkerEntry:
        """Returns the removed entry."""
        removed: list[WorkerEntry] = []

        def without(old: RegistryData) -> dict[str, Any]:
            entries = list(old.workers)
            removed.append(entries.pop(_position(entries, worker_id)))
            return {"workers": _plain(entries)}

        self.change(without)
        return removed[0]

    def replace_all(self, entries: Sequence[WorkerEntry]) -> None:
        """Puts these workers in the place of all."""
        self.change(lambda old: {"workers": _plain(entries)})

    def reorder(self, ids: Sequence[str]) -> None:
        """``ids`` must be all ids of the registry, each once."""

        def reordered(old: RegistryData) -> dict[str, Any]:
            by_id = {entry.id: entry for entry in old.workers}
            if len(ids) != len(by_id) or set(ids) != set(by_id):
                raise InvalidInput("The new order does not name every worker once.", cure="Send all ids, each once.")
            return {"workers": _plain([by_id[worker_id] for worker_id in ids])}

        self.change(reordered)

    def patch_settings(self, fields: Mapping[str, Any]) -> Settings:
        """Changes only the given settings."""
        return self.change(
            lambda old: {"settings": make_settings({**old.settings.model_dump(), **fields}).model_dump()}
        ).settings

    def replace_section(self, name: str, value: Mapping[str, Any]) -> None:
        """Replaces one of the sections of older tools (`SECTIONS`)."""
        if name not in SECTIONS:
            raise InvalidInput("There is no such section.", cure="Known ones: " + ", ".join(SECTIONS) + ".")
        self.change(lambda old: {name: dict(value)})

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls ``callback`` after each change, in the changing thread. Returns the way to end that."""
        self._listeners.append(callback)

        def unsubscribe() -> None:
            if callback in self._listeners:
                self._listeners.remove(callback)

        return unsubscribe

    def _notify(self) -> None:
        for callback in list(self._listeners):
            try:
                callback()
            except Exception:
                log.exception("a listener of the worker registry failed")

    # Loading

    def _load(self, import_from: Path | None) -> RegistryData:
        try:
            return make_data(_read_json(self._path))
        except FileNotFoundError:
            return self._first_start(import_from)
        except OSError as error:
            self._unsafe_to_write = "The worker registry exists but cannot be read, so it is not overwritten."
            log.error("worker registry cannot be read", path=self._path, error=error)
        except (ValueError, FlotillaError) as error:
            self._keep_aside(error)
        return RegistryData()

    def _keep_aside(self, error: Exception) -> None:
        number = 1
        while (aside := self._path.with_name(f"{self._path.name}.broken-{number}")).exists():
            number += 1
        try:
            self._path.replace(aside)
        except OSError as problem:
            self._unsafe_to_write = "The worker registry is damaged and could not be kept aside."
            log.error("damaged worker registry could not be moved", path=self._path, error=problem)
            return
        log.error("worker registry is damaged; starting with defaults", kept_as=aside, error=error)

    def _first_start(self, import_from: Path | None) -> RegistryData:
        if import_from is None or not import_from.exists():
            return RegistryData()
        try:
            data, self.import_remarks = import_gpu_config(_read_json(import_from))
        except (OSError, ValueError, FlotillaError) as error:
            log.error("older configuration could not be imported", path=import_from, error=error)
            self.import_remarks = [f"{import_from.name} could not be imported: it is damaged or unreadable."]
            return RegistryData()
        write_json_atomic(self._path, data.to_json())
        log.info("older configuration imported", path=import_from, workers=len(data.workers))
        return data


def _read_json(path: Path) -> dict[str, Any]:
    """Raises OSError, and ValueError for anything that is not a JSON object of reasonable size."""
    with path.open("rb") as file:
        raw = file.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError("the file is too large")
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("the file is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("the file holds no JSON object")
    workers = value.get("workers")
    if isinstance(workers, list):
        for entry in workers:
            if isinstance(entry, dict) and isinstance(entry.get("id"), int) and not isinstance(entry["id"], bool):
                entry["id"] = str(entry["id"])
    return value


def _plain(entries: Sequence[WorkerEntry]) -> list[dict[str, Any]]:
    return [entry.to_json() for entry in entries]


def _position(entries: Sequence[WorkerEntry], worker_id: str) -> int:
    for at, entry in enumerate(entries):
        if entry.id == worker_id:
            return at
    raise NotFound("There is no worker with this id.", cure="List the workers to see the ids.")
