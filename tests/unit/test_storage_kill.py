"""A process that is killed in the middle of writing leaves a journal that can be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fakes.records import HOME
from flotilla.storage.database import sqlite_url
from flotilla.storage.journal import Journal

TESTS = Path(__file__).resolve().parents[1]
WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from loader import load_package
load_package()
import asyncio
from fakes.records import HOME, item, job
from pathlib import Path
from flotilla.storage.database import sqlite_url
from flotilla.storage.journal import Journal

async def main():
    journal = Journal(sqlite_url(Path(sys.argv[2])), HOME)
    journal.start()
    journal.put(job("safe", state="done"), *(item("safe", index, state="done") for index in range(1_000)))
    journal.put(job("open"))
    assert await journal.flush()
    print("go", flush=True)
    number = 0
    while True:
        number += 1
        journal.put(job(f"j{number}"), *(item(f"j{number}", index) for index in range(500)))
        await asyncio.sleep(0)
        if number % 20 == 0:
            await journal.flush()
            print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [1, 2, 4])
async def test_killed_while_it_writes(tmp_path: Path, lines: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(TESTS), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().strip() for _ in range(lines)]
        process.kill()
    assert told[0] == "go"
    flushed = int(told[-1]) if lines > 1 else 0
    journal = Journal(sqlite_url(tmp_path), HOME)
    journal.start()
    assert (await journal.items("safe")).total == 1_000
    safe, left_open = await journal.job("safe"), await journal.job("open")
    assert safe is not None
    assert safe.state == "done"
    assert left_open is not None
    assert left_open.state == "interrupted"
    for number in range(1, flushed + 1):
        assert (await journal.items(f"j{number}", limit=1)).total == 500
    assert journal.status().state == "ok"
    journal.close()
    assert not list(tmp_path.glob("*broken*"))
