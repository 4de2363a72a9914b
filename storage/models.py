"""The tables. A change here needs a migration in `migrations/versions`; a test compares the two.

Jobs have a number of their own (``key``), so that the many rows of items and attempts stay short.
"""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import (
    JSON,
    BigInteger,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

MAX_ID_LENGTH = 200
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
ANY_KEY = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only in a column that is called INTEGER."""


class Base(DeclarativeBase):
    """Root of the tables."""

    metadata = MetaData(naming_convention=NAMING)


class HomeRow(Base):
    """Who writes into this database, and when it was last seen."""

    __tablename__ = "flotilla_homes"

    home: Mapped[str] = mapped_column(String(MAX_ID_LENGTH), primary_key=True)
    seen_s: Mapped[float] = mapped_column(Float(53))


class JobRow(Base):
    """A job without its large parts."""

    __tablename__ = "flotilla_jobs"
    __table_args__ = (
        UniqueConstraint("home", "id"),
        Index(None, "home", "created_s"),
        Index(None, "home", "state", "created_s"),
    )

    key: Mapped[int] = mapped_column(ANY_KEY, primary_key=True, autoincrement=True)
    home: Mapped[str] = mapped_column(String(MAX_ID_LENGTH))
    id: Mapped[str] = mapped_column(String(MAX_ID_LENGTH))
    state: Mapped[str] = mapped_column(String(20))
    created_s: Mapped[float] = mapped_column(Float(53))
    accepted_s: Mapped[float | None] = mapped_column(Float(53))
    ended_s: Mapped[float | None] = mapped_column(Float(53))
    client_id: Mapped[str | None] = mapped_column(Text)
    wishes: Mapped[dict[str, Any]] = mapped_column(JSON)
    participants: Mapped[dict[str, Any]] = mapped_column(JSON)
    left_out: Mapped[dict[str, Any]] = mapped_column(JSON)
    failure: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    failure_message: Mapped[str] = mapped_column(Text)
    lives: Mapped[int] = mapped_column(Integer)
    items_total: Mapped[int] = mapped_column(Integer)
    items_done: Mapped[int] = mapped_column(Integer)
    missing: Mapped[dict[str, Any]] = mapped_column(JSON)
    body_bytes: Mapped[int] = mapped_column(BigInteger)


class BodyRow(Base):
    """The large parts of a job, which lists do not read."""

    __tablename__ = "flotilla_job_bodies"

    job_key: Mapped[int] = mapped_column(
        ANY_KEY, ForeignKey(JobRow.key, ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    prompt: Mapped[dict[str, Any]] = mapped_column(JSON)
    extra_data: Mapped[dict[str, Any]] = mapped_column(JSON)
    plan: Mapped[dict[str, Any]] = mapped_column(JSON)


class JobParticipantRow(Base):
    """Who was to take part in a job."""

    __tablename__ = "flotilla_job_participants"
    __table_args__ = (Index(None, "participant_id"),)

    job_key: Mapped[int] = mapped_column(
        ANY_KEY, ForeignKey(JobRow.key, ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    participant_id: Mapped[str] = mapped_column(String(MAX_ID_LENGTH), primary_key=True)


class ItemRow(Base):
    """An item of a job."""

    __tablename__ = "flotilla_items"

    job_key: Mapped[int] = mapped_column(
        ANY_KEY, ForeignKey(JobRow.key, ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    index: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    node_id: Mapped[str] = mapped_column(Text)
    k: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(20))
    planned_for: Mapped[str] = mapped_column(Text)
    participant_id: Mapped[str | None] = mapped_column(Text)
    attempt: Mapped[int | None] = mapped_column(Integer)
    attempts: Mapped[int] = mapped_column(Integer)
    seconds: Mapped[float | None] = mapped_column(Float(53))
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    ended_s: Mapped[float | None] = mapped_column(Float(53))


class AttemptRow(Base):
    """One lease of an item."""

    __tablename__ = "flotilla_attempts"

    job_key: Mapped[int] = mapped_column(
        ANY_KEY, ForeignKey(JobRow.key, ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    index: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    participant_id: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(20))
    leased_s: Mapped[float] = mapped_column(Float(53))
    started_s: Mapped[float | None] = mapped_column(Float(53))
    ended_s: Mapped[float | None] = mapped_column(Float(53))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


def _table(row: type[Base]) -> Table:
    return cast(Table, row.__table__)


HOMES, JOBS, BODIES, PARTIES = _table(HomeRow), _table(JobRow), _table(BodyRow), _table(JobParticipantRow)
ITEMS, ATTEMPTS = _table(ItemRow), _table(AttemptRow)
