"""One picture on its way through its tiles, with the thread that cuts and blends.

The prompt thread may be busy with a tile of its own for a long time, and the server's loop must never be: so the picture
has a thread to itself, and everything that touches it happens there, in the order in which it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from PIL import Image

from ..upscale.work import TileWork, Values
from ..utils.clock import Clock
from ..utils.errors import FlotillaError, JobCancelled, JobFailed
from ..utils.log import get_logger

log = get_logger("tiles")

PICTURE_EVERY_S = 0.5
PICTURE_EDGE_PX = 512

T = TypeVar("T")


class TileRun:
    """Any thread may call; nothing here waits, but for what its futures are asked for."""

    def __init__(
        self,
        work: TileWork,
        first: int,
        *,
        clock: Clock,
        ready: Callable[[list[int]], None],
        changed: Callable[[], None],
        show: Callable[[Image.Image], None],
    ) -> None:
        """The callbacks are called in the picture's thread.

        Args:
            work: what is to be done.
            first: the place in the stage of this work's place 0.
            clock: paces the pictures.
            ready: gets places of the stage that can be computed from now on.
            changed: called when something was put together, skipped, or went wrong.
            show: gets a small picture of how it looks, now and then.
        """
        self.work = work
        self.first = first
        self._clock = clock
        self._ready = ready
        self._changed = changed
        self._show = show
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flotilla-picture")
        self._over = work.count == 0
        self._error: FlotillaError | None = None
        self._shown_s = float("-inf")

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to wait for: all is done, or something went wrong with the picture itself."""
        return self._over or self.has_failed

    @property
    def has_failed(self) -> bool:
        """Whether something went wrong with the picture itself."""
        return self._error is not None

    def check(self) -> None:
        """Raises what went wrong with the picture itself."""
        if self._error is not None:
            raise self._error

    def start(self) -> Future[list[int]]:
        """The places of the stage that can be computed at once. Raises JobCancelled if it is closed."""
        return self._ask(lambda: [self.first + place for place in self.work.start()])

    def cut(self, place: int) -> Future[Values]:
        """The pixels of a place of the stage. Raises JobCancelled if it is closed."""
        return self._ask(lambda: self.work.cut(place - self.first))

    def arrived(self, place: int, values: Values) -> None:
        """The result of a place of the stage is here."""
        self._submit(self.work.arrived, place - self.first, values)

    def skip(self, place: int) -> None:
        """The place will not be computed."""
        self._submit(self.work.skip, place - self.first)

    def close(self) -> None:
        """Ends the thread once it has done what it was asked for before."""
        self._thread.shutdown(wait=False)

    def _ask(self, act: Callable[[], T]) -> Future[T]:
        try:
            return self._thread.submit(act)
        except RuntimeError:
            raise JobCancelled("The upscale has ended.") from None

    def _submit(self, act: Callable[..., list[int]], *args: Any) -> None:
        try:
            self._thread.submit(self._carry_out, act, *args)
        except RuntimeError:  # closed: nobody needs the picture any more
            log.debug("a result came after the end of its picture")

    def _carry_out(self, act: Callable[..., list[int]], *args: Any) -> None:
        if self.is_over:
            return
        try:
            ready = act(*args)
            self._over = self.work.is_over
        except FlotillaError as error:
            self._error = error
        except Exception as error:
            log.exception("the picture could not be put together")
            self._error = JobFailed(
                f"The picture could not be put together: {type(error).__name__}: {error}", cure="See this server's log."
            )
        else:
            if ready:
                self._ready([self.first + place for place in ready])
            self._maybe_show()
        finally:
            self._changed()

    def _maybe_show(self) -> None:
        now_s = self._clock.now_s()
        if now_s - self._shown_s < PICTURE_EVERY_S and not self._over:
            return
        self._shown_s = now_s
        try:
            picture = self.work.picture(PICTURE_EDGE_PX)
            if picture is not None:
                self._show(picture)
        except Exception as error:  # nobody's pixels depend on it
            log.warning("a picture could not be shown", error=error)
