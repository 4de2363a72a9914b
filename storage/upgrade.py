"""Brings the tables up to date with alembic's migrations.

The package has no importable name in a host, so the scripts are found by path and import nothing of ours. An up-to-date
database is recognised without alembic.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, column, inspect, select, table, text

from .models import Base
from .problems import DatabaseUnusable

SCRIPTS = Path(__file__).resolve().parent / "migrations"
HEAD = "0001"
"""The newest migration; a test compares."""

VERSION_TABLE = "flotilla_version"
_LOCK = 0x466C6F74696C6C61  # "Flotilla": two instances that start at once upgrade one after the other


def revision_of(connection: Connection) -> str | None:
    """The migration that the database was last brought to; None: it holds nothing of ours yet."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar_one_or_none()
    return None if found is None else str(found)


def upgrade(connection: Connection, scripts: Path = SCRIPTS, head: str = HEAD) -> None:
    """Runs the missing migrations within the transaction of ``connection``.

    Raises:
        DatabaseUnusable: A newer Flotilla has made these tables. Nothing was changed.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    revision = revision_of(connection)
    if revision == head:
        return
    # Slow to import, and needed only after an installation or an update.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise DatabaseUnusable(
            f"The journal was written by a newer version of Flotilla (its tables are at {revision[:20]!r}, this version knows "
            f"{head!r}). Update Flotilla, or give it another database. Until then jobs run, but are not written down."
        )
    config.attributes["connection"] = connection
    config.attributes["metadata"] = Base.metadata
    config.attributes["version_table"] = VERSION_TABLE
    command.upgrade(config, head)
