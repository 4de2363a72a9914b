"""The version of this pack: read from pyproject.toml, its one source."""

from __future__ import annotations

import re
from pathlib import Path


def _read() -> str:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version\s*=\s*"([^"]+)"', text, re.MULTILINE)
    return found.group(1) if found else "0.0.0"


VERSION = _read()
