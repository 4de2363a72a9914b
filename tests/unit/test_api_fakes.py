"""The fakes of ``fakes/api.py`` have the signatures of the real parts; those that import ComfyUI are read as text."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
from fakes import api as fakes

PARTS = [
    ("workers/pool.py", "WorkerPool", fakes.FakePool),
    ("host/queue.py", "ComfyQueue", fakes.FakeQueue),
    ("host/records.py", "HostQueue", fakes.FakeQueue),
    ("host/execution.py", "CachePromptWatch", fakes.FakeWatch),
]


@pytest.mark.parametrize(("file", "name", "fake"), PARTS, ids=[name for _, name, _ in PARTS])
def test_a_fake_has_the_signatures_of_the_real_part(repository: Path, file: str, name: str, fake: Any) -> None:
    tree = ast.parse((repository / file).read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    real = {
        node.name: [one.arg for one in (*node.args.args, *node.args.kwonlyargs)]
        for node in body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    public = {method: function for method, function in inspect.getmembers(fake, inspect.isfunction) if method[0] != "_"}
    assert public
    for method, function in public.items():
        assert list(inspect.signature(function).parameters) == real[method], method


@pytest.mark.parametrize("function", ["host_version", "device_name", "system_info", "network_info"])
def test_what_is_imported_late_exists(repository: Path, function: str) -> None:
    tree = ast.parse((repository / "host/facts.py").read_text(encoding="utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
