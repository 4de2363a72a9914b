"""The demo's contact sheet: every picture with its item, seed and participant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

TILE_PX = 256
GAP_PX = 20
MARGIN_PX = 40
CAPTION_PX = 58
HEADER_PX = 120
FOOTER_PX = 64
CORNER_PX = 10
CHIP_PX = 12

BACKGROUND = (18, 24, 33)
PAPER = (28, 36, 48)
INK = (236, 240, 244)
SOFT_INK = (146, 160, 176)
BAD_INK = (255, 122, 105)
PARTICIPANT_COLOURS = (
    (255, 196, 92),
    (96, 190, 255),
    (122, 220, 160),
    (240, 130, 170),
    (180, 150, 250),
    (250, 150, 100),
)


@dataclass(frozen=True)
class Tile:
    """One picture of the sheet.

    Attributes:
        picture: RGB, any size.
        item: Index of the item in its job.
        seed: The seed it was made from.
        participant: Name of who made it.
        identical: Whether a single server makes the same pixels.
    """

    picture: Image.Image
    item: int
    seed: int
    participant: str
    identical: bool


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def _rounded(picture: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The picture at tile size, and a mask with round corners."""
    scaled = picture.resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
    mask = Image.new("L", (TILE_PX * 4, TILE_PX * 4), 0)
    box = (0, 0, TILE_PX * 4 - 1, TILE_PX * 4 - 1)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius=CORNER_PX * 4, fill=255)
    return scaled, mask.resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)


def contact_sheet(tiles: Sequence[Tile], columns: int, title: str, note: str) -> Image.Image:
    """Draws the tiles in rows of `columns`, under a title, with a note at the foot."""
    rows = -(-len(tiles) // columns)
    width = 2 * MARGIN_PX + columns * TILE_PX + (columns - 1) * GAP_PX
    height = HEADER_PX + rows * (TILE_PX + CAPTION_PX + GAP_PX) - GAP_PX + FOOTER_PX
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    names = sorted({tile.participant for tile in tiles})
    colours = {name: PARTICIPANT_COLOURS[i % len(PARTICIPANT_COLOURS)] for i, name in enumerate(names)}

    draw.text((MARGIN_PX, 28), "Flotilla", font=_font(40), fill=INK)
    draw.text((MARGIN_PX, 80), title, font=_font(18), fill=SOFT_INK)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left = MARGIN_PX + column * (TILE_PX + GAP_PX)
        top = HEADER_PX + row * (TILE_PX + CAPTION_PX + GAP_PX)
        frame = (left, top, left + TILE_PX, top + TILE_PX + CAPTION_PX)
        draw.rounded_rectangle(frame, radius=CORNER_PX, fill=PAPER)
        picture, mask = _rounded(tile.picture)
        sheet.paste(picture, (left, top), mask)
        text_top = top + TILE_PX + 10
        chip = (left + 14, text_top + 4, left + 14 + CHIP_PX, text_top + 4 + CHIP_PX)
        draw.ellipse(chip, fill=colours[tile.participant])
        draw.text((left + 34, text_top - 1), tile.participant, font=_font(17), fill=INK)
        facts = f"item {tile.item}   seed {tile.seed}"
        draw.text((left + 34, text_top + 21), facts, font=_font(14), fill=SOFT_INK)
        if not tile.identical:
            draw.text((left + TILE_PX - 14, text_top + 1), "differs", font=_font(14), fill=BAD_INK, anchor="ra")
    draw.text((MARGIN_PX, height - FOOTER_PX + 22), note, font=_font(16), fill=SOFT_INK)
    return sheet


def save(sheet: Image.Image, path: Path) -> None:
    """Writes the sheet as PNG, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part.png")
    sheet.save(partial, optimize=True)
    partial.replace(path)
