"""The control messages of a link, one JSON object each, told apart by ``type``.

Unknown fields are ignored, so that a later version may add some. Texts that only people read are cut to size rather
than refused: a long traceback must not cost a result.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from ..utils.errors import InvalidInput, TooLarge

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_ID_CHARS = 200
MAX_LABEL_CHARS = 500
MAX_TEXT_CHARS = 20_000
MAX_TRACEBACK_LINES = 400
MAX_SPOOL_PLACES = 8
MAX_JOBS_TOLD = 1_000
MAX_PATH_CHARS = 4_096
MAX_PREVIEW_CHARS = 192 * 1024
"""Of a preview's base64 text: it goes in one frame, so that it never holds up what matters."""
MAX_PREVIEW_PX = 4_096


def _cut_to(limit: int) -> BeforeValidator:
    return BeforeValidator(lambda value: value[:limit] if isinstance(value, str) else value)


def _cut_lines(value: Any) -> Any:
    # The end of a traceback says what went wrong; the beginning only how the host got there.
    return value[-MAX_TRACEBACK_LINES:] if isinstance(value, list) else value


def _to_fraction(value: Any) -> Any:
    """Progress of 1.0000001 is a rounding error and not a reason to drop a link."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
    return min(1.0, max(0.0, float(value))) if is_number else value


Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS)]
MaybeId = Annotated[str, Field(max_length=MAX_ID_CHARS)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, BeforeValidator(_to_fraction), Field(ge=0, le=1, allow_inf_nan=False)]
Label = Annotated[str, _cut_to(MAX_LABEL_CHARS)]
Text = Annotated[str, _cut_to(MAX_TEXT_CHARS)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PathText = Annotated[str, Field(min_length=1, max_length=MAX_PATH_CHARS)]
Base64 = Annotated[str, Field(min_length=1, max_length=MAX_PREVIEW_CHARS, pattern=r"^[A-Za-z0-9+/]+={0,2}$")]
Pixels = Annotated[int, Field(ge=1, le=MAX_PREVIEW_PX)]


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _AboutItem(_Message):
    job_id: Id
    index: Count
    attempt: Count


# Master to worker


class Lease(_AboutItem):
    """Run this item. ``node_id`` is the stage's node, ``prompt`` the item's own prompt in the host's API format."""

    type: Literal["lease"] = "lease"
    prompt_id: Id
    prompt: dict[str, Any]
    extra_data: dict[str, Any]
    precision: Literal["exact", "half", "8bit"]
    node_id: Id
    title: Label


class Stop(_AboutItem):
    """This attempt is no longer wanted, queued or running."""

    type: Literal["stop"] = "stop"


class Keep(_AboutItem):
    """This attempt's result has arrived. The worker keeps it while it has room: a master that fails asks for it again."""

    type: Literal["keep"] = "keep"


class Release(_AboutItem):
    """This attempt's result is not needed any more; the worker deletes it."""

    type: Literal["release"] = "release"


class Prepare(_Message):
    """Run this prompt once, so that the models of a job are loaded before its first item comes. It is no lease."""

    type: Literal["prepare"] = "prepare"
    job_id: Id
    prompt_id: Id
    prompt: dict[str, Any]
    extra_data: dict[str, Any]


class JobOver(_Message):
    """Nothing more comes of this job: what was prepared and what was sent for it may go."""

    type: Literal["job_over"] = "job_over"
    job_id: Id


class AskCapabilities(_Message):
    """Send `Capabilities` anew."""

    type: Literal["ask_capabilities"] = "ask_capabilities"


# Worker to master


class LeaseAccepted(_AboutItem):
    """The item is in the worker's queue."""

    type: Literal["lease_accepted"] = "lease_accepted"


class LeaseRefused(_AboutItem):
    """The worker cannot run the item. ``reason`` is a code, ``node_errors`` what its host's validation said."""

    type: Literal["lease_refused"] = "lease_refused"
    reason: Text
    message: Text = ""
    node_errors: dict[str, Any] = Field(default_factory=dict)


class ItemStarted(_AboutItem):
    """The worker's host began to execute the item."""

    type: Literal["item_started"] = "item_started"


class ItemProgress(_AboutItem):
    """``fraction`` of the whole item, 0 to 1; ``node_id`` and ``label`` tell where it is."""

    type: Literal["item_progress"] = "item_progress"
    fraction: Fraction
    node_id: MaybeId = ""
    label: Label = ""


class ItemPreview(_AboutItem):
    """How the item looks so far: a small picture, base64 text in ``data``, made at the node ``node_id``."""

    type: Literal["item_preview"] = "item_preview"
    node_id: MaybeId
    format: Literal["jpeg"]
    data: Base64
    width: Pixels
    height: Pixels


class ItemFinished(_AboutItem):
    """``manifest`` names the result's blobs; ``seconds`` is the time of execution."""

    type: Literal["item_finished"] = "item_finished"
    manifest: dict[str, Any]
    seconds: Seconds


class ItemFailed(_AboutItem):
    """``retry``: whether another participant may well succeed."""

    type: Literal["item_failed"] = "item_failed"
    kind: Id
    message: Text
    exception_type: Label = ""
    traceback: Annotated[list[Text], BeforeValidator(_cut_lines)] = Field(default_factory=list)
    node_id: MaybeId = ""
    node_type: MaybeId = ""
    retry: bool


class Prepared(_Message):
    """How the preparation of a job has ended: ``facts`` about what was loaded, or in ``message`` why it was not."""

    type: Literal["prepared"] = "prepared"
    job_id: Id
    ok: bool
    facts: dict[str, Any] = Field(default_factory=dict)
    message: Text = ""


class JobsHeld(_Message):
    """The jobs for which inputs or a preparation lie here, told when a link begins: `JobOver` ends those that are over."""

    type: Literal["jobs_held"] = "jobs_held"
    job_ids: Annotated[list[Id], Field(max_length=MAX_JOBS_TOLD)]


class Capabilities(_Message):
    """What the worker has: nodes, models, facts about the machine."""

    type: Literal["capabilities"] = "capabilities"
    data: dict[str, Any]


class Status(_Message):
    """The worker's queue: running and pending prompts of anybody, and how many of both are ours."""

    type: Literal["status"] = "status"
    running: Count
    pending: Count
    ours: Count


class SpoolPlace(_Message):
    """One folder of a spool, with a nonce file in it by whose digest the master can tell that it sees the same disk."""

    nonce_path: PathText
    digest: Hash


class SpoolOffer(_Message):
    """Where the worker's spool lies."""

    type: Literal["spool_offer"] = "spool_offer"
    places: Annotated[list[SpoolPlace], Field(max_length=MAX_SPOOL_PLACES)]


# Both ways


class Ping(_Message):
    """``sent_s`` is the sender's clock and comes back unchanged."""

    type: Literal["ping"] = "ping"
    sent_s: Annotated[float, Field(allow_inf_nan=False)]


class Pong(_Message):
    """The answer to a `Ping`."""

    type: Literal["pong"] = "pong"
    sent_s: Annotated[float, Field(allow_inf_nan=False)]


class Bye(_Message):
    """The sender closes the link on purpose."""

    type: Literal["bye"] = "bye"
    reason: Label = ""


Message = Union[  # noqa: UP007  (a union of this many is read at run time by pydantic, on Python 3.10 too)
    Lease, Stop, Keep, Release, Prepare, JobOver, AskCapabilities,
    LeaseAccepted, LeaseRefused, ItemStarted, ItemProgress, ItemPreview, ItemFinished, ItemFailed,
    Prepared, JobsHeld, Capabilities, Status, SpoolOffer,
    Ping, Pong, Bye,
]  # fmt: skip

_ANY: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def parse_message(text: str) -> Message:
    """Raises InvalidInput for anything but a message of the link, TooLarge over the cap; repeats no content."""
    if len(text) > MAX_MESSAGE_BYTES:
        raise TooLarge("A message of the link is larger than 64 MiB.")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInput("A message of the link is not JSON.") from None
    try:
        return _ANY.validate_python(value, strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise InvalidInput(f"A message of the link is not well-formed ({where or 'type'}: {fault['type']}).") from None


def dump(message: Message) -> str:
    """ASCII JSON. Raises TooLarge over the cap, InvalidInput for content that JSON cannot hold."""
    try:
        # `dict` is shallow, so this copies no prompt; ASCII lets characters be counted as bytes.
        text = json.dumps(dict(message), separators=(",", ":"), ensure_ascii=True, default=_fields)
    except (TypeError, ValueError, RecursionError):
        raise InvalidInput("A message of the link holds something that JSON cannot.") from None
    if len(text) > MAX_MESSAGE_BYTES:
        raise TooLarge(
            "A message of the link is larger than 64 MiB.",
            cure="Make the workflow smaller, or load its data from files.",
        )
    return text


def _fields(value: object) -> dict[str, Any]:
    """A message inside a message; anything else is no JSON."""
    if isinstance(value, _Message):
        return dict(value)
    raise TypeError
