"""Blobs that come from elsewhere: whole, checked and named, or not there at all."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from blake3 import blake3
from fakes.spools import MakeSpool, files_in, picture, spools_in
from flotilla.transport.codec import plan_blob
from flotilla.transport.limits import KIB, MIB, TransportLimits
from flotilla.transport.loose import read_values
from flotilla.transport.spool import Spool
from flotilla.transport.store import Store
from flotilla.utils.errors import Conflict, InvalidBlob, NotFound, SpoolFull, TooLarge

ALMOST = 8 * MIB - 64 * KIB


@pytest.fixture
def make_spool(tmp_path: Path) -> Iterator[MakeSpool]:
    with spools_in(tmp_path) as make:
        yield make


def blob_bytes(seed: int = 1, size_bytes: int = MIB) -> tuple[bytes, str]:
    """The bytes of a blob as another machine would send them, and their hash."""
    data = b"".join(plan_blob(picture(seed, size_bytes)).chunks())
    return data, blake3(data).hexdigest()


def assert_empty(spool: Spool) -> None:
    assert files_in(*spool.folders) == []
    usage = spool.usage()
    assert (usage.blobs, usage.memory_bytes, usage.disk_bytes) == (0, 0, 0)


def test_a_blob_that_came_in_pieces_is_like_one_that_was_written(make_spool: MakeSpool) -> None:
    spool = make_spool()
    data, blob_hash = blob_bytes()
    upload = spool.receive(len(data))
    upload.write([data[:7], data[7:5_000]])
    upload.write([data[5_000:]])
    stored = upload.finish(blob_hash)
    upload.abandon()  # it has ended: nothing happens
    assert stored.manifest == spool.write(picture(1)).manifest
    assert spool.open(blob_hash).read_bytes() == data
    values = read_values(stored.path, stored.manifest)
    assert torch.equal(values["images"].data, picture(1)["images"].data)
    assert spool.release(blob_hash)
    assert spool.open(blob_hash).exists(), "two have a use for it"
    assert spool.release(blob_hash)
    assert spool.usage().blobs == 0


def test_a_recycled_file_shows_no_old_bytes(make_spool: MakeSpool) -> None:
    spool = make_spool()
    spool.release(spool.write(picture(1, 2 * MIB)).manifest.hash)
    assert spool.usage().recycled_bytes > MIB
    data, blob_hash = blob_bytes(2)
    upload = spool.receive(len(data))
    upload.write([data])
    assert upload.finish(blob_hash).path.read_bytes() == data


def test_two_at_once_are_one_file_with_two_uses(make_spool: MakeSpool) -> None:
    spool = make_spool()
    data, blob_hash = blob_bytes()
    uploads = [spool.receive(len(data)) for _ in range(2)]
    for upload in uploads:
        upload.write([data])
    for upload in uploads:
        upload.finish(blob_hash)
    assert files_in(*spool.folders) == [f"{blob_hash}.safetensors"]
    assert spool.usage().memory_bytes == len(data)
    assert [spool.release(blob_hash) for _ in range(3)] == [True, True, False]


def test_what_is_not_the_blob_leaves_nothing(make_spool: MakeSpool) -> None:
    spool = make_spool(recycle_cap_bytes=0)
    data, blob_hash = blob_bytes()
    wrong = bytearray(data)
    wrong[-1] ^= 1
    for sent, name in ((data[:-1], blob_hash), (b"", blob_hash), (bytes(wrong), blob_hash), (data, "0" * 64)):
        upload = spool.receive(len(data))
        upload.write([sent])
        with pytest.raises(InvalidBlob):
            upload.finish(name)
        assert_empty(spool)
    upload = spool.receive(len(data))
    with pytest.raises(InvalidBlob, match="More than the announced"):
        upload.write([data, b"x"])
    assert_empty(spool)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x01", b"\xff" * 8, b"\x02" + b"\x00" * 7 + b"{}", b"\xff" * 100, (1 << 40).to_bytes(8, "little") + b"{}"],
)
def test_what_is_no_blob_by_its_header_is_refused(make_spool: MakeSpool, data: bytes) -> None:
    spool = make_spool()
    upload = spool.receive(len(data))
    upload.write([data])
    with pytest.raises(InvalidBlob):
        upload.finish(blake3(data).hexdigest())
    assert_empty(spool)


def test_an_upload_that_was_abandoned_takes_nothing_more(make_spool: MakeSpool) -> None:
    spool = make_spool()
    upload = spool.receive(100)
    upload.write([b"abc"])
    upload.abandon()
    assert_empty(spool)
    with pytest.raises(ValueError, match="ended"):
        upload.write([b"abc"])
    with pytest.raises(ValueError, match="ended"):
        upload.finish("0" * 64)
    assert_empty(spool)


def test_caps_hold_for_what_is_announced(make_spool: MakeSpool) -> None:
    spool = make_spool(limits=TransportLimits(max_blob_bytes=9 * MIB))
    with pytest.raises(TooLarge):
        spool.receive(9 * MIB + 1)
    with pytest.raises(SpoolFull):
        spool.receive(9 * MIB)
    first, second = spool.receive(ALMOST), spool.receive(ALMOST)  # memory, then disk
    with pytest.raises(SpoolFull):
        spool.receive(ALMOST)
    for upload in (first, second):
        upload.abandon()
    spool.receive(ALMOST).abandon()
    assert_empty(spool)


def test_what_is_loose_makes_room_for_an_input(make_spool: MakeSpool) -> None:
    spool = make_spool(disk_cap_bytes=0)
    loose = spool.write(picture(1, 5 * MIB), note={"kind": "item"})
    with pytest.raises(SpoolFull):
        spool.receive(5 * MIB)
    spool.loosen(loose.manifest.hash, loose.use)
    spool.receive(5 * MIB).abandon()
    with pytest.raises(NotFound):
        spool.get(loose.manifest.hash)


def test_a_full_file_system_is_told_as_such(make_spool: MakeSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = make_spool()
    upload = spool.receive(100)

    def full(draft: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Store, "open_draft", staticmethod(full))
    with pytest.raises(SpoolFull, match="No space left"):
        upload.write([b"abc"])
    assert_empty(spool)


def test_closing_while_a_blob_comes(make_spool: MakeSpool) -> None:
    spool = make_spool()
    data, blob_hash = blob_bytes()
    upload = spool.receive(len(data))
    upload.write([data])
    spool.close()
    with pytest.raises(Conflict, match="closed"):
        upload.finish(blob_hash)
    with pytest.raises(Conflict, match="closed"):
        spool.receive(10)


def test_a_use_may_be_taken_of_what_is_here(make_spool: MakeSpool) -> None:
    spool = make_spool()
    blob = spool.write(picture(1), note={"kind": "item"})
    taken = spool.take(blob.manifest.hash)
    assert (taken.path, taken.use) == (blob.path, "")
    spool.release(blob.manifest.hash, blob.use)
    assert spool.holds(taken)
    spool.release(blob.manifest.hash)
    with pytest.raises(NotFound):
        spool.take(blob.manifest.hash)
