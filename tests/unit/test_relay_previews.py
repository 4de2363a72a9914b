"""What a worker tells of a running item: pictures within their limits, and the step in words."""

from __future__ import annotations

import base64
import io
import random
from typing import Any

import pytest
from flotilla.host.records import Preview, ProgressSnapshot
from flotilla.relay import pictures
from flotilla.relay.previews import MIN_PREVIEW_S, PreviewSource, step_label
from flotilla.utils.clock import ManualClock
from flotilla.utils.errors import InvalidInput, TooLarge
from PIL import Image

NOISE_PX = 700


def noise(size_px: int = NOISE_PX) -> Image.Image:
    return Image.frombytes("RGB", (size_px, size_px), random.Random(7).randbytes(3 * size_px * size_px))


class Sampler:
    """A host whose running prompt makes pictures when a test says so."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.prompt_id = "p1"
        self.preview: Preview | None = None
        self.source = PreviewSource(self.latest, self.clock)

    def latest(self, prompt_id: str) -> Preview | None:
        return self.preview if prompt_id == self.prompt_id else None

    def draw(self, image: Any, number: int, max_px: int | None = 512) -> None:
        self.preview = Preview("5", image, max_px, number)


async def test_a_picture_becomes_the_fields_of_a_message() -> None:
    sampler = Sampler()
    assert await sampler.source.next("p1") is None
    sampler.draw(Image.new("RGB", (128, 64), "red"), 1)
    fields = await sampler.source.next("p1")
    assert fields is not None
    image = Image.open(io.BytesIO(base64.b64decode(fields.pop("data"))))
    assert image.format == "JPEG"
    assert image.size == (128, 64)
    assert fields == {"node_id": "5", "format": "jpeg", "width": 128, "height": 64}


async def test_the_same_picture_is_sent_once_and_pictures_keep_their_distance() -> None:
    sampler = Sampler()
    sampler.draw(Image.new("RGB", (8, 8)), 1)
    assert await sampler.source.next("p1") is not None
    sampler.clock.advance(10 * MIN_PREVIEW_S)
    assert await sampler.source.next("p1") is None
    sampler.draw(Image.new("RGB", (8, 8)), 2)
    assert await sampler.source.next("p1") is not None
    sampler.draw(Image.new("RGB", (8, 8)), 3)
    sampler.clock.advance(MIN_PREVIEW_S * 0.9)
    assert await sampler.source.next("p1") is None
    sampler.clock.advance(MIN_PREVIEW_S * 0.1)
    assert await sampler.source.next("p1") is not None


async def test_the_next_prompt_begins_anew() -> None:
    sampler = Sampler()
    sampler.draw(Image.new("RGB", (8, 8)), 1)
    assert await sampler.source.next("p1") is not None
    sampler.prompt_id = "p2"
    assert await sampler.source.next("p2") is not None


async def test_something_that_cannot_be_encoded_is_passed_over() -> None:
    sampler = Sampler()
    sampler.draw(Image.new("RGB", (0, 4)), 1)
    assert await sampler.source.next("p1") is None
    sampler.clock.advance(MIN_PREVIEW_S)
    sampler.draw(Image.new("RGB", (4, 4)), 2)
    assert await sampler.source.next("p1") is not None


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16", "1"])
def test_every_mode_of_picture_can_be_encoded(mode: str) -> None:
    assert pictures.encode(Image.new(mode, (20, 10))).width == 20


@pytest.mark.parametrize("max_bytes", [pictures.MAX_JPEG_BYTES, 20_000, 3_000])
def test_the_noisiest_picture_stays_within_its_limit_and_the_original_as_it_was(max_bytes: int) -> None:
    image = noise()
    picture = pictures.encode(image, max_bytes=max_bytes)
    assert len(picture.jpeg) <= max_bytes
    assert picture.width <= pictures.MAX_EDGE_PX
    assert image.size == (NOISE_PX, NOISE_PX)
    assert Image.open(io.BytesIO(picture.jpeg)).size == (picture.width, picture.height)


def test_a_limit_that_nothing_fits_is_an_error() -> None:
    with pytest.raises(TooLarge):
        pictures.encode(noise(), max_bytes=100)


def test_a_picture_smaller_than_shown_is_not_enlarged_for_the_way() -> None:
    assert pictures.encode(Image.new("RGB", (16, 16)), 512).width == 16


def test_a_data_url_keeps_its_limit() -> None:
    assert len(pictures.data_url(noise(), 256, 9_000)) <= 9_000


def as_text(image: Image.Image, kind: str = "JPEG") -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    "data",
    [
        "",
        "%%%",
        "ÿÿÿÿ",
        base64.b64encode(b"\xff\xd8\xff\xe0 no more").decode(),
        as_text(Image.new("RGB", (8, 8)), "PNG"),
        as_text(Image.new("RGB", (pictures.MAX_EDGE_PX + 1, 4))),
        as_text(noise(64))[:400],
    ],
    ids=["empty", "no base64", "no ASCII", "no JPEG", "a PNG", "too large", "cut off"],
)
def test_what_is_no_preview_is_refused(data: str) -> None:
    with pytest.raises(InvalidInput):
        pictures.decode(data)


@pytest.mark.parametrize("label", ["GPU box", "", "x" * 5_000, "two\nlines", "机器", "\ud800"])
@pytest.mark.parametrize("size", [(512, 512), (1, 1), (512, 1), (1, 512)])
def test_any_name_fits_onto_any_picture(label: str, size: tuple[int, int]) -> None:
    shown = Image.open(io.BytesIO(pictures.labelled(Image.new("RGB", size), label)))
    assert shown.width <= pictures.MAX_EDGE_PX
    assert shown.height <= pictures.MAX_EDGE_PX + pictures.STRIP_PX


@pytest.mark.parametrize(
    ("node_id", "value", "maximum", "told"),
    [
        ("3", 12.0, 20.0, "KSampler 12/20"),
        ("4", 0.0, 1.0, "VAEDecode"),
        ("5", 1.0, 2.0, "Redraw 1/2"),
        ("gone", 1.0, 2.0, ""),
        ("", 0.0, 1.0, ""),
    ],
)
def test_the_step_is_told_in_words(node_id: str, value: float, maximum: float, told: str) -> None:
    prompt = {"3": {"class_type": "KSampler"}, "4": {"class_type": "VAEDecode"}, "5": {"class_type": "FlotillaTile"}}
    assert step_label(prompt, ProgressSnapshot(node_id, value, maximum, 1)) == told
