"""Browser tests: ComfyUI's own front end in a headless Chromium, on the session's fleet of real servers.

A test is skipped, with the reason, only where no Chromium is installed or, for the two workflows saved with another
pack, where these files are not there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent / "integration"):
    if str(folder) not in sys.path:  # `from browserkit...`, `from fleetkit...`
        sys.path.insert(0, str(folder))

from browserkit import chromium  # noqa: E402
from browserkit.checkpoint import write_text_checkpoint  # noqa: E402
from browserkit.frontend import FrontEnd  # noqa: E402
from fleetkit.client import Client  # noqa: E402
from fleetkit.fixtures import fleet, master, settled, w1, w2  # noqa: E402
from loader import REPOSITORY  # noqa: E402

from devtools.fleet import Fleet, build_models  # noqa: E402

__all__ = ["fleet", "master", "settled", "w1", "w2"]

ARTEFACTS = REPOSITORY / ".dev" / "artefacts" / "browser"
PEER_WORKFLOWS = Path(
    os.environ.get("FLOTILLA_PEER_WORKFLOWS", REPOSITORY.parent / "shared" / "data" / "peer-workflows")
)
CHECKPOINTS = (
    "SDXL\\juggernautXL_ragnarokBy.safetensors",  # what the workflows of the other pack ask for
    "v1-5-pruned-emaonly-fp16.safetensors",  # what the examples ask for
)
VIEWPORT = {"width": 1600, "height": 1000}


def _ours(items: list[pytest.Item]) -> list[pytest.Item]:
    return [item for item in items if HERE in item.path.parents]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks this folder's tests, skips them where there is no Chromium, and gives each the check of `settled`."""
    for item in _ours(items):
        item.add_marker(pytest.mark.browser)
        item.add_marker(pytest.mark.usefixtures("settled"))
        if chromium.find() is None:
            item.add_marker(pytest.mark.skip(reason=chromium.ABSENT))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Puts the checkpoints into the fleet's models folder before any test can start the fleet."""
    if _ours(session.items) and chromium.find() is not None:
        models = build_models()
        for name in CHECKPOINTS:
            write_text_checkpoint(models, name)


@pytest.fixture(scope="module")
def front_end(fleet: Fleet) -> Iterator[FrontEnd]:
    """The master's front end in a tab that the tests of one module share.

    Not for the whole session: while the driver is open, this thread counts as running an event loop, and asynchronous
    tests of other folders could not start one.
    """
    executable = chromium.find()
    assert executable is not None
    Client(fleet.master.url).post("/api/settings", {"Comfy.TutorialCompleted": True})
    with chromium.launched(executable) as browser:
        yield FrontEnd(browser.new_context(viewport=VIEWPORT).new_page(), fleet.master.url)


@pytest.fixture
def tab(front_end: FrontEnd) -> Iterator[FrontEnd]:
    """The front end; the test fails if the browser's console got an error meanwhile."""
    front_end.errors.clear()
    yield front_end
    assert front_end.errors == []


@pytest.fixture(scope="session")
def peer_workflow() -> Any:
    """Reads one of the workflows saved with the other pack, by name."""
    if not PEER_WORKFLOWS.is_dir():
        pytest.skip(f"no folder {PEER_WORKFLOWS}; FLOTILLA_PEER_WORKFLOWS can name another")

    def read(name: str) -> dict[str, Any]:
        return dict(json.loads((PEER_WORKFLOWS / f"{name}.json").read_text(encoding="utf-8")))

    return read


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Where pictures of the front end go, for people to look at."""
    return ARTEFACTS
