"""The tables of the first journal: homes, jobs with their bodies and participants, items, attempts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID_LENGTH = 200
STATE_LENGTH = 20
KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "flotilla_homes",
        sa.Column("home", sa.String(ID_LENGTH), nullable=False),
        sa.Column("seen_s", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("home", name="pk_flotilla_homes"),
    )
    op.create_table(
        "flotilla_jobs",
        sa.Column("key", KEY, autoincrement=True, nullable=False),
        sa.Column("home", sa.String(ID_LENGTH), nullable=False),
        sa.Column("id", sa.String(ID_LENGTH), nullable=False),
        sa.Column("state", sa.String(STATE_LENGTH), nullable=False),
        sa.Column("created_s", sa.Float(53), nullable=False),
        sa.Column("accepted_s", sa.Float(53)),
        sa.Column("ended_s", sa.Float(53)),
        sa.Column("client_id", sa.Text),
        sa.Column("wishes", sa.JSON, nullable=False),
        sa.Column("participants", sa.JSON, nullable=False),
        sa.Column("left_out", sa.JSON, nullable=False),
        sa.Column("failure", sa.JSON),
        sa.Column("failure_message", sa.Text, nullable=False),
        sa.Column("lives", sa.Integer, nullable=False),
        sa.Column("items_total", sa.Integer, nullable=False),
        sa.Column("items_done", sa.Integer, nullable=False),
        sa.Column("missing", sa.JSON, nullable=False),
        sa.Column("body_bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_flotilla_jobs"),
        sa.UniqueConstraint("home", "id", name="uq_flotilla_jobs_home_id"),
    )
    op.create_index("ix_flotilla_jobs_home_created_s", "flotilla_jobs", ["home", "created_s"])
    op.create_index("ix_flotilla_jobs_home_state_created_s", "flotilla_jobs", ["home", "state", "created_s"])
    op.create_table(
        "flotilla_job_bodies",
        _job_key("flotilla_job_bodies"),
        sa.Column("prompt", sa.JSON, nullable=False),
        sa.Column("extra_data", sa.JSON, nullable=False),
        sa.Column("plan", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("job_key", name="pk_flotilla_job_bodies"),
    )
    op.create_table(
        "flotilla_job_participants",
        _job_key("flotilla_job_participants"),
        sa.Column("participant_id", sa.String(ID_LENGTH), nullable=False),
        sa.PrimaryKeyConstraint("job_key", "participant_id", name="pk_flotilla_job_participants"),
    )
    op.create_index("ix_flotilla_job_participants_participant_id", "flotilla_job_participants", ["participant_id"])
    op.create_table(
        "flotilla_items",
        _job_key("flotilla_items"),
        sa.Column("index", sa.Integer, nullable=False),
        sa.Column("node_id", sa.Text, nullable=False),
        sa.Column("k", sa.Integer, nullable=False),
        sa.Column("state", sa.String(STATE_LENGTH), nullable=False),
        sa.Column("planned_for", sa.Text, nullable=False),
        sa.Column("participant_id", sa.Text),
        sa.Column("attempt", sa.Integer),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Float(53)),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("error", sa.JSON),
        sa.Column("ended_s", sa.Float(53)),
        sa.PrimaryKeyConstraint("job_key", "index", name="pk_flotilla_items"),
    )
    op.create_table(
        "flotilla_attempts",
        _job_key("flotilla_attempts"),
        sa.Column("index", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("participant_id", sa.Text, nullable=False),
        sa.Column("state", sa.String(STATE_LENGTH), nullable=False),
        sa.Column("leased_s", sa.Float(53), nullable=False),
        sa.Column("started_s", sa.Float(53)),
        sa.Column("ended_s", sa.Float(53)),
        sa.Column("error", sa.JSON),
        sa.PrimaryKeyConstraint("job_key", "index", "number", name="pk_flotilla_attempts"),
    )


def _job_key(table: str) -> sa.Column[int]:
    reference = sa.ForeignKey("flotilla_jobs.key", name=f"fk_{table}_job_key", ondelete="CASCADE")
    return sa.Column("job_key", KEY, reference, autoincrement=False, nullable=False)
