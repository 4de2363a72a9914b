"""The errors of Flotilla, one tree with one root.

    FlotillaError                something went wrong that we can name
    ├── InvalidInput             the caller sent something unusable                      400
    │   ├── InvalidPrompt        a prompt that cannot be distributed as it stands        400
    │   ├── InvalidBlob          bytes that are not the blob they claim to be            400
    │   └── LengthRequired       a body whose length was not said before                 411
    ├── NotAllowed               proof of the fleet key is missing or wrong              403
    │   └── LinkRefused          two instances cannot form a link, and why               403
    ├── NotFound                 no such job, worker, blob                               404
    ├── Conflict                 it exists already, or is in another state               409
    ├── TooLarge                 over a stated cap                                       413
    ├── NobodyCanRun             no participant is able to take the work                 400
    ├── SpoolFull                no room for one more result                             507
    ├── JournalUnavailable       the journal of jobs cannot be read now                  503
    ├── LinkLost                 the connection ended before the answer came             502
    ├── FetchFailed              a blob could not be brought over in several tries       502
    ├── JobFailed                a job ended without all its results                     500
    └── JobCancelled             somebody stopped the job                                409

An error's ``message`` names the cause in one sentence, ``cure`` says what a person can do about it, ``details`` holds
facts for machines (JSON values only). Neither may ever hold a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

SHOWN_MODULE = "flotilla"


class FlotillaError(Exception):
    """Root of all errors raised on purpose. ``code`` is stable API; ``status`` is the HTTP status it maps to."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init_subclass__(cls) -> None:
        # The host shows errors with their module, which for a pack is the whole path of its folder.
        cls.__module__ = SHOWN_MODULE

    def __init__(self, message: str, *, cure: str = "", details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure
        self.details: dict[str, Any] = dict(details or {})

    def __str__(self) -> str:
        return f"{self.message} {self.cure}".strip()


FlotillaError.__module__ = SHOWN_MODULE


class InvalidInput(FlotillaError):
    """The caller sent something unusable."""

    code = "invalid_input"
    status = 400


class InvalidPrompt(InvalidInput):
    """A prompt cannot be distributed as it stands."""

    code = "invalid_prompt"


class InvalidBlob(InvalidInput):
    """Bytes are not the blob that they claim to be."""

    code = "invalid_blob"


class LengthRequired(InvalidInput):
    """A body comes without its length, which decides whether there is room for it."""

    code = "length_required"
    status = 411


class NotAllowed(FlotillaError):
    """Proof of the fleet key is missing or wrong."""

    code = "not_allowed"
    status = 403


class LinkRefused(NotAllowed):
    """``reason`` is one of the fixed words of `workers.handshake`, so that a screen can explain it."""

    code = "link_refused"

    def __init__(self, reason: str, message: str, *, cure: str = "") -> None:
        super().__init__(message, cure=cure, details={"reason": reason})
        self.reason = reason


class NotFound(FlotillaError):
    """There is no such job, worker or blob."""

    code = "not_found"
    status = 404


class Conflict(FlotillaError):
    """It exists already, or is in a state that does not allow this."""

    code = "conflict"
    status = 409


class TooLarge(FlotillaError):
    """Something is over a stated cap."""

    code = "too_large"
    status = 413


class NobodyCanRun(FlotillaError):
    """No participant is able to take the work."""

    code = "nobody_can_run"
    status = 400


class SpoolFull(FlotillaError):
    """The spool has no room for one more result."""

    code = "spool_full"
    status = 507


class JournalUnavailable(FlotillaError):
    """The journal of jobs cannot be read now. Jobs run all the same."""

    code = "journal_unavailable"
    status = 503


class LinkLost(FlotillaError):
    """The connection ended before the answer came."""

    code = "link_lost"
    status = 502


class FetchFailed(FlotillaError):
    """A blob could not be brought over in several tries."""

    code = "fetch_failed"
    status = 502


class JobFailed(FlotillaError):
    """A job ended without all its results."""

    code = "job_failed"
    status = 500


class JobCancelled(FlotillaError):
    """Somebody stopped the job."""

    code = "job_cancelled"
    status = 409
