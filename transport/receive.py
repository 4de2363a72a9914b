"""Bytes of a blob on their way into memory that stands ready, hashed as they come."""

from __future__ import annotations

from collections.abc import Mapping

from blake3 import blake3

from ..utils.errors import InvalidBlob, InvalidInput
from .codec import decode_header
from .limits import DEFAULT_LIMITS, KIB, TransportLimits
from .manifest import BlobManifest

Sink = Mapping[str, memoryview]
"""Where the tensors of a blob go: one writable buffer of exactly ``size_bytes`` per tensor name."""

WINDOW_BYTES = 256 * KIB  # stays in a core's own cache between being filled and being hashed


class Reception:
    """The place that the next bytes of a blob go to.

    Fill the start of `window` (its length says how much is welcome; empty: nothing more is expected), then tell
    `advance` how much it was; in the end `verify`. Belongs to one thread at a time.
    """

    def __init__(self, manifest: BlobManifest, sink: Sink, limits: TransportLimits = DEFAULT_LIMITS) -> None:
        """Raises InvalidBlob if the manifest is over a cap, InvalidInput if the sink does not fit it."""
        if manifest.size_bytes > limits.max_blob_bytes or manifest.header_bytes > limits.max_header_bytes:
            raise InvalidBlob(f"The blob has {manifest.size_bytes} bytes; {limits.max_blob_bytes} are allowed.")
        self._manifest = manifest
        self._limits = limits
        self._header = bytearray(manifest.header_bytes)
        self._parts = [memoryview(self._header)]
        for spec in manifest.tensors:
            buffer = sink[spec.name]
            if buffer.nbytes != spec.size_bytes or (buffer.nbytes and buffer.readonly):
                raise InvalidInput(f"The buffer for {spec.name!r} is not writable or not {spec.size_bytes} bytes.")
            if spec.size_bytes:
                self._parts.append(buffer.cast("B"))
        self.restart()

    @property
    def position(self) -> int:
        """How many bytes have been taken."""
        return self._position

    def restart(self) -> None:
        """Forgets all bytes taken."""
        self._hasher = blake3()
        self._position = 0
        self._part = 0
        self._part_position = 0

    def window(self, max_bytes: int = WINDOW_BYTES) -> memoryview:
        """Where the next bytes go: at most ``max_bytes`` of them."""
        if self._part == len(self._parts):
            return memoryview(b"")
        return self._parts[self._part][self._part_position : self._part_position + max_bytes]

    def advance(self, count: int) -> None:
        """Takes the first ``count`` bytes of the window."""
        part = self._parts[self._part]
        self._hasher.update(part[self._part_position : self._part_position + count])
        self._position += count
        self._part_position += count
        if self._part_position == part.nbytes:
            self._part += 1
            self._part_position = 0

    def verify(self) -> None:
        """Raises InvalidBlob unless the bytes taken are the blob, whole, and its header says what the manifest said."""
        manifest = self._manifest
        if self._position != manifest.size_bytes:
            raise InvalidBlob(f"The blob ended after {self._position} of {manifest.size_bytes} bytes.")
        if self._hasher.hexdigest() != manifest.hash:
            raise InvalidBlob("The blob's bytes do not have the hash that names it.", details={"hash": manifest.hash})
        specs, values = decode_header(bytes(self._header), manifest.size_bytes, self._limits)
        if specs != manifest.tensors or values != manifest.values:
            raise InvalidBlob("The blob's header describes something else than its manifest.")
