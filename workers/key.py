"""The fleet key: the secret that the instances of one fleet share."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from ..utils.errors import InvalidInput
from ..utils.files import PRIVATE_FILE_MODE
from ..utils.log import get_logger

log = get_logger("workers")

KEY_VARIABLE = "FLOTILLA_FLEET_KEY"
KEY_FILE = "fleet.key"
MIN_KEY_CHARS = 32
MAX_KEY_BYTES = 4_096
NEW_KEY_BYTES = 32
REREAD_TRIES = 50
REREAD_PAUSE_S = 0.02
_FILE_CURE = "Restore it from a backup or copy it from another instance of the fleet; or delete it to get a new key."


class FleetKey:
    """Holds the secret and never shows it by accident: neither printing nor copying into a log reveals it."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that differ between keys and are safe to show."""
        return hashlib.sha256(b"flotilla fleet key fingerprint\0" + self._secret).hexdigest()[:8]

    def mac(self, label: str, data: bytes) -> bytes:
        """HMAC-SHA256 of ``data`` under this key, for the purpose named by ``label``: 32 bytes."""
        return keyed_mac(self._secret, label, data)

    def reveal(self) -> str:
        """The secret as text, only to be handed to a local worker's environment."""
        return self._secret.decode("utf-8")

    def __repr__(self) -> str:
        return f"FleetKey({self.fingerprint})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FleetKey) and hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __reduce__(self) -> str:
        raise TypeError("a fleet key cannot be pickled")


def keyed_mac(key: bytes, label: str, data: bytes) -> bytes:
    """HMAC-SHA256 in which no two (label, data) pairs can be confused."""
    return hmac.new(key, label.encode("ascii") + b"\0" + data, hashlib.sha256).digest()


def load_or_create(folder: Path, env: Mapping[str, str]) -> FleetKey | None:
    """The key from the environment, else from ``<folder>/fleet.key``, which is made at the first start.

    An empty environment variable means to run without a key: None. Two first starts at once get the same key.
    Raises InvalidInput for a key that is too short or a damaged file, OSError where the folder cannot be used.
    """
    given = env.get(KEY_VARIABLE)
    if given == "":
        return None
    if given is not None:
        return _check(given.strip(), f"The fleet key in {KEY_VARIABLE}", f"Use at least {MIN_KEY_CHARS} characters.")
    path = folder / KEY_FILE
    if not path.exists():
        _create(path)
    return _read(path)


def _check(text: str, what: str, cure: str) -> FleetKey:
    if len(text) < MIN_KEY_CHARS:
        raise InvalidInput(f"{what} is shorter than {MIN_KEY_CHARS} characters.", cure=cure)
    if not text.isprintable() or len(text.encode("utf-8", "replace")) > MAX_KEY_BYTES:
        raise InvalidInput(f"{what} holds control characters or is too long.", cure=cure)
    return FleetKey(text.encode("utf-8"))


def _create(path: Path) -> None:
    """Puts a new key at ``path`` unless somebody was quicker."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    text = secrets.token_urlsafe(NEW_KEY_BYTES).encode("ascii")
    try:
        _write_new(draft, text)
        try:
            # A hard link appears whole or not at all, and never replaces a file.
            os.link(draft, path)
        except FileExistsError:
            return
        except OSError:
            # No hard links on this file system; a reader may then see a half-written file for a moment.
            try:
                _write_new(path, text)
            except FileExistsError:
                return
    finally:
        draft.unlink(missing_ok=True)
    log.info("fleet key created", path=path)


def _write_new(path: Path, text: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE_MODE)
    with os.fdopen(fd, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> FleetKey:
    for _ in range(REREAD_TRIES):
        with path.open("rb") as file:
            raw = file.read(MAX_KEY_BYTES + 1)
        if len(raw) >= MIN_KEY_CHARS:
            break
        time.sleep(REREAD_PAUSE_S)
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        log.warning("fleet key was readable by other users; limiting access", path=path)
        with contextlib.suppress(OSError):  # somebody else may own the file
            path.chmod(PRIVATE_FILE_MODE)
    try:
        text = raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise InvalidInput(f"The file {KEY_FILE} is damaged: it holds no text.", cure=_FILE_CURE) from None
    return _check(text, f"The fleet key in the file {KEY_FILE}", _FILE_CURE)
