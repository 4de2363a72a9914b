"""Writes docs/state-machine.md: the tables of the state machine as the code has them.

python -m devtools.state_tables
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "state-machine.md"

INTRODUCTION = """\
# The state machine of jobs

This page is made from the code (`python -m devtools.state_tables`); a test compares the two.

Events go in, instructions come out, time is passed in: `Machine.handle(event, now_s) -> list[Instruction]`. The machine
makes no change of a state that these tables lack. `jobs/invariants.py` holds what must be true between any two events.

An item may have several attempts, and at most two participants at work on it at a time (those that are stuck do not
count); its state is that of the attempt that is furthest. The first result that has arrived wins.
"""

TITLES = {
    "JOB_TRANSITIONS": ("Jobs", "planned"),
    "ITEM_TRANSITIONS": ("Items", "waiting; one that cannot begin yet: held"),
    "ATTEMPT_TRANSITIONS": ("Attempts", "leased; one of an earlier life of the job: spare"),
    "PARTICIPANT_TRANSITIONS": ("Participants", "offline"),
}


def page(transitions: ModuleType) -> str:
    """The whole page, from the module `jobs.transitions`."""
    parts = [INTRODUCTION]
    for name, (title, first) in TITLES.items():
        table: Mapping[tuple[Enum, Enum], str] = getattr(transitions, name)
        parts.append(f"## {title}\n\nThe first state: {first}.\n\n{_rows(table)}")
    return "\n".join(parts)


def _rows(table: Mapping[tuple[Enum, Enum], str]) -> str:
    lines = ["| from | to | when |", "| --- | --- | --- |"]
    lines += [f"| {was.value} | {to.value} | {when} |" for (was, to), when in table.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the page."""
    sys.path.insert(0, str(ROOT / "tests"))
    importlib.import_module("loader").load_package()
    PAGE.write_text(page(importlib.import_module("flotilla.jobs.transitions")), encoding="utf-8")


if __name__ == "__main__":
    main()
