"""The upscale once more, as plainly as it can be written: whole canvases, whole masks, one tile after the other.

Written from the facts about the reference and Pillow alone; it imports nothing of the pack. It is slow and wasteful on
purpose, so that everything in ``upscale/`` that is clever can be compared with it bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

LANCZOS, BICUBIC = Image.Resampling.LANCZOS, Image.Resampling.BICUBIC

Sample = Callable[[np.ndarray, str], np.ndarray]
"""uint8 ``[n, h, w, 3]`` and the name of the stage to float ``[n, h, w, 3]``."""


@dataclass(frozen=True)
class Wishes:
    """What the node's inputs say."""

    tile: tuple[int, int]
    padding: int = 32
    mask_blur: int = 8
    uniform: bool = True
    mode: str = "linear"
    tile_batch: int = 1
    seam_mode: str = "None"
    seam_width: int = 64
    seam_blur: int = 8
    seam_padding: int = 16


@dataclass
class Step:
    """One tile: its unblurred mask on the whole canvas, and how it is processed."""

    mask: Image.Image
    blur: int
    padding: int
    size: tuple[int, int]


def quantised(image: np.ndarray) -> list[Image.Image]:
    """Facts 1: a float batch as 8-bit pictures."""
    clean = np.where(np.isnan(image), np.float32(0), image).astype(np.float32)
    return [Image.fromarray((clean[k] * np.float32(255)).astype(np.uint8)) for k in range(len(clean))]


def rounded(value: float) -> int:
    return round(value / 8) * 8


def upscale(image: np.ndarray, wishes: Wishes, sample: Sample, scale: float = 1.0) -> np.ndarray:
    """The whole node: float ``[n, h, w, 3]`` in, float32 ``[n, H, W, 3]`` out."""
    pictures = quantised(image)
    size = rounded(pictures[0].width * scale), rounded(pictures[0].height * scale)
    pictures = [p if p.size == size else p.resize(size, LANCZOS) for p in pictures]
    source = list(pictures)
    from_source = wishes.mode == "independent"
    for group in redraw_groups(size, wishes):
        process(pictures, source if from_source else pictures, group, "redraw", wishes.uniform, sample)
    for stage, step in seam_steps(size, wishes):
        process(pictures, pictures, [step], stage, wishes.uniform, sample)
    return np.stack([np.array(p).astype(np.float32) / 255.0 for p in pictures])


def process(
    pictures: list[Image.Image],
    source: list[Image.Image],
    group: list[Step],
    stage: str,
    uniform: bool,
    sample: Sample,
) -> None:
    """Facts 5 to 11 and 14: all crops of the group are cut before any of them is pasted."""
    regions = [crop_of(step, source[0].size, uniform) for step in group]
    tiles = []
    for picture in source:
        for crop, size in regions:
            part = picture.crop(crop)
            tiles.append(np.array(part if part.size == size else part.resize(size, LANCZOS)))
    redrawn = quantised(sample(np.stack(tiles), stage))
    for number, result in enumerate(redrawn):
        frame, place = divmod(number, len(group))
        crop = regions[place][0]
        step = group[place]
        mask = step.mask.filter(ImageFilter.GaussianBlur(step.blur)) if step.blur > 0 else step.mask
        pictures[frame] = pasted(pictures[frame], result, crop, mask)


def pasted(picture: Image.Image, tile: Image.Image, crop: tuple[int, int, int, int], mask: Image.Image) -> Image.Image:
    """Fact 11, on whole canvases."""
    size = crop[2] - crop[0], crop[3] - crop[1]
    overlay = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    overlay.paste(tile if tile.size == size else tile.resize(size, LANCZOS), crop[:2])
    inside = Image.new("L", picture.size, 0)
    inside.paste(mask.crop(crop), crop[:2])
    overlay.putalpha(inside)
    return Image.alpha_composite(picture.convert("RGBA"), overlay).convert("RGB")


def crop_of(step: Step, canvas: tuple[int, int], uniform: bool) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """Facts 5 and 6: the crop, and the size at which it is processed."""
    bounds = step.mask.getbbox()
    assert bounds is not None
    sides = []
    for axis in (0, 1):
        low = max(bounds[axis] - step.padding, 0)
        high = min(bounds[axis + 2] + step.padding, canvas[axis])
        sides.append([low, high - 1 if high < canvas[axis] else high])
    width, height = (high - low for low, high in sides)
    if not uniform:
        target = math.ceil(width / 8) * 8, math.ceil(height / 8) * 8
        size = target
    else:
        size = step.size
        ratio = size[0] / size[1]
        target = (width, round(width / ratio)) if width / height > ratio else (round(height * ratio), height)
    for axis in (0, 1):
        side = sides[axis]
        side[1] = min(side[1] + (target[axis] - (side[1] - side[0])) // 2, canvas[axis])
        side[0] = max(side[0] - (target[axis] - (side[1] - side[0])), 0)
        side[1] = min(side[1] + (target[axis] - (side[1] - side[0])), canvas[axis])
    return (sides[0][0], sides[1][0], sides[0][1], sides[1][1]), size


def grid(canvas: tuple[int, int], tile: tuple[int, int]) -> tuple[int, int]:
    return math.ceil(canvas[0] / tile[0]), math.ceil(canvas[1] / tile[1])


def redraw_groups(canvas: tuple[int, int], wishes: Wishes) -> Iterator[list[Step]]:
    """Facts 3, 4, 12 and 14."""
    tw, th = wishes.tile
    columns, rows = grid(canvas, wishes.tile)
    everything = [(xi, yi) for yi in range(rows) for xi in range(columns)]
    if wishes.mode == "none":
        colours = []
    elif wishes.mode == "chess":
        colours = [[t for t in everything if sum(t) % 2 == colour] for colour in (0, 1)]
    elif wishes.mode == "mosaic":
        parities = [(0, 0), (1, 1), (1, 0), (0, 1)]
        colours = [[t for t in everything if (t[0] % 2, t[1] % 2) == parity] for parity in parities]
    else:
        colours = [everything]
    count = wishes.tile_batch if wishes.uniform else 1
    for colour in colours:
        for start in range(0, len(colour), count):
            group = []
            for xi, yi in colour[start : start + count]:
                mask = Image.new("L", canvas, 0)
                corner = xi * tw, yi * th
                ImageDraw.Draw(mask).rectangle((*corner, corner[0] + tw, corner[1] + th), fill=255)
                size = rounded(tw + wishes.padding), rounded(th + wishes.padding)
                group.append(Step(mask, wishes.mask_blur, wishes.padding, size))
            yield group


def seam_steps(canvas: tuple[int, int], wishes: Wishes) -> Iterator[tuple[str, Step]]:
    """Fact 13."""
    if wishes.seam_mode == "Band Pass":
        for mask, size in bands(canvas, wishes):
            own = wishes.mode in ("mosaic", "independent")  # not of the reference: all sides are multiples of 8
            fitted = (max(rounded(size[0]), 8), max(rounded(size[1]), 8)) if own else size
            yield "band", Step(mask, 0, wishes.seam_padding, fitted)
    elif wishes.seam_mode != "None":
        for mask in half_tiles(canvas, wishes):
            yield "half tile", Step(mask, wishes.seam_blur, wishes.seam_padding, wishes.tile)
    if wishes.seam_mode == "Half Tile + Intersections":
        for mask in intersections(canvas, wishes):
            yield "intersection", Step(mask, wishes.seam_blur, 0, wishes.tile)


def bands(canvas: tuple[int, int], wishes: Wishes) -> Iterator[tuple[Image.Image, tuple[int, int]]]:
    """Black, white, black across each seam: first the upright ones, then the others."""
    columns, rows = grid(canvas, wishes.tile)
    across = wishes.seam_width + 2 * wishes.seam_padding
    rise = Image.linear_gradient("L")
    picture = Image.new("L", (256, 256))
    picture.paste(rise.resize((256, 128), BICUBIC), (0, 0))
    picture.paste(rise.rotate(180).resize((256, 128), BICUBIC), (0, 128))
    upright = picture.rotate(90).resize((wishes.seam_width, canvas[1]), BICUBIC)
    level = picture.resize((canvas[0], wishes.seam_width), BICUBIC)
    for i in range(1, columns):
        corner = i * wishes.tile[0] - wishes.seam_width // 2, 0
        yield on_canvas(upright, corner, canvas), (across, canvas[1])
    for i in range(1, rows):
        corner = 0, i * wishes.tile[1] - wishes.seam_width // 2
        yield on_canvas(level, corner, canvas), (canvas[0], across)


def half_tiles(canvas: tuple[int, int], wishes: Wishes) -> Iterator[Image.Image]:
    """Tile-sized masks over the seams between rows, then over those between columns; each rises and falls across it."""
    tw, th = wishes.tile
    columns, rows = grid(canvas, wishes.tile)
    rise = Image.linear_gradient("L")
    level = Image.new("L", (tw, th), 0)
    level.paste(rise.resize((tw, th // 2), BICUBIC), (0, 0))
    level.paste(rise.rotate(180).resize((tw, th // 2), BICUBIC), (0, th // 2))
    upright = Image.new("L", (tw, th), 0)
    upright.paste(rise.rotate(90).resize((tw // 2, th), BICUBIC), (0, 0))
    upright.paste(rise.rotate(270).resize((tw // 2, th), BICUBIC), (tw // 2, 0))
    for yi in range(rows - 1):
        for xi in range(columns):
            yield on_canvas(level, (xi * tw, yi * th + th // 2), canvas)
    for yi in range(rows):
        for xi in range(columns - 1):
            yield on_canvas(upright, (xi * tw + tw // 2, yi * th), canvas)


def intersections(canvas: tuple[int, int], wishes: Wishes) -> Iterator[Image.Image]:
    """Bright in the middle, over each point where four tiles meet."""
    tw, th = wishes.tile
    columns, rows = grid(canvas, wishes.tile)
    spot = ImageOps.invert(Image.radial_gradient("L").resize((tw, th), BICUBIC))
    for yi in range(rows - 1):
        for xi in range(columns - 1):
            yield on_canvas(spot, (xi * tw + tw // 2, yi * th + th // 2), canvas)


def on_canvas(picture: Image.Image, corner: tuple[int, int], canvas: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", canvas, 0)
    mask.paste(picture, corner)
    return mask
