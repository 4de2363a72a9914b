"""Small pictures: previews on their way from a worker to the screen of the person who waits for them.

Everything here takes milliseconds of computing and belongs into a thread.
"""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..utils.errors import InvalidInput, TooLarge

MAX_EDGE_PX = 512
"""Longest edge of a preview that travels, and of one that is shown."""

MAX_JPEG_BYTES = 96 * 1024
"""Largest preview that travels; as base64 text it is a third more."""

QUALITIES = (80, 60, 40)
SMALLEST_EDGE_PX = 32
SHOWN_QUALITY = 85

# Nodes show previews at a third of this size or less.
STRIP_PX = 52
STRIP_MARGIN_PX = 12
FONT_PX = 36
STRIP_COLOUR = (0, 0, 0)
TEXT_COLOUR = (255, 255, 255)
ELLIPSIS = "…"
MAX_LABEL_CHARS = 200
"""More do not fit into the strip, whatever they are."""


@dataclass(frozen=True)
class Picture:
    """A JPEG with its size in pixels."""

    jpeg: bytes
    width: int
    height: int


def encode(image: Image.Image, max_px: int = MAX_EDGE_PX, max_bytes: int = MAX_JPEG_BYTES) -> Picture:
    """``image`` as a JPEG no larger than both limits; coarser, then smaller, where it must be. Never enlarged.

    Raises TooLarge when even a tiny one does not fit.
    """
    image = image.convert("RGB")
    edge_px = min(max_px, max(image.size))
    while True:
        image.thumbnail((edge_px, edge_px), Image.Resampling.BILINEAR)
        for quality in QUALITIES:
            jpeg = _jpeg(image, quality)
            if len(jpeg) <= max_bytes:
                return Picture(jpeg, *image.size)
        edge_px //= 2
        if edge_px < SMALLEST_EDGE_PX:
            raise TooLarge("The preview does not fit into its limit.")


def decode(data: str) -> Image.Image:
    """The picture in a message of the link: a JPEG as base64 text. Raises InvalidInput for anything else."""
    try:
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=("JPEG",))
        if max(image.size) > MAX_EDGE_PX:
            raise InvalidInput("A preview has more pixels than a preview may have.")
        return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, binascii.Error, Image.DecompressionBombError):
        raise InvalidInput("A preview is not a JPEG.") from None


def labelled(image: Image.Image, label: str) -> bytes:
    """``image`` enlarged or reduced to `MAX_EDGE_PX`, with ``label`` on a strip below it, as a JPEG."""
    shown = ImageOps.contain(image, (MAX_EDGE_PX, MAX_EDGE_PX), Image.Resampling.BILINEAR)
    sheet = Image.new("RGB", (shown.width, shown.height + STRIP_PX), STRIP_COLOUR)
    sheet.paste(shown, (0, 0))
    font = ImageFont.load_default(FONT_PX)
    text = _cut(label, font, shown.width - 2 * STRIP_MARGIN_PX)
    middle_px = shown.height + STRIP_PX // 2
    ImageDraw.Draw(sheet).text((STRIP_MARGIN_PX, middle_px), text, fill=TEXT_COLOUR, font=font, anchor="lm")
    return _jpeg(sheet, SHOWN_QUALITY)


def data_url(image: Image.Image, max_px: int, max_chars: int) -> str:
    """``image`` as the address of itself, no longer than ``max_chars``. Raises TooLarge."""
    head = "data:image/jpeg;base64,"
    picture = encode(image, max_px, (max_chars - len(head)) // 4 * 3)
    return head + base64.b64encode(picture.jpeg).decode("ascii")


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    """The longest beginning of ``text`` that fits, in one line."""
    text = " ".join(text[:MAX_LABEL_CHARS].split())
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + ELLIPSIS) > width_px:
        text = text[:-1]
    return text + ELLIPSIS
