"""The demo's contact sheet: every picture with its item, seed and participant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

TILE_PX = 256
GAP_PX = 18
MARGIN_PX = 40
CAPTION_PX = 58
HEADER_PX = 116
HEADING_PX = 34
FOOTER_PX = 70
CORNER_PX = 10
CHIP_PX = 12
OVERSAMPLING = 4

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


def _mask(width: int, height: int, radius: int) -> Image.Image:
    """A smooth rectangle with round corners, as a mask."""
    scale = OVERSAMPLING
    mask = Image.new("L", (width * scale, height * scale), 0)
    box = (0, 0, width * scale - 1, height * scale - 1)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius=radius * scale, fill=255)
    return mask.resize((width, height), Image.Resampling.LANCZOS)


def _draw_tile(sheet: Image.Image, tile: Tile, left: int, top: int, colour: tuple[int, int, int]) -> None:
    """Draws one picture with its caption; (left, top) is the card's corner."""
    card = (TILE_PX, TILE_PX + CAPTION_PX)
    sheet.paste(PAPER, (left, top, left + card[0], top + card[1]), _mask(*card, CORNER_PX))
    picture = tile.picture.resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
    sheet.paste(picture, (left, top), _mask(TILE_PX, TILE_PX, CORNER_PX))
    text_left, text_top = left + 34, top + TILE_PX + 9
    chip = (left + 14, text_top + 5, left + 14 + CHIP_PX, text_top + 5 + CHIP_PX)
    sheet.paste(colour, chip, _mask(CHIP_PX, CHIP_PX, CHIP_PX // 2))
    draw = ImageDraw.Draw(sheet)
    draw.text((text_left, text_top), tile.participant, font=_font(17), fill=INK)
    draw.text((text_left, text_top + 22), f"item {tile.item}, seed {tile.seed}", font=_font(14), fill=SOFT_INK)
    if not tile.identical:
        draw.text((left + TILE_PX - 14, text_top), "differs", font=_font(16), fill=BAD_INK, anchor="ra")


def contact_sheet(columns: Sequence[tuple[str, Sequence[Tile]]], title: str, note: str) -> Image.Image:
    """Draws one column of tiles per workflow, under its heading.

    Args:
        columns: Heading and tiles of every workflow.
        title: The line under the product's name.
        note: The line at the foot.
    """
    rows = max(len(tiles) for _, tiles in columns)
    width = 2 * MARGIN_PX + len(columns) * (TILE_PX + GAP_PX) - GAP_PX
    height = HEADER_PX + HEADING_PX + rows * (TILE_PX + CAPTION_PX + GAP_PX) - GAP_PX + FOOTER_PX
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    names = sorted({tile.participant for _, tiles in columns for tile in tiles})
    colours = {name: PARTICIPANT_COLOURS[i % len(PARTICIPANT_COLOURS)] for i, name in enumerate(names)}
    draw.text((MARGIN_PX, 26), "Flotilla", font=_font(40), fill=INK)
    draw.text((MARGIN_PX, 78), title, font=_font(18), fill=SOFT_INK)
    for column, (heading, tiles) in enumerate(columns):
        left = MARGIN_PX + column * (TILE_PX + GAP_PX)
        draw.text((left, HEADER_PX + 4), heading, font=_font(18), fill=INK)
        for row, tile in enumerate(tiles):
            top = HEADER_PX + HEADING_PX + row * (TILE_PX + CAPTION_PX + GAP_PX)
            _draw_tile(sheet, tile, left, top, colours[tile.participant])
    draw.text((MARGIN_PX, height - FOOTER_PX + 26), note, font=_font(17), fill=SOFT_INK)
    return sheet


def save(sheet: Image.Image, path: Path) -> None:
    """Writes the sheet as PNG, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part.png")
    sheet.save(partial, optimize=True)
    partial.replace(path)
