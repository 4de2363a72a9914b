"""A Python process in which ComfyUI's own modules are at hand, without a server: for what a node's code relies on.

`run` starts a script there. The script finds the checkout as package ``flotilla``, imports what it wants of ComfyUI, and
ends with ``report(...)``. ComfyUI's modules have names like ``nodes`` and ``utils``, which is why a test must not import
them itself.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
REPORT_VARIABLE = "FLOTILLA_TESTS_REPORT"
THREADS_VARIABLE = "OMP_NUM_THREADS"
"""One thread: on a busy machine several that wait for each other take many times as long."""
TIME_LIMIT_S = 600.0


def run(script: Path, folder: Path, *arguments: str, version: str | None = None) -> Any:
    """Runs ``script`` inside a ComfyUI of the matrix and returns what it reported.

    Args:
        script: the Python file.
        folder: an empty folder to work in.
        arguments: for the script's ``sys.argv``.
        version: of ComfyUI; the one that fleets use by default.

    Raises:
        AssertionError: the script failed; with all that it said.
    """
    from devtools.hosts import obtain
    from devtools.paths import DEFAULT_HOST

    host = obtain(version or DEFAULT_HOST)
    report_file = folder / "report.json"
    done = subprocess.run(
        [str(host.python), str(Path(__file__).resolve()), str(host.folder), str(script), *arguments],
        cwd=folder,
        env={**os.environ, REPORT_VARIABLE: str(report_file), THREADS_VARIABLE: "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return json.loads(report_file.read_text(encoding="utf-8"))


def report(data: Any) -> None:
    """For the script: what `run` shall return, as JSON."""
    Path(os.environ[REPORT_VARIABLE]).write_text(json.dumps(data), encoding="utf-8")


def _main() -> None:
    comfyui, script = Path(sys.argv[1]), Path(sys.argv[2])
    # ComfyUI first, as in its own process; then what tests share. The folder of this file holds nothing to import.
    sys.path[:] = [str(comfyui), *sys.path[1:], str(TESTS), str(TESTS.parent)]
    sys.argv = [str(script), *sys.argv[3:]]

    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    # Before `nodes`, which puts a folder with another ``utils`` in front of the path.
    importlib.import_module("utils.install_util")

    from loader import load_package

    load_package()
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    _main()
