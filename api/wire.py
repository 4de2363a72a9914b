"""What travels over ``/distributed/v2``, as models: the routes answer with them and the OpenAPI document is made of them.

Requests are checked strictly (``true`` is no number, ``"1"`` is no number). Fields that a PATCH leaves out stay as they
are. Times: ``*_s`` are seconds; ``created_s``, ``accepted_s`` and ``ended_s`` count since 1970. Sizes are in bytes.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..jobs.model import JobState
from ..workers.entries import MASTER_ID, Kind, Name, Precision, Settings, Tag, WorkerId

MAX_OFFSET = 2**31


def _without_defaults(schema: dict[str, Any]) -> None:
    """In a PATCH a default would read as if leaving a field out meant to reset it."""
    for field in schema.get("properties", {}).values():
        field.pop("default", None)


class Out(BaseModel):
    """What routes answer with. Only the fields named here are ever sent."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class In(BaseModel):
    """What routes are sent."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Query(BaseModel):
    """Query parameters: texts, which are read as what they stand for."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# Errors


class ErrorInfo(Out):
    """``code`` is stable, ``message`` names the cause, ``cure`` says what to do about it, ``details`` are for programs."""

    code: str
    message: str
    cure: str = ""
    details: dict[str, Any] = Field(default_factory=dict)


class ErrorBody(Out):
    """The one shape of every error."""

    error: ErrorInfo


# Workers


WorkerState = Literal["disabled", "connecting", "online", "resting", "offline", "refused"]
"""*resting*: linked, but it gets no work for a while because it keeps failing; ``message`` says more."""


class QueueOut(Out):
    """Prompts in a worker's own queue; ``ours`` of them belong to jobs of this master."""

    running: int
    pending: int
    ours: int


class WorkerOut(Out):
    """A worker as configured, and how it is.

    ``reason`` is a code ("" while all is well), ``message`` and ``cure`` are for people. ``since_s``: for how long it has
    been in this state. ``rtt_ms``: latest round trip. ``same_host``: its results are read from a shared folder.
    ``queue``: as it told last; null while it is not linked.
    """

    id: str
    name: str
    address: str
    enabled: bool
    kind: Kind
    tags: list[str]
    precision: Precision
    state: WorkerState
    reason: str
    message: str
    cure: str
    since_s: float | None
    rtt_ms: float | None
    version: str | None
    same_host: bool
    queue: QueueOut | None


class WorkersOut(Out):
    """All workers, in the order that decides their places in a job."""

    workers: list[WorkerOut]


class WorkerRemoved(Out):
    """The id of the worker that is no more."""

    removed: str


class WorkerPatch(BaseModel):
    """Changes the given fields of a worker; keys that are not listed here are stored as they are."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", json_schema_extra=_without_defaults)

    name: Name = ""
    address: str = ""
    enabled: bool = True
    kind: Kind = "remote"
    tags: list[Tag] = Field(default_factory=list, max_length=100)
    precision: Precision = "exact"
    cuda_device: int | None = None
    extra_args: str | None = None

    def given(self) -> dict[str, Any]:
        """Only the fields that the request had."""
        return self.model_dump(exclude_unset=True)


class WorkerIn(WorkerPatch):
    """A new worker. Left out: ``id`` is made up, ``name`` is the address, ``kind`` follows from the address, ``enabled``
    is true, ``precision`` is exact."""

    id: WorkerId = ""
    address: str = Field(min_length=1)

    @field_validator("id")
    @classmethod
    def _not_the_master(cls, value: str) -> str:
        if value == MASTER_ID:
            raise ValueError("means this server and cannot be a worker's id")
        return value


# Jobs


class FailureOut(Out):
    """Why something ended badly. ``participant`` is the id of who had it, ``attempt`` which of the item's attempts it was
    (0: not one of them); ``traceback`` is the remote one, ``node_id`` and ``node_type`` name the node that raised, if any."""

    kind: str
    message: str
    traceback: str
    participant: str | None
    attempt: int
    node_id: str
    node_type: str


class ParticipantOut(Out):
    """Who may take part in a job."""

    id: str
    name: str


class StageOut(Out):
    """One distributed node of the prompt and the number of its items."""

    node_id: str
    class_type: str
    way: str
    count: int


class JobOut(Out):
    """One distributed run; its ``id`` is the id of the prompt. ``left_out``: participant id → why it takes no part.

    ``missing``: item index → why the job ended without it. ``lives`` counts how often the job was begun (1, and one
    more with every resume). ``state`` *interrupted*: the server ended before the job did.
    """

    id: str
    state: JobState
    created_s: float
    accepted_s: float | None
    ended_s: float | None
    items_total: int
    items_done: int
    left_out: dict[str, str]
    participants: list[ParticipantOut]
    error: FailureOut | None
    missing: dict[str, str]
    lives: int


class AttemptOut(Out):
    """One lease of an item to one participant. ``leased_s``, ``started_s`` and ``ended_s`` count since 1970."""

    number: int
    participant: str
    state: str
    leased_s: float
    started_s: float | None
    ended_s: float | None
    error: FailureOut | None


class ItemOut(Out):
    """One item: ``index`` counts through the job, ``k`` through the stage of ``node_id``.

    ``participant`` has it now or delivered it; ``planned_for`` is whom the plan meant it for. ``fraction`` (0 to 1) and
    ``label`` tell how far it is, ``copies`` how many participants are at it. ``seconds`` is how long it took, ``size_bytes`` the size of its result on the way (null
    for the master's own). ``values`` holds what each varying node gives in this item, by node id.
    """

    index: int
    node_id: str
    k: int
    state: str
    participant: str | None
    planned_for: str
    attempts: list[AttemptOut]
    fraction: float
    label: str
    copies: int
    seconds: float | None
    size_bytes: int | None
    values: dict[str, Any]
    error: FailureOut | None


class JobDetail(JobOut):
    """A job with its stages and items; of very large ones the first items, the others are at ``/jobs/{id}/items``."""

    stages: list[StageOut]
    items: list[ItemOut]


class JobsPage(Out):
    """Some of the jobs of the journal, the newest first. ``total`` counts all that match."""

    jobs: list[JobOut]
    total: int
    limit: int
    offset: int


class JobForgotten(Out):
    """The id of the job that is no more."""

    forgotten: str


class ItemsPage(Out):
    """Some of a job's items, in order."""

    items: list[ItemOut]
    total: int
    limit: int
    offset: int


class JobsQuery(Query):
    """Which jobs to list. ``participant`` is somebody's id who was to take part; ``since_s`` and ``until_s`` bound when
    the job was created (seconds since 1970); ``text`` is looked for in its id and in what ended it."""

    state: JobState | None = None
    participant: str = Field(default="", max_length=200)
    since_s: float | None = Field(default=None, allow_inf_nan=False)
    until_s: float | None = Field(default=None, allow_inf_nan=False)
    text: str = Field(default="", max_length=200)
    limit: int = Field(default=50, ge=1, le=200)
    offset: int = Field(default=0, ge=0, le=MAX_OFFSET)


class ItemsQuery(Query):
    """Which items to list."""

    limit: int = Field(default=100, ge=1, le=1_000)
    offset: int = Field(default=0, ge=0, le=MAX_OFFSET)


class Nothing(In):
    """An empty object."""


# The instance


class SettingsOut(Settings):
    """The fleet's settings."""

    model_config = ConfigDict(extra="ignore", json_schema_serialization_defaults_required=True)


class SettingsPatch(Settings):
    """Changes the given settings."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_defaults)

    def given(self) -> dict[str, Any]:
        """Only the settings that the request had."""
        return self.model_dump(exclude_unset=True)


class SpoolOut(Out):
    """How full the place is where this instance keeps results until they are fetched."""

    blobs: int
    memory_bytes: int
    memory_cap_bytes: int
    recycled_bytes: int
    disk_bytes: int
    disk_cap_bytes: int


class JournalOut(Out):
    """How the record of jobs fares. ``message`` says what is wrong with one that is *degraded*, and what to do."""

    state: str
    message: str
    jobs: int
    size_bytes: int


class SystemOut(Out):
    """This instance. ``key_fingerprint`` is safe to show: equal for equal fleet keys, null without a key."""

    version: str
    host_version: str
    instance_id: str
    name: str
    key_fingerprint: str | None
    device: str
    spool: SpoolOut
    journal: JournalOut
