"""How late the master's event loop is while many workers report progress and a gigabyte of results arrives.

    python benchmarks/loop_lag.py [--workers 10] [--items 32] [--runs 3] [--same-host]

Prints, for each run, how late a task on the master's loop woke (50 %, 99 %, at most), and beside it the same of a
ComfyUI without the pack that does nothing meanwhile on the same machine: what that one shows is the machine, not us.
All instances run on this machine and are started one after the other.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.client import call, run_prompt  # noqa: E402
from devtools.fleet import Fleet  # noqa: E402

WIDTH, HEIGHT, FRAMES = 1280, 720, 3
ITEM_BYTES = WIDTH * HEIGHT * FRAMES * 3 * 4
ITEM_S = 1.0
STEPS = 50
GB = 1e9
ONLINE_WITHIN_S = 60.0
RUN_WITHIN_S = 600.0
BOUND_MS = 50.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--same-host", action="store_true", help="read the workers' spools instead of fetching by HTTP")
    options = parser.parse_args()
    print(f"{options.items * ITEM_BYTES / GB:.2f} GB in {options.items} results from {options.workers} workers")
    print(f"{'event loop is late by, in ms':<34} {'50 %':>9} {'99 %':>9} {'at most':>9}   run took")
    with tempfile.TemporaryDirectory() as folder:
        env = {"FLOTILLA_BENCH_DIR": folder}
        nodes = [ROOT / "benchmarks" / "bench_nodes"]
        master_env = {"FLOTILLA_SAME_HOST": "1" if options.same_host else "0"}
        with Fleet(workers=0, extra_nodes=nodes, env=env, master_env=master_env, threads=1) as fleet:
            bare = fleet.add_instance("bare", pack=False)
            add_workers(fleet, options.workers)
            worst_ms = max(one_run(fleet.master.url, bare.url, number, options.items) for number in range(options.runs))
    print(f"99 % of the master's are under {worst_ms:.1f} ms in every run; {BOUND_MS:.0f} ms are allowed")
    return 0 if worst_ms < BOUND_MS else 1


def add_workers(fleet: Fleet, count: int) -> None:
    """Starts so many workers, one after the other, and waits until the master has links to them all."""
    url = f"{fleet.master.url}/distributed/v2"
    call(f"{url}/settings", {"master_delegate_only": True}, method="PATCH")
    for number in range(1, count + 1):
        worker = fleet.add_instance(f"w{number}")
        call(f"{url}/workers", {"id": worker.id, "name": worker.id, "address": worker.url})
    give_up_s = time.monotonic() + ONLINE_WITHIN_S
    while any(entry["state"] != "online" for entry in call(f"{url}/workers")["workers"]):
        if time.monotonic() > give_up_s:
            raise RuntimeError("not all workers came online")
        time.sleep(0.1)


def one_run(master: str, bare: str, number: int, items: int) -> float:
    """Runs the job once, prints the lags, and returns in how many ms 99 % of the master's wakings were."""
    call(f"{master}/free", {"unload_models": False, "free_memory": True})
    for url in (master, bare):
        call(f"{url}/bench/lag/begin", {})
    began_s = time.monotonic()
    run_prompt(master, workflow(number, items), timeout_s=RUN_WITHIN_S)
    took_s = time.monotonic() - began_s
    lags = {
        name: sorted(call(f"{url}/bench/lag/end", {})["lags_ms"]) for name, url in (("master", master), ("bare", bare))
    }
    print(f"{f'run {number}: master':<34} {figures(lags['master'])}   {took_s:.1f} s", flush=True)
    print(f"{f'run {number}: without the pack':<34} {figures(lags['bare'])}", flush=True)
    return share(lags["master"], 0.99)


def share(ordered: list[float], part: float) -> float:
    """The value that ``part`` of the ordered ones do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def figures(ordered: list[float]) -> str:
    return f"{share(ordered, 0.5):>9.2f} {share(ordered, 0.99):>9.2f} {ordered[-1]:>9.2f}"


def workflow(number: int, items: int) -> dict[str, Any]:
    return {
        "1": {"class_type": "DistributedSeed", "inputs": {"seed": 1_000 * (number + 1)}},
        "2": {"class_type": "BenchFrames", "inputs": {"seed": 7, "frames": FRAMES, "width": WIDTH, "height": HEIGHT}},
        "3": {
            "class_type": "BenchSteps",
            "inputs": {"images": ["2", 0], "seed": ["1", 0], "delay_s": ITEM_S, "steps": STEPS},
        },
        "4": {"class_type": "DistributedCollector", "inputs": {"images": ["3", 0], "items": items}},
        "5": {"class_type": "BenchArrived", "inputs": {"images": ["4", 0], "run": f"lag{number}"}},
    }


if __name__ == "__main__":
    raise SystemExit(main())
