"""Proof that two processes see the same files.

One side writes a file of random bytes into its spool and tells its path, and what it hashes to, over the link. The
other reads the path: only if the very bytes are there, it may read blobs from that folder by itself. Addresses are
never compared: containers, tunnels and forwarded ports make them lie.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from ..utils.errors import FlotillaError, InvalidInput
from ..utils.files import write_atomic
from .local_read import open_regular
from .manifest import is_blob_hash
from .store import SUFFIX

NONCE_BYTES = 32
_NONCE_PREFIX = "nonce-"
_MAX_PATH_CHARS = 4096


@dataclass(frozen=True)
class NonceOffer:
    """Where the nonce lies and the BLAKE3 of its bytes in hex."""

    path: str
    digest: str

    def to_wire(self) -> dict[str, str]:
        """The offer as JSON."""
        return {"path": self.path, "digest": self.digest}

    @classmethod
    def from_wire(cls, wire: object) -> NonceOffer:
        """The offer that a peer sent. Raises InvalidInput."""
        entry: Mapping[str, Any] = wire if isinstance(wire, dict) else {}
        path, digest = entry.get("path"), entry.get("digest")
        if not isinstance(path, str) or not 0 < len(path) <= _MAX_PATH_CHARS or "\0" in path:
            raise InvalidInput("The same-host offer has no path.")
        if not is_blob_hash(digest):
            raise InvalidInput("The same-host offer has no digest.")
        return cls(path, str(digest))

    @property
    def folder(self) -> Path:
        """The folder that the offer is about."""
        return Path(self.path).parent


def write_nonce(folder: Path) -> NonceOffer:
    """Writes a fresh nonce into ``folder``, which its owner removes with the folder. Raises OSError."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    path = folder.absolute() / f"{_NONCE_PREFIX}{secrets.token_hex(8)}"
    write_atomic(path, nonce)
    return NonceOffer(str(path), blake3(nonce).hexdigest())


def prove(offer: NonceOffer) -> bool:
    """Whether this process sees the offered nonce. Reads a small regular file that is named like a nonce, or nothing."""
    path = Path(offer.path)
    if not path.is_absolute() or not path.name.startswith(_NONCE_PREFIX):
        return False
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            nonce = file.read(NONCE_BYTES + 1)
    except (FlotillaError, OSError):
        return False
    return len(nonce) == NONCE_BYTES and hmac.compare_digest(blake3(nonce).hexdigest(), offer.digest)


def blob_path(folder: Path, blob_hash: str) -> Path:
    """Where a blob lies in a folder that was proved. Raises InvalidInput for what is no hash."""
    if not is_blob_hash(blob_hash):
        raise InvalidInput("A blob is named by 64 lowercase hex digits.")
    return folder / f"{blob_hash}{SUFFIX}"
