"""The development environment: one virtual environment in `.venv`, made once and checked by a stamp.

Only the standard library is imported here: this code runs before the environment exists.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from .files import process_lock, write_text_atomic
from .paths import DEV, ROOT, VENV, venv_python

PYTHON_MINIMUM = (3, 10)
PYTHON_BEYOND = (3, 14)
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
NEEDED_DISK_BYTES = 9 * 1024**3
PIP_TRIES = 2
PIP_TAIL_LINES = 15
STAMP_NAME = "flotilla-stamp.json"


class SetupError(Exception):
    """Something the environment needs could not be had. The message names the cause and the cure."""


def say(text: str) -> None:
    """Tells the user what is going on. Goes to stderr: stdout belongs to the command's result."""
    print(text, file=sys.stderr, flush=True)


def check_python() -> None:
    """Makes sure that the running interpreter can carry the environment.

    Raises:
        SetupError: This Python is too old or too new.
    """
    if not PYTHON_MINIMUM <= sys.version_info[:2] < PYTHON_BEYOND:
        raise SetupError(
            f"Python {platform.python_version()} at {sys.executable} cannot be used: Flotilla is developed on Python "
            "3.10 to 3.13. Start dev.py with one of those, for example: python3.12 dev.py demo"
        )


def inside_venv() -> bool:
    """Whether this process runs on the interpreter of `.venv`."""
    return Path(sys.prefix).resolve() == VENV.resolve()


def fingerprint(requests: Sequence[str], files: Iterable[Path]) -> str:
    """A name for what was asked of pip: the Python version, the requests, and the text of requirement files."""
    digest = hashlib.sha256(f"{platform.python_version()} {sys.platform} {platform.machine()}".encode())
    for text in (*requests, *(path.read_text(encoding="utf-8") for path in files)):
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()


def stamp_matches(venv: Path, name: str) -> bool:
    """Whether `venv` was completed for exactly the request `name`, and its interpreter still runs from there."""
    try:
        stamp = json.loads((venv / STAMP_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    # A virtual environment that was moved or copied has scripts and links that point to its old place.
    return stamp == {"request": name, "folder": str(venv)} and venv_python(venv).exists()


def write_stamp(venv: Path, name: str) -> None:
    """Marks `venv` as complete for the request `name`."""
    write_text_atomic(venv / STAMP_NAME, json.dumps({"request": name, "folder": str(venv)}))


def make_venv(venv: Path, with_pip: bool = True) -> None:
    """Makes an empty virtual environment, replacing a broken one.

    Raises:
        SetupError: The module `venv` or `ensurepip` does not work here.
    """
    if venv.exists():
        shutil.rmtree(venv)
    command = [sys.executable, "-m", "venv", *([] if with_pip else ["--without-pip"]), str(venv)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(venv, ignore_errors=True)
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupError(
            f"No virtual environment could be made in {venv}: {(done.stdout + done.stderr).strip()[-600:]}\n"
            f"On Debian and Ubuntu the cure is: apt install python{version}-venv"
        )


def _explain(output: str) -> str:
    """The likely cause of a pip failure and what to do about it."""
    lowered = output.lower()
    if "no space left" in lowered or "errno 28" in lowered:
        return f"The disk is full. Free about {NEEDED_DISK_BYTES // 1024**3} GB on the disk of {ROOT} and start again."
    signs = (
        "newconnectionerror",
        "name resolution",
        "connection refused",
        "timed out",
        "proxyerror",
        "network is unreach",
    )
    if any(sign in lowered for sign in (*signs, "getaddrinfo failed", "max retries exceeded", "connection reset")):
        return (
            "The package index cannot be reached. Check the network connection or pip's proxy settings and start again."
        )
    if "certificate" in lowered or "ssl" in lowered:
        return "The package index's certificate is not trusted here. Tell pip which one to trust (PIP_CERT) and start again."
    if "permission denied" in lowered:
        return f"{ROOT} cannot be written to. Give yourself write permission or clone into a folder of your own."
    if "no matching distribution" in lowered or "could not find a version" in lowered:
        return (
            f"The index has no build for Python {platform.python_version()} on {sys.platform} {platform.machine()}. "
            "Start dev.py with another Python from 3.10 to 3.13."
        )
    return "pip's own words above name the cause; deleting .venv and starting again gives a fresh environment."


def run_pip(arguments: Sequence[str], cwd: Path | None = None) -> None:
    """Runs pip of `.venv`; a failure is tried once more, because networks hiccup.

    Raises:
        SetupError: pip failed; with the end of its output, the cause and the cure.
    """
    command = [str(venv_python()), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    output = ""
    for _ in range(PIP_TRIES):
        done = subprocess.run(
            command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
        )
        if done.returncode == 0:
            return
        output = done.stdout
    tail = "\n".join(f"  {line}" for line in output.strip().splitlines()[-PIP_TAIL_LINES:])
    raise SetupError(f"pip {' '.join(arguments[:2])} failed:\n{tail}\n{_explain(output)}")


def _check_disk() -> None:
    free_bytes = shutil.disk_usage(ROOT).free
    if free_bytes < NEEDED_DISK_BYTES:
        raise SetupError(
            f"Only {free_bytes / 1024**3:.1f} GB are free on the disk of {ROOT}; the environment needs about "
            f"{NEEDED_DISK_BYTES // 1024**3} GB. Free some space and start again."
        )


def bootstrap() -> None:
    """Makes `.venv` with a working pip if it is missing or was made by another Python or in another place."""
    check_python()
    name = fingerprint(["bootstrap"], [])
    marker = VENV / "flotilla-made.json"
    wanted = json.dumps({"request": name, "folder": str(VENV)})
    with process_lock(DEV / "environment.lock"):
        try:
            if marker.read_text(encoding="utf-8") == wanted and venv_python().exists():
                return
        except OSError:
            pass
        _check_disk()
        say(f"Making a virtual environment in {VENV} ...")
        make_venv(VENV)
        write_text_atomic(marker, wanted)


def install(host_requirements: Path) -> None:
    """Installs torch, the host's, the pack's and the developer's requirements into `.venv`, if not yet done.

    Without a change of what is asked, this reads a few files and needs no network.

    Args:
        host_requirements: requirements.txt of the ComfyUI that fleets run by default.

    Raises:
        SetupError: pip failed.
    """
    files = [host_requirements, ROOT / "requirements.txt", ROOT / "requirements-dev.txt"]
    name = fingerprint(TORCH, files)
    if stamp_matches(VENV, name):
        return
    with process_lock(DEV / "environment.lock"):
        if stamp_matches(VENV, name):
            return
        say("Installing torch, ComfyUI's and Flotilla's requirements (some gigabytes, minutes at first) ...")
        started_s = time.monotonic()
        # One call, so that pip finds one set of versions that suits everything.
        run_pip(["install", *TORCH, *(part for path in files for part in ("-r", str(path)))])
        write_stamp(VENV, name)
        say(f"Environment ready after {time.monotonic() - started_s:.0f} s.")


def reexecute(arguments: Sequence[str]) -> int:
    """Runs dev.py again on the interpreter of `.venv`; returns its exit status where the system cannot replace us."""
    command = [str(venv_python()), str(ROOT / "dev.py"), *arguments]
    if os.name != "nt":
        os.execv(command[0], command)
    return wait_for(subprocess.Popen(command))


def wait_for(process: subprocess.Popen[bytes]) -> int:
    """Waits for a child to end, through Ctrl+C too: the child gets the same one and tidies up. Returns its status."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue
