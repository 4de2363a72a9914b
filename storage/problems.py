"""What can be wrong with a database, told apart by what is to be done about it. No message holds the database's address."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

SHOWN_LENGTH = 300

_BROKEN_FILE = ("file is not a database", "malformed", "file is encrypted")


class DatabaseProblem(Exception):
    """The database cannot be used now. The message is for people; a later try may go well."""


class DatabaseUnusable(DatabaseProblem):
    """The database cannot be used until somebody changes something: trying again is of no use."""


class BrokenFile(DatabaseProblem):
    """The file is no SQLite database, or a damaged one."""


def problem_of(error: BaseException) -> DatabaseProblem | None:
    """What an exception of SQLAlchemy, a driver or the system says about the database; None: it speaks of the data."""
    if isinstance(error, DatabaseProblem):
        return error
    text = told(error)
    driver = getattr(error, "orig", None) or error
    if isinstance(driver, sqlite3.Error):
        if any(word in text.lower() for word in _BROKEN_FILE):
            return BrokenFile(text)
        return DatabaseProblem(text) if isinstance(driver, sqlite3.OperationalError) else None
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return DatabaseProblem(text)
    if isinstance(error, OperationalError | InternalError | InterfaceError | PoolTimeoutError | OSError):
        return DatabaseProblem(text)
    return None


def told(error: BaseException) -> str:
    """An error in the driver's own words, without the statement and its values."""
    words = getattr(error, "orig", None) or error
    text = " ".join(str(words).split()) or type(words).__name__
    return text[:SHOWN_LENGTH]
