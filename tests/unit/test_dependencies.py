"""What the pack imports is declared, and only the room `host` knows ComfyUI's own modules."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("api", "graph", "host", "jobs", "nodes", "relay", "runtime", "storage", "transport", "utils", "workers")
PROVIDED_BY_HOST = {"torch"}
"""Never among the requirements: every ComfyUI has its own build of it."""

IMPORTED_AS = {"pillow": "PIL"}

COMFYUI = {
    "comfy", "comfy_api", "comfy_execution", "comfyui_version", "execution", "folder_paths", "latent_preview", "nodes",
    "server",
}  # fmt: skip


def sources() -> Iterator[Path]:
    yield from (ROOT / name for name in ("__init__.py", "plugin.py"))
    for room in ROOMS:
        yield from sorted((ROOT / room).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The top-level names of the absolute imports of a file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).partition(".")[0])
    return names


def declared() -> set[str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = {match.group() for line in lines if (match := re.match(r"\w[\w.-]*", line))}
    return {IMPORTED_AS.get(name, name) for name in names}


@pytest.mark.parametrize("path", list(sources()), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_import_is_declared_and_comfyui_stays_in_its_room(path: Path) -> None:
    others = imported(path) - set(sys.stdlib_module_names) - declared() - PROVIDED_BY_HOST
    assert others <= (COMFYUI if path.parent.name == "host" else set())


def test_every_requirement_is_used() -> None:
    used = set().union(*(imported(path) for path in sources()))
    assert declared() <= used


def test_torch_is_never_required() -> None:
    assert not declared() & {"torch", "torchvision", "torchaudio"}
