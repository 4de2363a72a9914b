"""Where the development tools keep things. Everything they make lies in `.venv/` and `.dev/` of the checkout."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
DEV = ROOT / ".dev"
HOSTS = DEV / "hosts"
MODELS = DEV / "models"

DEFAULT_HOST = "0.30.0"
"""The ComfyUI version that the environment is made for and that fleets use unless asked otherwise."""


def venv_python(venv: Path = VENV) -> Path:
    """The interpreter of a virtual environment, whether it exists yet or not."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def site_packages(venv: Path = VENV) -> Path:
    """The package folder of a virtual environment made by the running Python version."""
    if os.name == "nt":
        return venv / "Lib" / "site-packages"
    return venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
