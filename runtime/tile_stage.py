"""One upscale of one job, as the node on the master and the coordinator see it: pictures whose tiles are its items."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from PIL import Image

from ..graph.model_side import Blob, Constant, DataValue, ModelSide
from ..graph.plan import JobPlan, StagePlan
from ..transport.loose import LooseItems
from ..transport.uses import StoredBlob
from ..transport.values import JSON, Value
from ..upscale.work import ABOUT, PIXELS, TileWork, Values
from ..utils.clock import Clock
from ..utils.errors import FlotillaError, InvalidInput, NotFound
from .bridge import NodeBridge, NodeCalls
from .tile_run import TileRun

Facts = Mapping[str, Any]


class TileStage(NodeBridge):
    """Pictures come one after the other: most nodes redraw one, one that is given a list of pictures redraws several.

    The host runs the node for all pictures of a list at once, so that some may be under way beside each other. Places
    count through all of them. ``sessions`` is what the node hands on to nodes that it adds to the running prompt, by
    their ids; ``hint`` is what people should know of the models, ``data`` what the model side needs of the rest of the
    graph.
    """

    noun = "tile"
    gathers = False

    def __init__(
        self,
        job: JobPlan,
        plan: StagePlan,
        calls: NodeCalls,
        *,
        added: Callable[[Sequence[dict[str, Any]], Sequence[int]], None],
        ready: Callable[[Sequence[int]], None],
        failed: Callable[[int, int, BaseException], None],
        show: Callable[[Image.Image], None],
        keep: Callable[[Values], StoredBlob],
        clock: Clock,
        salt: str = "",
    ) -> None:
        """As for a `NodeBridge`, and:

        Args:
            added: gets descriptions of new places, in order, and which of them can be computed at once. Waits until
                they are items of the job.
            ready: gets places that can be computed from now on.
            failed: gets place, attempt and error of a tile that the master could not compute.
            show: gets a small picture of how it looks, now and then.
            keep: puts values into this instance's spool.
        """
        super().__init__(job, plan, calls)
        self.fingerprint = " ".join([plan.fingerprint, *([salt] if salt else [])])
        self.assembly = LooseItems(self._landed)
        self.data: dict[str, DataValue] = {}
        self.data_blobs: list[StoredBlob] = []
        self._added = added
        self._ready = ready
        self._failed = failed
        self._show = show
        self._keep = keep
        self.sessions: dict[str, Any] = {}
        self.hint = ""
        self._clock = clock
        self._runs: list[TileRun] = []
        self._added_nodes = 0
        self._firsts: list[int] = []
        self._ended: set[int] = set()  # places of which the job knows how they ended
        self._facts: Future[Facts | None] = Future()
        self._facts_lock = threading.Lock()

    @property
    def side(self) -> ModelSide:
        """What a worker runs besides the tile itself. Any thread."""
        side = self.plan.side
        assert side is not None  # every stage of tiles has one
        return side

    @property
    def takes_part(self) -> bool:
        """Whether the master computes tiles, too. Any thread."""
        return self.plan.master_takes_part

    @property
    def wanted(self) -> bool:
        """As for a `NodeBridge`: the end is that of the pictures. Any thread."""
        return super().wanted or (bool(self._runs) and all(self.is_done(run) for run in self._runs))

    @property
    def is_over(self) -> bool:
        """Whether all pictures so far are done. Any thread."""
        return bool(self._runs) and all(run.is_over for run in self._runs)

    def is_done(self, run: TileRun) -> bool:
        """Whether a picture is done, and the job knows of all its tiles how they ended; or it went wrong. Any thread.

        A prompt that ends before that would look as if it had not needed the others.
        """
        return run.has_failed or (run.is_over and self._ended.issuperset(range(run.first, run.first + run.work.count)))

    # Called by the node, in the prompt thread

    def begin(self, work: TileWork) -> TileRun:
        """One more picture. Raises what ended the job meanwhile."""
        self.check()
        first = self._runs[-1].first + self._runs[-1].work.count if self._runs else 0
        run = TileRun(work, first, clock=self._clock, ready=self._ready, changed=self._wake, show=self._show)
        self._runs.append(run)
        self._firsts.append(first)
        if self.finished:  # it ended just now, and has closed the others
            run.close()
        ready = run.start().result()
        self._added([work.describe(place) for place in range(work.count)], ready)
        return run

    def set_data(self, values: Mapping[str, Value]) -> None:
        """What the model side needs of the rest of the graph, by key. Raises SpoolFull."""
        for key, value in values.items():
            if value.kind == JSON:
                self.data[key] = Constant(value.data)
            else:
                blob = self._keep({"value": value})
                self.data_blobs.append(blob)
                self.data[key] = Blob(blob.manifest.hash)

    def free_id(self, name: str) -> str:
        """A new id for a node that is added to the running prompt."""
        self._added_nodes += 1
        return f"{self.expansion_prefix}{name}{self._added_nodes}"

    def cut(self, place: int) -> Future[Values]:
        """The pixels of a place. Any thread."""
        return self._run_of(place).cut(place)

    def fail_here(self, place: int, attempt: int, error: BaseException) -> None:
        """The master could not compute the tile: it is tried elsewhere, or the job fails."""
        self._failed(place, attempt, error)

    def check(self) -> None:
        """Raises what ended the job, or what went wrong with a picture."""
        if self._error is not None:
            raise self._error
        for run in self._runs:
            run.check()

    def facts(self) -> Future[Facts | None]:
        """What the first worker that has the models tells of them; None when no worker can. Any thread."""
        return self._facts

    def name_of(self, place: int) -> str:
        """What a tile is called in messages for people. Any thread."""
        described = self.plan.items[place].values.get(self.plan.node_id, {})
        boxes = [f"x {tile['box'][0]}, y {tile['box'][1]}" for tile in described.get("tiles", ())]
        where = f"tile {place + 1} of {self.count}"
        return f"{where} ({described.get('pass', '')}, {'; '.join(boxes)})" if boxes else where

    # Called by the coordinator, on the server's loop

    def work_of(self, place: int) -> tuple[TileWork, int]:
        """The picture's work, and the place in it. Any thread."""
        run = self._run_of(place)
        return run.work, place - run.first

    def show(self, place: int, fraction: float, *, done: bool) -> None:
        """As for a `NodeBridge`."""
        if done:
            self._ended.add(place)
        super().show(place, fraction, done=done)

    def lost(self, place: int, reason: str) -> None:
        """The tile will not come: what is there stays."""
        self._missing[place] = reason
        self._ended.add(place)
        self._run_of(place).skip(place)
        self._wake()

    def note_facts(self, facts: Facts | None) -> None:
        """A worker has the models, and told of them; or (None) no worker can."""
        with self._facts_lock:
            if not self._facts.done():
                self._facts.set_result(facts)

    def finish(self, error: FlotillaError | None, missing: Mapping[int, str] | None = None) -> None:
        """As for a `NodeBridge`; the pictures' threads end."""
        super().finish(error, missing)
        self.note_facts(None)
        for run in self._runs:
            run.close()

    def _run_of(self, place: int) -> TileRun:
        at = bisect_right(self._firsts, place) - 1
        if at < 0:
            raise NotFound("There is no such tile.")
        return self._runs[at]

    def _landed(self, place: int, values: Mapping[str, Value]) -> None:
        if PIXELS not in values:  # refused here, it can be had from somebody else
            raise InvalidInput("The result of a tile holds no pixels.")
        about = values.get(ABOUT)
        if about is not None and isinstance(about.data, dict) and about.data.get("hint"):
            self.hint = str(about.data["hint"])
        self._run_of(place).arrived(place, values)
