"""Short-lived proofs on blob requests, made from a link's session key.

The token names the session, ends within a minute and is bound to one method and path, so a token that leaks opens
nothing else. Times are seconds since the session was established, measured by each side's own monotonic clock:
wall clocks of two machines may disagree by minutes.
"""

from __future__ import annotations

import hmac
import math
import re
from collections.abc import Callable

from ..utils.errors import NotAllowed
from .key import keyed_mac

SCHEME = "Flotilla"
LIFETIME_S = 60
SLACK_S = 10
"""The two sides see the handshake end at slightly different moments, and clocks drift."""

_LABEL = "flotilla blob request"
_HEADER = re.compile(r"Flotilla ([0-9a-f]{32})\.([0-9]{1,12})\.([0-9a-f]{64})")


def issue(session_key: bytes, session_id: str, method: str, path: str, now_s: float) -> str:
    """The value of an Authorization header for one request.

    ``path`` is the path as the worker sees it (percent-encoded, with its query, without any prefix that a proxy
    removes); ``now_s`` is the session's age.
    """
    expires = math.ceil(now_s) + LIFETIME_S
    return f"{SCHEME} {session_id}.{expires}.{_mac(session_key, session_id, method, path, expires)}"


def verify(
    header: str | None, key_of_session: Callable[[str], tuple[bytes, float] | None], method: str, path: str
) -> str:
    """The session id that a request has proved. Raises NotAllowed, with the same text whatever did not fit.

    ``key_of_session`` gives the session key and the session's age in seconds for a live session, None for others.
    """
    match = _HEADER.fullmatch(header or "")
    session = key_of_session(match.group(1)) if match else None
    if match is None or session is None:
        raise _not_allowed()
    session_key, age_s = session
    session_id, expires = match.group(1), int(match.group(2))
    expected = _mac(session_key, session_id, method, path, expires)
    if not hmac.compare_digest(expected, match.group(3)):
        raise _not_allowed()
    if not age_s - SLACK_S <= expires <= age_s + LIFETIME_S + SLACK_S + 1:
        raise _not_allowed()
    return session_id


def _mac(session_key: bytes, session_id: str, method: str, path: str, expires: int) -> str:
    # A method holds no space and expires no letter, so no two requests give the same bytes.
    data = f"{session_id} {expires} {method.upper()} {path}".encode()
    return keyed_mac(session_key, _LABEL, data).hex()


def _not_allowed() -> NotAllowed:
    return NotAllowed("The request does not prove that it belongs to a live link.", cure="Reconnect, then try again.")
