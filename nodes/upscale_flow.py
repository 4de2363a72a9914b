"""The way of one picture through its passes: on this computer alone, or with all that take part in the job."""

from __future__ import annotations

import asyncio
import heapq
from typing import TypeVar

import torch

from ..host.execution import NodeProgress, as_node, make_room_after, raise_if_interrupted, wait_interruptibly
from ..host.node_api import io
from ..host.screen import NodeText
from ..runtime.tile_run import TileRun
from ..runtime.tile_stage import TileStage
from ..upscale.clips import frame_hint, is_video
from ..upscale.model_work import ModelWork
from ..upscale.pixels import Pixels
from ..upscale.redraw_work import RedrawWork
from ..upscale.work import Models, TileWork, made_of, result_of
from ..utils.log import get_logger
from .upscale_inputs import Asked

log = get_logger("nodes")

Work = TypeVar("Work", bound=TileWork)

PROGRESS_STEPS = 100
"""Steps of the progress bar per tile."""

PICTURE_EDGE_PX = 512
SHOWN_MISSING = 8
FACTS_WITHIN_S = 60.0
"""How long a master that only coordinates waits for a worker that has loaded the models, to learn what they are."""


class UpscaleFlow:
    """Made where the node is reached; `run` may have to be called again, with the models.

    ``stage`` None: there is no job, and everything is computed here.
    """

    def __init__(
        self, asked: Asked, image: torch.Tensor, *, has_upscale_model: bool, node_id: str, stage: TileStage | None
    ) -> None:
        self._asked = asked
        self._image = image
        self._node_id = node_id
        self._stage = stage
        self._picture: torch.Tensor | Pixels = image
        self._runs_left = asked.model_runs(image) if has_upscale_model else 0
        self._enlarging: ModelWork | None = None
        self._redrawing: RedrawWork | None = None
        self._tiles: TileRun | None = None  # of the work that is at hand, in a job
        self._missing: list[str] = []
        self._hint = ""

    async def run(self, models: Models | None) -> io.NodeOutput | None:
        """The node's output; None when models are needed after all. Raises what ended the job, or what a tile raised."""
        while self._runs_left:
            if self._enlarging is None:
                self._enlarging = self._begin(self._asked.model_work(self._image, self._picture, self._runs_left))
            if not await self._work(self._enlarging, models):
                return None
            self._picture, self._enlarging = self._enlarging.result(), None
            self._runs_left -= 1
        if self._redrawing is None:
            video = await self._is_video(models)
            if video is None:
                return None
            self._redrawing = self._begin(self._asked.work(self._image, self._picture, video))
            self._picture = self._image
        if not await self._work(self._redrawing, models):
            return None
        if models is not None and self._image.shape[0] > 1:
            self._hint = frame_hint(models.vae, int(self._image.shape[0]), models.model)
        notes = [note for note in (self._hint, *self._missing_notes()) if note]
        return io.NodeOutput(self._redrawing.result(), ui={"text": notes} if notes else None)

    def _begin(self, work: Work) -> Work:
        if self._stage is not None:
            self._tiles = self._stage.begin(work)
        return work

    async def _is_video(self, models: Models | None) -> bool | None:
        """Whether frames are one clip to the model; None when that cannot be told without having it here."""
        if not self._asked.needs_to_know_video(self._image):
            return False
        if models is not None:
            return is_video(models.vae, models.model)
        if self._stage is None:
            return None
        told = self._stage.facts()
        waiting = asyncio.wait({asyncio.wrap_future(told)}, timeout=FACTS_WITHIN_S)
        await wait_interruptibly(asyncio.ensure_future(waiting))
        facts = told.result() if told.done() else None
        return facts.get("video") if facts is not None else None

    async def _work(self, work: TileWork, models: Models | None) -> bool:
        if self._stage is not None and self._tiles is not None:
            return await compute_in_job(self._stage, self._tiles, models)
        if models is None:
            raise RuntimeError("a node without a job has all its inputs")
        self._missing += compute_alone(work, models, self._node_id, partial=self._asked.on_failure == "partial")
        return True

    def _missing_notes(self) -> list[str]:
        if self._stage is not None:
            note = self._stage.missing_note()
            listed = [note] if note else []
            if self._stage.hint:
                self._hint = self._stage.hint
        else:
            listed = self._missing[:SHOWN_MISSING]
        if listed:
            log.warning("an upscale goes on without some of its tiles", node=self._node_id, notes=listed)
            NodeText().show("\n".join(listed))
        return listed


async def compute_in_job(stage: TileStage, run: TileRun, models: Models | None) -> bool:
    """Computes tiles as they are given to this computer, until the picture of ``run`` is done; of others beside it, too.

    False when a tile is to be computed here and there are no ``models``: then nobody else is left, and the tile waits.
    Raises what ended the job, and the host's interrupt.
    """
    bar = NodeProgress(max(stage.count, 1) * PROGRESS_STEPS, stage.plan.node_id)

    def show(tiles: float) -> None:
        bar.show(round(tiles * PROGRESS_STEPS), max(stage.count, 1) * PROGRESS_STEPS)

    try:
        while not stage.is_done(run) and not stage.finished:
            request = stage.take_request()
            if request is None:
                stage.ask()
                change = stage.next_change()
                show(stage.progress())
                if not stage.is_done(run):  # else what was to be waited for may have happened before
                    await wait_interruptibly(asyncio.wrap_future(change))
            elif models is None:
                stage.request(*request)
                return False
            else:
                await _compute_one(stage, models, *request)
        stage.check()
    except BaseException:  # the host's interrupt is one
        stage.abandon()
        raise
    show(stage.count if stage.is_over else stage.progress())
    return True


async def _compute_one(stage: TileStage, models: Models, place: int, attempt: int) -> None:
    """One tile of the stage. What it raises is told to the job, which tries it elsewhere or ends."""
    work, at = stage.work_of(place)
    values = await asyncio.wrap_future(stage.cut(place))
    try:
        with as_node(f"{stage.expansion_prefix}tile"):
            made = work.compute(at, models, values)
    except Exception as error:
        make_room_after(error)
        stage.fail_here(place, attempt, error)
        # Until the job knows, the failed tile must not be asked for again.
        await asyncio.sleep(0)
        return
    told = made_of(values, stage.plan.node_id, work.root_inputs(at))
    stage.deliver_requested(place, attempt, result_of(made, told))


def compute_alone(work: TileWork, models: Models, node_id: str, *, partial: bool) -> list[str]:
    """All tiles of a picture, one after the other, in the order of their places as far as that is possible.

    With ``partial`` a tile that fails is left as it is, and told of in the list; else its error is raised. It is raised as
    well if there was no other tile: then there is no part to show.
    """
    bar = NodeProgress(work.count, node_id)
    ready = work.start()
    heapq.heapify(ready)
    missing: list[str] = []
    done = 0
    while ready:
        raise_if_interrupted()
        place = heapq.heappop(ready)
        values = work.cut(place)
        try:
            with as_node(f"{node_id}.tile"):
                made = work.compute(place, models, values)
        except Exception as error:
            if not partial or len(missing) == work.count - 1:
                raise
            make_room_after(error)
            log.warning("a tile could not be redrawn, the source stays", node=node_id, place=place, error=error)
            missing.append(f"tile {place + 1} of {work.count} is missing: {type(error).__name__}: {error}")
            opened = work.skip(place)
        else:
            opened = work.arrived(place, result_of(made, ""))
        for one in opened:
            heapq.heappush(ready, one)
        done += 1
        bar.show(done, work.count, work.picture(PICTURE_EDGE_PX))
    return missing
