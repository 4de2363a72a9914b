"""What the coordinator tells the relay: how jobs, items and participants stand, as far as screens care."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..jobs.model import Failure
from ..jobs.states import AttemptState, ItemState, JobState
from ..jobs.view import ItemView


@dataclass(frozen=True)
class JobNews:
    """How a job stands. ``state`` is a `JobState` as text, ``client_id`` queued it (empty: nobody in particular), ``missing`` maps the index of items that
    will not come to the reason, ``failure`` is what ended the job."""

    job_id: str
    state: str
    items_total: int
    client_id: str = ""
    participants: tuple[str, ...] = ()
    missing: Mapping[int, str] = field(default_factory=dict)
    failure: Failure | None = None

    @property
    def is_open(self) -> bool:
        """Whether anything can still become of it."""
        return JobState(self.state).is_open


@dataclass(frozen=True)
class ItemNews:
    """How an item stands. ``k`` is its place in its stage, whose node is ``node_id``; ``state`` an `ItemState` as text.

    ``participant_id`` and ``attempt`` lead, or delivered the result; ``fraction`` (0..1) and ``label`` tell how far that
    is; ``copies`` counts live attempts. ``running_on`` and ``failed_on`` name the participants of the attempts that run
    and that failed. ``tile`` says where in the picture the item is, if it is part of one.
    """

    index: int
    k: int
    node_id: str
    state: str
    participant_id: str | None = None
    attempt: int | None = None
    fraction: float = 0.0
    label: str = ""
    copies: int = 0
    running_on: tuple[str, ...] = ()
    failed_on: tuple[str, ...] = ()
    tile: Mapping[str, Any] | None = None

    @property
    def is_open(self) -> bool:
        """Whether anything can still become of it."""
        return ItemState(self.state).is_open


@dataclass(frozen=True)
class PreviewNews:
    """A participant's picture of an item: a JPEG as base64 text, as it came over the link, for the stage's node.

    With ``on_node`` off it is not shown on the node, which has something else to show.
    """

    job_id: str
    index: int
    node_id: str
    participant_id: str
    data: str
    on_node: bool = True


@dataclass(frozen=True)
class ParticipantNews:
    """A participant's state, with the reason when it takes no work."""

    participant_id: str
    state: str
    reason: str = ""


def item_news(view: ItemView, node_id: str, k: int, tile: Mapping[str, Any] | None = None) -> ItemNews:
    """What the machine knows of an item, for the relay."""

    def who(state: AttemptState) -> tuple[str, ...]:
        return tuple(attempt.participant_id for attempt in view.attempts if attempt.state == state.value)

    return ItemNews(
        index=view.index,
        k=k,
        node_id=node_id,
        state=view.state,
        participant_id=view.participant_id,
        attempt=view.attempt,
        fraction=view.fraction,
        label=view.label,
        copies=view.copies,
        running_on=who(AttemptState.RUNNING),
        failed_on=who(AttemptState.FAILED),
        tile=tile,
    )
