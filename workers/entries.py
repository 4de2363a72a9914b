"""What the registry stores: worker entries and settings, as models that keep the keys they do not know."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..utils.errors import Conflict, InvalidInput
from .address import WorkerAddress, parse_address

MASTER_ID = "master"
"""What the master is called among the participants of a job; no worker may have this id."""

Kind = Literal["local", "remote", "cloud"]
Precision = Literal["exact", "half", "8bit"]


def _visible(value: str) -> str:
    if value != value.strip() or not value.isprintable():
        raise ValueError("must not hold control characters or begin or end with a space")
    if value == MASTER_ID:
        raise ValueError(f"must not be {MASTER_ID!r}, which names this server itself")
    return value


def _checked(value: str) -> str:
    return str(parse_address(value)) if value else ""


WorkerId = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_visible)]
Address = Annotated[str, AfterValidator(_checked)]
Name = Annotated[str, Field(max_length=200)]
Tag = Annotated[str, Field(min_length=1, max_length=100)]

_KEPT = ConfigDict(extra="allow", frozen=True, strict=True)


class WorkerEntry(BaseModel):
    """One worker as the user configured it.

    ``address`` is stored in its checked form; it may be empty only while the worker is disabled. The last four fields
    come from configurations of older tools and are kept when given.
    """

    model_config = _KEPT

    id: WorkerId
    name: Name
    address: Address
    enabled: bool = True
    kind: Kind = "remote"
    tags: list[Tag] = Field(default_factory=list, max_length=100)
    precision: Precision = "exact"
    cuda_device: int | None = None
    extra_args: str | None = None
    host: str | None = None
    port: int | None = None

    @model_validator(mode="after")
    def _reachable_if_enabled(self) -> WorkerEntry:
        if self.enabled and not self.address:
            raise ValueError("an enabled worker needs an address")
        return self

    @property
    def where(self) -> WorkerAddress:
        """The parsed address. Raises InvalidInput for an entry without one."""
        return parse_address(self.address)

    def to_json(self) -> dict[str, Any]:
        """As stored: without the older fields that were never given."""
        older = ("cuda_device", "extra_args", "host", "port")
        return {key: value for key, value in self.model_dump().items() if value is not None or key not in older}


class Settings(BaseModel):
    """The fleet's settings. ``queue_ahead``: queued prompts worked on ahead; ``worker_slots``: items leased to one
    worker at a time, so that the transfer of one hides behind the computation of the next.

    ``stall_factor``: an item that takes so many times its expected time is begun elsewhere as well.
    ``keep_results_hours``: for how long finished results of a job that failed or was interrupted are kept for a resume.
    ``journal_max_age_days`` and ``journal_max_mb`` bound what is remembered of jobs that have ended."""

    model_config = _KEPT

    master_name: Name = "Master"
    master_delegate_only: bool = False
    debug: bool = False
    auto_launch_workers: bool = False
    stop_workers_on_master_exit: bool = True
    websocket_orchestration: bool = True
    has_auto_populated_workers: bool = False
    worker_timeout_seconds: int = Field(default=60, ge=1, le=86_400)
    max_attempts: int = Field(default=3, ge=1, le=100)
    queue_ahead: int = Field(default=2, ge=0, le=1_000)
    worker_slots: int = Field(default=2, ge=1, le=64)
    stall_factor: float = Field(default=3.0, ge=1.5, le=100.0)
    keep_results_hours: float = Field(default=24.0, ge=0.0, le=24.0 * 365)
    journal_max_age_days: float = Field(default=30.0, ge=0.01, le=36_500.0)
    journal_max_mb: int = Field(default=500, ge=1, le=1_000_000)


class RegistryData(BaseModel):
    """The whole file. ``master``, ``tunnel`` and ``managed_processes`` are sections of older tools, kept as given."""

    model_config = _KEPT

    version: Literal[1] = 1
    workers: list[WorkerEntry] = Field(default_factory=list, max_length=1_000)
    settings: Settings = Field(default_factory=Settings)
    master: dict[str, Any] = Field(default_factory=dict)
    tunnel: dict[str, Any] = Field(default_factory=dict)
    managed_processes: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _no_twins(self) -> RegistryData:
        names: dict[str, str] = {}
        places: dict[tuple[str, int, str], str] = {}
        for entry in self.workers:
            if entry.id in names:
                raise Conflict(f"Two workers have the id {entry.id!r}.", cure="Give each worker its own id.")
            names[entry.id] = entry.name
            if not entry.address:
                continue
            twin = places.setdefault(entry.where.identity, entry.id)
            if twin != entry.id:
                raise Conflict(
                    f"The workers {twin!r} and {entry.id!r} have the same address {entry.address}.",
                    cure="One server can be entered only once: change the address or remove one entry.",
                )
        return self

    def to_json(self) -> dict[str, Any]:
        """As stored in the file."""
        return {**self.model_dump(), "workers": [entry.to_json() for entry in self.workers]}


def invalid_input(what: str, error: ValidationError) -> InvalidInput:
    """A pydantic error as ours: names each field and what is wrong with it, and repeats no value."""
    faults = [
        {"field": ".".join(str(part) for part in fault["loc"]), "problem": str(fault["msg"])}
        for fault in error.errors()[:20]
    ]
    listed = "; ".join(f"{fault['field'] or what}: {fault['problem']}" for fault in faults)
    return InvalidInput(f"{what} is not valid: {listed}.", cure="Correct the named fields.", details={"faults": faults})


def make_entry(fields: Any) -> WorkerEntry:
    """A checked entry from JSON. Raises InvalidInput."""
    try:
        return WorkerEntry.model_validate(fields)
    except ValidationError as error:
        raise invalid_input("The worker", error) from None


def make_settings(fields: Any) -> Settings:
    """Checked settings from JSON. Raises InvalidInput."""
    try:
        return Settings.model_validate(fields)
    except ValidationError as error:
        raise invalid_input("The settings", error) from None


def make_data(fields: Any) -> RegistryData:
    """A checked whole from JSON or from models. Raises InvalidInput, and Conflict for two equal workers."""
    try:
        return RegistryData.model_validate(fields)
    except ValidationError as error:
        raise invalid_input("The worker registry", error) from None
