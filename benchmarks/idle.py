"""What the pack costs while nothing happens: processor time of an idle ComfyUI with it, linked, and without it.

    python benchmarks/idle.py [--seconds 60]

Processor time is the kernel's own account of each process, so other load on the machine hardly changes it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from devtools.fleet import Fleet  # noqa: E402

SETTLE_S = 15.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with Fleet(workers=2) as fleet:
        bare = fleet.add_instance("bare", pack=False)
        names = {"master": fleet.master.pid, "worker": fleet.workers[0].pid, "without the pack": bare.pid}
        time.sleep(SETTLE_S)
        before = {name: busy_s(pid) for name, pid in names.items()}
        time.sleep(options.seconds)
        shares = {name: (busy_s(pid) - before[name]) / options.seconds * 100 for name, pid in names.items()}
    for name, share in shares.items():
        added = "" if name == "without the pack" else f"   adds {share - shares['without the pack']:+.2f} %"
        print(f"{name:<20} {share:6.2f} % of a core{added}")
    return 0


def busy_s(pid: int) -> float:
    """Processor time that the process has used, in seconds."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    raise SystemExit(main())
