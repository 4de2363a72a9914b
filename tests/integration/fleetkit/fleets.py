"""The session's fleet, and what its instances wrote."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from kit_nodes.records import Record, read_record
from loader import REPOSITORY

from devtools.fleet import Fleet
from devtools.instances import Instance

from .client import Client
from .graphs import SEED, images_alone
from .waiting import eventually

KIT_NODES = REPOSITORY / "tests" / "kit_nodes"
BARE = "bare"
"""The session fleet's plain ComfyUI: no pack, same models, same kit."""

ONLY_W1 = "only-w1.safetensors"
"""A name in KitCombo's list that only w1 has."""

DEFAULT_SETTINGS = {
    "master_delegate_only": False,
    "max_attempts": 3,
    "queue_ahead": 2,
    "stall_factor": 3.0,
    "worker_slots": 2,
}

UNFINISHED = ("failed", "partial", "interrupted")
"""How jobs end whose results are kept, to be used again, until they are forgotten."""

_RARE = {"FLOTILLA_KIT_RARE": "1"}
_shared: Fleet | None = None


def shared_fleet(config: pytest.Config) -> Fleet:
    """The one fleet of this test run, started at the first call and stopped when pytest ends.

    A master, the workers w1 and w2, and `BARE`. The node KitRare is on the master and on w1; `ONLY_W1` on w1.
    """
    global _shared
    if _shared is None:
        fleet = Fleet(
            workers=2,
            extra_nodes=[KIT_NODES],
            master_env=_RARE,
            worker_env={"w1": {**_RARE, "FLOTILLA_KIT_CHOICES": f"a,b,{ONLY_W1}"}},
            plain=[BARE],
        )
        fleet.start()
        config.add_cleanup(fleet.stop)
        _shared = fleet
    return _shared


def odd_copy(folder: Path) -> Path:
    """A copy of the pack in a folder whose name no Python module could have."""
    copy = folder / "my flotilla-pack (v 1)"
    shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns(".*", "tests", "devtools", "__pycache__"))
    return copy


def entry_for(instance: Instance, worker_id: str | None = None, **fields: Any) -> dict[str, Any]:
    """A worker registry's entry for an instance."""
    return {
        "id": worker_id or instance.id,
        "name": f"Worker {instance.id}",
        "address": instance.url,
        "enabled": True,
        "kind": "local",
        "tags": [],
        **fields,
    }


def add_worker(master: Client, instance: Instance) -> None:
    """Enters an instance in the master's registry and waits until it is linked."""
    entry = entry_for(instance)
    master.post("/distributed/v2/workers", entry)
    master.change_worker(instance.id, enabled=True)


def restore(master: Client, fleet: Fleet) -> None:
    """Puts the master's settings and workers back to how the session's fleet began."""
    master.change_settings(**DEFAULT_SETTINGS)
    ours = {worker.id: worker for worker in fleet.workers}
    for entry in master.get("/distributed/v2/workers")["workers"]:
        if entry["id"] not in ours:
            master.delete(f"/distributed/v2/workers/{entry['id']}")
        elif not entry["enabled"] or entry["precision"] != "exact":
            master.change_worker(entry["id"], enabled=True, precision="exact")
    for worker_id in ours.keys() - master.states().keys():  # a test took it out
        add_worker(master, ours[worker_id])
    eventually(lambda: all(master.states()[worker] == "online" for worker in ours), "the fleet's workers are online")


def record(instance: Instance, prefix: str) -> dict[str, Any]:
    """What KitHash wrote on an instance: ``{"tensors": {name: {blake3, rows, shape, dtype}}, "values": …}``."""
    path = instance.folder / "output" / f"kit_hash_{prefix}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def tensor(instance: Instance, prefix: str, name: str = "value") -> dict[str, Any]:
    """One tensor of `record`."""
    return dict(record(instance, prefix)["tensors"][name])


def saved(instance: Instance, prefix: str) -> Path:
    """The file that KitSave wrote on an instance."""
    return instance.folder / "output" / f"kit_save_{prefix}.safetensors"


def count_of(instance: Instance, name: str) -> int:
    """How many times KitCount ran on an instance under this name."""
    path = instance.folder / "output" / f"kit_count_{name}.txt"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def executions(instances: Iterable[Instance], name: str) -> Counter[int]:
    """How many times each item was computed on all these instances together: KitCount's lines under this name."""
    lines = [
        line
        for instance in instances
        for path in instance.folder.glob(f"output/kit_count_{name}.txt")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return Counter(int(line.split()[1]) for line in lines)


def rows_alone(bare: Client, instance: Instance, count: int, *, seed: int = SEED, size_px: int = 32) -> list[str]:
    """The hashes of the images that the single server ``bare``, which is ``instance``, makes of ``count`` seeds."""
    seeds = [seed + k for k in range(count)]
    bare.run(images_alone(seeds, size_px=size_px))
    return [row for one in seeds for row in tensor(instance, f"alone-{one}")["rows"]]


def forget_unfinished(master: Client) -> None:
    """Forgets the jobs that failed or were left half done, and with them the results that are kept for them."""
    for state in UNFINISHED:
        for job in master.get(f"/distributed/v2/jobs?state={state}&limit=200")["jobs"]:
            master.request("DELETE", f"/distributed/v2/jobs/{job['id']}", {})


def spool_is_empty(client: Client) -> bool:
    """Whether nothing waits in an instance's spool to be fetched."""
    return bool(client.spool()["blobs"] == 0)


def load_saved(instance: Instance, prefix: str) -> Record:
    """What KitSave kept on an instance, with all its bits."""
    return read_record(saved(instance, prefix))
