"""The fakes of ``fakes/api.py`` take what the real parts take; those import ComfyUI, so their source is read."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
from fakes import api as fakes

PARTS = [
    ("runtime/coordinator.py", "Coordinator", fakes.FakeCoordinator),
    ("runtime/coordinator.py", "Wishes", fakes.Wishes),
    ("runtime/results.py", "ResultFetcher", fakes.FakeFetcher),
    ("workers/pool.py", "WorkerPool", fakes.FakePool),
    ("host/queue.py", "HostQueue", fakes.FakeQueue),
    ("host/queue.py", "Queued", fakes.Queued),
    ("host/queue.py", "Refused", fakes.Refused),
    ("api/intercept.py", "Interceptor", fakes.FakeInterceptor),
    ("api/intercept.py", "Submission", fakes.Submission),
]
ONLY_IN_FAKES = {"feed"}


def class_body(file: Path, name: str) -> list[ast.stmt]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


@pytest.mark.parametrize(("file", "name", "fake"), PARTS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_fake_has_the_signatures_of_the_real_part(repository: Path, file: str, name: str, fake: Any) -> None:
    body = class_body(repository / file, name)
    real = {
        node.name: [one.arg for one in (*node.args.args, *node.args.kwonlyargs)]
        for node in body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    for method, function in inspect.getmembers(fake, inspect.isfunction):
        if not method.startswith("_") and method not in ONLY_IN_FAKES:
            assert list(inspect.signature(function).parameters) == real[method], method
    fields = [node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    assert list(getattr(fake, "__dataclass_fields__", {})) == fields


def test_what_is_imported_late_exists(repository: Path) -> None:
    tree = ast.parse((repository / "host/facts.py").read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"host_version", "device_name", "system_info", "network_info"} <= functions
