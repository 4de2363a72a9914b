"""The checkout loads as a package from any folder, and never through its root ``__init__.py``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loader import PACKAGE, REPOSITORY, load_package, unload_package

NAME = "flotilla_copy_under_test"


@pytest.fixture(autouse=True)
def forget_the_copy() -> Iterator[None]:
    yield
    unload_package(NAME)


def make_pack(root: Path, answer: int = 42) -> Path:
    """A pack of two rooms that use each other by relative imports, with a root module that must not run."""
    (root / "lower").mkdir(parents=True)
    (root / "upper").mkdir()
    (root / "__init__.py").write_text("raise AssertionError('the root module ran')\n", encoding="utf-8")
    (root / "lower" / "__init__.py").write_text("", encoding="utf-8")
    (root / "lower" / "facts.py").write_text(f"ANSWER = {answer}\n", encoding="utf-8")
    (root / "upper" / "__init__.py").write_text("", encoding="utf-8")
    (root / "upper" / "asker.py").write_text("from ..lower.facts import ANSWER as FOUND\n", encoding="utf-8")
    return root


@pytest.mark.parametrize("folder", ["plain", "with-dashes", "with some spaces", "v1.2 (copy) - ü"])
def test_relative_imports_work_from_any_folder(tmp_path: Path, folder: str) -> None:
    root = make_pack(tmp_path / folder)
    package = load_package(root, NAME)
    asker = importlib.import_module(f"{NAME}.upper.asker")
    assert asker.FOUND == 42
    assert Path(asker.__file__ or "").is_relative_to(root)
    assert package.__name__ == NAME


def test_loading_twice_returns_the_same_package(tmp_path: Path) -> None:
    root = make_pack(tmp_path / "a-pack")
    assert load_package(root, NAME) is load_package(root, NAME)


def test_another_folder_under_a_taken_name_is_refused(tmp_path: Path) -> None:
    load_package(make_pack(tmp_path / "one"), NAME)
    with pytest.raises(ImportError, match="already imported"):
        load_package(make_pack(tmp_path / "two"), NAME)


def test_unloading_lets_another_copy_take_the_name(tmp_path: Path) -> None:
    load_package(make_pack(tmp_path / "one", answer=1), NAME)
    assert importlib.import_module(f"{NAME}.upper.asker").FOUND == 1
    unload_package(NAME)
    load_package(make_pack(tmp_path / "two", answer=2), NAME)
    assert importlib.import_module(f"{NAME}.upper.asker").FOUND == 2


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="nowhere"):
        load_package(tmp_path / "nowhere", NAME)
    assert NAME not in sys.modules


def test_the_checkout_is_loaded_for_every_test() -> None:
    package = sys.modules[PACKAGE]
    assert list(package.__path__) == [str(REPOSITORY)]
    assert package.__spec__ is not None
    assert package.__spec__.loader is None  # its __init__.py did not run
    assert Path(importlib.import_module(f"{PACKAGE}.utils.errors").__file__ or "").parent == REPOSITORY / "utils"
