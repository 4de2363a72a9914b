"""Imports a checkout as one fixed package, whatever its folder is called.

The repository root *is* the package, and a clone may lie in ``ComfyUI-Flotilla (copy)``: no name that Python could
import. The host loads it by path; tests do the same under the name ``flotilla``, without running the root
``__init__.py``, which is for the host alone. Modules below it are imported in the usual way from there on.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

PACKAGE = "flotilla"
REPOSITORY = Path(__file__).resolve().parent.parent


def load_package(root: Path = REPOSITORY, name: str = PACKAGE) -> ModuleType:
    """Makes ``name`` importable with its modules under ``root`` and returns the (empty) package.

    Calling it again with the same folder returns the package that is there. Raises ImportError where ``name`` already
    means something else, and NotADirectoryError where ``root`` is no folder.
    """
    root = root.resolve()
    if not root.is_dir():
        raise NotADirectoryError(str(root))
    present = sys.modules.get(name)
    if present is not None:
        if list(getattr(present, "__path__", [])) == [str(root)]:
            return present
        raise ImportError(f"{name} is already imported from somewhere else", name=name)
    spec = ModuleSpec(name, loader=None, origin=str(root), is_package=True)
    spec.submodule_search_locations = [str(root)]
    package = ModuleType(name, "The checkout under test.")
    package.__spec__ = spec
    package.__package__ = name
    package.__path__ = [str(root)]
    sys.modules[name] = package
    return package


def unload_package(name: str) -> None:
    """Forgets ``name`` and every module below it, so that another folder can be loaded under that name."""
    for module in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
        del sys.modules[module]
