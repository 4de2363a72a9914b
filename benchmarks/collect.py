"""How fast the master gathers large results: 64 frames of 1280x720 float32 from each of two workers.

    python benchmarks/collect.py [--runs 5] [--frames 64]

From the moment that both workers enter their delivering node to the moment that the master's collector has returned.
Once with the workers' spools read directly (same host), once over loopback HTTP. Beside it the machine's raw limits,
taken in the same run: a copy of the same bytes in memory, and a plain socket between two processes.
"""

from __future__ import annotations

import argparse
import http.client
import multiprocessing
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.client import HEADER, call, row, run_prompt, stamps  # noqa: E402
from devtools.fleet import Fleet  # noqa: E402

WIDTH, HEIGHT = 1280, 720
WORKERS = 2
GB = 1e9
SOCKET_CHUNK_BYTES = 1 << 20
PROBE_EVERY_S = 0.005


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--frames", type=int, default=64)
    options = parser.parse_args()
    size_bytes = WORKERS * options.frames * WIDTH * HEIGHT * 3 * 4
    print(f"{size_bytes / GB:.3f} GB from {WORKERS} workers, {options.runs} runs after a warm-up")
    print(HEADER)
    print(row("raw: copy in memory (torch, 1 thread)", copy_speeds(size_bytes, options.runs), "GB/s"))
    print(row("raw: loopback socket, one connection", socket_speeds(size_bytes, options.runs), "GB/s"))
    for title, env in (("same host", {}), ("loopback HTTP", {"FLOTILLA_SAME_HOST": "0"})):
        first_s, seconds, peaks, answers = collect(options.runs, options.frames, env)
        print(row(f"collect, {title}: very first run", [size_bytes / GB / first_s], "GB/s"))
        print(row(f"collect, {title}: time", seconds, "s"))
        print(row(f"collect, {title}: speed", [size_bytes / GB / one for one in seconds], "GB/s"))
        print(row(f"collect, {title}: master's extra peak", [peak / size_bytes for peak in peaks], "x output"))
        print(row(f"GET /prompt meanwhile, {title}: 99 %", answers, "ms"))
    return 0


def collect(runs: int, frames: int, env: dict[str, str]) -> tuple[float, list[float], list[float], list[float]]:
    """Seconds of the very first run, which fills fresh memory everywhere; then of each further run: seconds, the master's peak memory above that before the first run in bytes, and in how many
    milliseconds 99 % of the requests were answered that the master got meanwhile."""
    first_s, seconds, peaks, answers = 0.0, [], [], []
    with tempfile.TemporaryDirectory() as folder:
        env = {**env, "FLOTILLA_BENCH_DIR": folder}
        with Fleet(workers=WORKERS, extra_nodes=[ROOT / "benchmarks" / "bench_nodes"], env=env) as fleet:
            call(f"{fleet.master.url}/distributed/v2/settings", {"master_delegate_only": True}, method="PATCH")
            before = memory_kib(fleet.master.pid, "VmRSS")  # before anything is kept for a next run
            for number in range(runs + 1):
                run = f"run{number}"
                call(f"{fleet.master.url}/free", {"unload_models": False, "free_memory": True})
                time.sleep(1.0)
                reset_peak(fleet.master.pid)
                with Prober(fleet.master.url) as prober:
                    run_prompt(fleet.master.url, workflow(run, frames))
                peak = memory_kib(fleet.master.pid, "VmHWM") - before
                entered = stamps(Path(folder), f"{run}.entered.*.json")
                arrived = stamps(Path(folder), f"{run}.arrived.*.json")
                if not number:
                    first_s = max(arrived) - min(entered)
                else:
                    during = [ms for at_s, ms in prober.answers if min(entered) <= at_s <= max(arrived)]
                    answers.append(sorted(during)[int(len(during) * 0.99)])
                    seconds.append(max(arrived) - min(entered))
                    peaks.append(peak * 1024.0)
    return first_s, seconds, peaks, answers


class Prober:
    """Asks a server for something small again and again, and notes when and in how many milliseconds it answered."""

    def __init__(self, url: str) -> None:
        self.answers: list[tuple[float, float]] = []
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self._url.removeprefix("http://"), timeout=60)
        while not self._stop.wait(PROBE_EVERY_S):
            began_s = time.monotonic()
            connection.request("GET", "/prompt")
            connection.getresponse().read()
            ended_s = time.monotonic()
            self.answers.append((ended_s, (ended_s - began_s) * 1000.0))
        connection.close()


def workflow(run: str, frames: int) -> dict[str, Any]:
    return {
        "1": {"class_type": "DistributedSeed", "inputs": {"seed": 7}},
        "2": {
            "class_type": "BenchFrames",
            "inputs": {"seed": ["1", 0], "frames": frames, "width": WIDTH, "height": HEIGHT},
        },
        "3": {"class_type": "BenchBarrier", "inputs": {"images": ["2", 0], "run": run, "parties": WORKERS}},
        "4": {"class_type": "DistributedCollector", "inputs": {"images": ["3", 0]}},
        "5": {"class_type": "BenchArrived", "inputs": {"images": ["4", 0], "run": run}},
    }


def memory_kib(pid: int, field: str) -> int:
    """A field of the process's memory, in KiB (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise RuntimeError(f"this system does not tell {field}")


def reset_peak(pid: int) -> None:
    """Forgets the process's peak so far."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def copy_speeds(size_bytes: int, runs: int) -> list[float]:
    import torch

    torch.set_num_threads(1)
    source = torch.ones(size_bytes // 4)
    target = torch.empty_like(source)
    target.copy_(source)
    speeds = []
    for _ in range(runs):
        began_s = time.perf_counter()
        target.copy_(source)
        speeds.append(size_bytes / GB / (time.perf_counter() - began_s))
    return speeds


def socket_speeds(size_bytes: int, runs: int) -> list[float]:
    speeds = []
    for _ in range(runs):
        with socket.create_server(("127.0.0.1", 0)) as server:
            sender = multiprocessing.get_context("spawn").Process(
                target=send_all, args=(server.getsockname()[1], size_bytes)
            )
            sender.start()
            connection, _ = server.accept()
            buffer = memoryview(bytearray(SOCKET_CHUNK_BYTES))
            received, began_s = 0, time.perf_counter()
            with connection:
                while count := connection.recv_into(buffer):
                    received += count
            speeds.append(received / GB / (time.perf_counter() - began_s))
            sender.join()
    return speeds


def send_all(port: int, size_bytes: int) -> None:
    chunk = bytes(SOCKET_CHUNK_BYTES)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(size_bytes // SOCKET_CHUNK_BYTES):
            connection.sendall(chunk)


if __name__ == "__main__":
    raise SystemExit(main())
