"""Whether two processes see the same files is proved, never guessed; and a proof opens nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from flotilla.transport.samehost import NonceOffer, blob_path, prove, write_nonce
from flotilla.utils.errors import InvalidInput


def test_a_nonce_that_is_seen_proves_it(tmp_path: Path) -> None:
    offer = NonceOffer.from_wire(write_nonce(tmp_path).to_wire())
    assert prove(offer)
    assert offer.folder == tmp_path


def test_nonces_differ(tmp_path: Path) -> None:
    assert write_nonce(tmp_path).digest != write_nonce(tmp_path).digest


def test_other_content_proves_nothing(tmp_path: Path) -> None:
    offer = write_nonce(tmp_path)
    Path(offer.path).write_bytes(bytes(32))
    assert not prove(offer)
    Path(offer.path).unlink()
    assert not prove(offer)


def test_only_files_like_a_nonce_are_read(tmp_path: Path) -> None:
    def offer_of(path: Path, content: bytes) -> NonceOffer:
        path.write_bytes(content)
        return NonceOffer(str(path), blake3(content).hexdigest())

    assert prove(offer_of(tmp_path / "nonce-good", bytes(32)))
    assert not prove(offer_of(tmp_path / "other", bytes(32)))
    assert not prove(offer_of(tmp_path / "nonce-long", bytes(33)))
    assert not prove(offer_of(tmp_path / "nonce-short", b""))
    assert not prove(NonceOffer("nonce-relative", "0" * 64))
    assert not prove(NonceOffer(str(tmp_path), "0" * 64))


@pytest.mark.skipif(os.name != "posix", reason="links and pipes as POSIX has them")
def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    offer = write_nonce(tmp_path)
    (tmp_path / "nonce-link").symlink_to(offer.path)
    assert not prove(NonceOffer(str(tmp_path / "nonce-link"), offer.digest))
    os.mkfifo(tmp_path / "nonce-pipe")
    assert not prove(NonceOffer(str(tmp_path / "nonce-pipe"), offer.digest))


@pytest.mark.parametrize(
    "wire",
    [
        None,
        [],
        {},
        {"path": "/x", "digest": "no"},
        {"path": 5, "digest": "0" * 64},
        {"path": "/a\0b", "digest": "0" * 64},
        {"path": "/" + "x" * 5000, "digest": "0" * 64},
        {"path": "", "digest": "0" * 64},
    ],
)
def test_hostile_offers(wire: Any) -> None:
    with pytest.raises(InvalidInput):
        NonceOffer.from_wire(wire)


def test_blob_paths_stay_in_the_folder(tmp_path: Path) -> None:
    assert blob_path(tmp_path, "a" * 64) == tmp_path / f"{'a' * 64}.safetensors"
    for name in ("../x", "A" * 64, "", "a" * 63, "a" * 64 + "\n"):
        with pytest.raises(InvalidInput):
            blob_path(tmp_path, name)
