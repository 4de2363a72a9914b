"""A blob on its way into the spool: a draft that is filled piece by piece and hashed on the way."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator

from blake3 import blake3

from ..utils.errors import InvalidBlob, SpoolFull
from .codec import decode_header
from .limits import DEFAULT_LIMITS, TransportLimits
from .manifest import LENGTH_BYTES, BlobManifest
from .store import Draft, Store
from .uses import StoredBlob

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM})


class Upload:
    """A blob of known length that is being written, see `Spool.receive`.

    `seal`, `finish` or `abandon` ends it, and so does everything that fails. All of it blocks; for one thread at a time.
    """

    def __init__(
        self,
        draft: Draft,
        size_bytes: int,
        commit: Callable[[BlobManifest], StoredBlob],
        drop: Callable[[], None],
        limits: TransportLimits = DEFAULT_LIMITS,
    ) -> None:
        """``commit`` gives the whole draft its name, ``drop`` gives it up; the last call is one of both."""
        self.size_bytes = size_bytes
        self._draft = draft
        self._commit = commit
        self._drop = drop
        self._limits = limits
        self._hasher = blake3()
        self._position = 0
        self._file: int | None = None
        self._ended = False

    def write(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Takes the next bytes. Raises InvalidBlob for more than were announced, SpoolFull if the file system is full."""
        with self.or_abandoned():
            file = self._open()
            for piece in pieces:
                rest = memoryview(piece)
                self._hasher.update(rest)
                self._position += rest.nbytes
                if self._position > self.size_bytes:
                    raise InvalidBlob(f"More than the announced {self.size_bytes} bytes came.")
                while rest.nbytes:
                    rest = rest[os.write(file, rest) :]

    def finish(self, blob_hash: str) -> StoredBlob:
        """As `seal`, for bytes that nobody has looked at yet. Raises InvalidBlob unless they are whole, have this hash
        and are a blob by their header."""
        return self.seal(lambda found_hash: self._checked(found_hash, blob_hash))

    def seal(self, manifest_of: Callable[[str], BlobManifest]) -> StoredBlob:
        """Puts the blob into the spool and takes one use of it. ``manifest_of`` gets the hash of what was written."""
        with self.or_abandoned():
            os.ftruncate(self._open(), self.size_bytes)
            manifest = manifest_of(self._hasher.hexdigest())
            self._close()
            blob = self._commit(manifest)
        self._ended = True
        return blob

    def abandon(self) -> None:
        """Gives up what came. Does nothing once the upload has ended."""
        if not self._ended:
            self._ended = True
            with contextlib.suppress(OSError):  # the disk has failed; that is known already
                self._close()
            self._drop()

    @contextlib.contextmanager
    def or_abandoned(self) -> Iterator[None]:
        """Abandons the upload if the block fails; that of a full file system becomes SpoolFull."""
        try:
            yield
        except BaseException as error:
            self.abandon()
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise SpoolFull(f"The file system ran full: {error.strerror}.") from error
            raise

    def _checked(self, found_hash: str, blob_hash: str) -> BlobManifest:
        if self._position != self.size_bytes:
            raise InvalidBlob(f"The blob ended after {self._position} of {self.size_bytes} bytes.")
        if found_hash != blob_hash:
            raise InvalidBlob("What came has another hash than its name says.", cure="Send it again.")
        header = self._read_header()
        specs, values = decode_header(header, self.size_bytes, self._limits)
        return BlobManifest(blob_hash, self.size_bytes, len(header), specs, values)

    def _read_header(self) -> bytes:
        file = self._open()
        os.lseek(file, 0, os.SEEK_SET)
        length = os.read(file, LENGTH_BYTES)
        header_bytes = LENGTH_BYTES + int.from_bytes(length, "little")
        if header_bytes > min(self._limits.max_header_bytes, self.size_bytes):
            raise InvalidBlob("The blob's header is longer than the blob, or over the cap.")
        header = bytearray(length)
        while len(header) < header_bytes and (piece := os.read(file, header_bytes - len(header))):
            header += piece
        return bytes(header)

    def _open(self) -> int:
        if self._ended:
            raise ValueError("the upload has ended")
        if self._file is None:
            self._file = Store.open_draft(self._draft)
        return self._file

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
