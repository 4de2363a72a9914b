"""A database of the journal that can be made to fail, or to hang, at will."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flotilla.storage.database import Database
from sqlalchemy import Connection

HANG_S = 30.0


class MoodyDatabase(Database):
    """A real one in memory, unless ``trouble`` is set; it hangs while ``free`` is not."""

    def __init__(self, url: str = "sqlite://") -> None:
        super().__init__(url)
        self.trouble: Exception | None = None
        self.free = threading.Event()
        self.free.set()
        self.reached = threading.Event()
        self.opened = 0

    def open(self) -> None:
        self._suffer()
        self.opened += 1
        super().open()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        self._suffer()
        with super().reading() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        self._suffer()
        with super().writing() as connection:
            yield connection

    def _suffer(self) -> None:
        self.reached.set()
        assert self.free.wait(HANG_S), "nobody let the database go on"
        if self.trouble is not None:
            raise self.trouble
