"""How long a prompt takes from ``POST /prompt`` until a worker begins to execute it: by way of the master, and direct.

    python benchmarks/dispatch.py [--runs 30]

Both ways alternate in one run. Direct means that the client posts the same graph to the worker itself.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.client import HEADER, call, row, run_prompt, stamps  # noqa: E402
from devtools.fleet import Fleet  # noqa: E402

WARM_UP_RUNS = 3
MS = 1000.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    times: dict[str, list[float]] = {"direct": [], "master": []}
    with tempfile.TemporaryDirectory() as folder:
        env = {"FLOTILLA_BENCH_DIR": folder}
        with Fleet(workers=1, extra_nodes=[ROOT / "benchmarks" / "bench_nodes"], env=env) as fleet:
            call(f"{fleet.master.url}/distributed/v2/settings", {"master_delegate_only": True}, method="PATCH")
            urls = {"direct": fleet.workers[0].url, "master": fleet.master.url}
            for number in range(WARM_UP_RUNS + options.runs):
                for way, url in urls.items():
                    run = f"{way}{number}"
                    began_s = time.monotonic()
                    run_prompt(url, workflow(run, collected=way == "master"))
                    if number >= WARM_UP_RUNS:
                        times[way].append((min(stamps(Path(folder), f"{run}.entered.*.json")) - began_s) * MS)
    print(HEADER)
    print(row("POST to the worker itself", times["direct"], "ms"))
    print(row("POST to the master", times["master"], "ms"))
    added = statistics.median(times["master"]) - statistics.median(times["direct"])
    print(f"the master adds {added:.1f} ms (difference of medians, {options.runs} runs each, alternating)")
    return 0


def workflow(run: str, *, collected: bool) -> dict[str, Any]:
    graph: dict[str, Any] = {
        "1": {"class_type": "BenchFrames", "inputs": {"seed": 7, "frames": 1, "width": 64, "height": 64}},
        "2": {"class_type": "BenchBarrier", "inputs": {"images": ["1", 0], "run": run, "parties": 1}},
        "4": {"class_type": "BenchArrived", "inputs": {"images": ["2", 0], "run": run}},
    }
    if collected:
        graph["3"] = {"class_type": "DistributedCollector", "inputs": {"images": ["2", 0]}}
        graph["4"]["inputs"]["images"] = ["3", 0]
    return graph


if __name__ == "__main__":
    raise SystemExit(main())
