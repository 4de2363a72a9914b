"""Procedural sea-scapes: the only training data of the tiny model.

Every picture is drawn from a seed alone (same seed, same arguments: same pixels) in a flat poster style: a sky with sun or
moon, islands, clouds, gulls or stars, a sea in bands with a wavy edge, and one to five sailing boats. Shapes are drawn
three times too large with Pillow and reduced, which is all the anti-aliasing that flat shapes need.

Lengths below are fractions of the picture's short side, so that a scene keeps its look at any size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .conditioning import MAX_BOATS, MIN_BOATS, TIMES

Rgb = tuple[int, int, int]
Point = tuple[float, float]

DEFAULT_SIZE_PX = 128
SUPERSAMPLING = 3

SAIL_COLOURS: tuple[Rgb, ...] = (
    (226, 61, 53),
    (247, 148, 40),
    (250, 205, 60),
    (252, 250, 242),
    (38, 166, 154),
    (232, 92, 142),
)
HULL_COLOURS: tuple[Rgb, ...] = ((122, 58, 40), (36, 54, 92), (246, 240, 226), (150, 32, 44))
MAST_COLOUR: Rgb = (62, 44, 40)


@dataclass(frozen=True)
class Palette:
    """The colours of one time of day; gradients run from top to bottom of their area."""

    sky_top: Rgb
    sky_bottom: Rgb
    sea_far: Rgb
    sea_near: Rgb
    land: Rgb
    light: Rgb
    cloud: Rgb


PALETTES: dict[str, tuple[Palette, ...]] = {
    "day": (
        Palette((62, 156, 226), (198, 232, 246), (74, 172, 206), (18, 92, 150), (104, 158, 158), (255, 236, 140), (255, 255, 255)),
        Palette((92, 190, 214), (246, 240, 206), (86, 186, 188), (16, 108, 132), (120, 168, 136), (255, 226, 120), (255, 253, 244)),
    ),
    "dusk": (
        Palette((86, 62, 132), (255, 158, 92), (226, 122, 96), (66, 40, 96), (118, 66, 110), (255, 222, 130), (246, 140, 124)),
        Palette((200, 72, 92), (255, 204, 120), (240, 150, 100), (104, 36, 72), (146, 62, 84), (255, 244, 190), (255, 172, 128)),
    ),
    "night": (
        Palette((10, 16, 50), (40, 74, 128), (34, 66, 112), (8, 16, 44), (22, 38, 78), (250, 246, 220), (48, 76, 128)),
        Palette((24, 12, 54), (74, 60, 132), (58, 56, 118), (14, 12, 46), (34, 28, 76), (255, 240, 206), (78, 66, 134)),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """What is in a picture: ``boats`` (1 to 5) and ``time`` (one of TIMES)."""

    boats: int
    time: str


def mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    """The colour between ``a`` (share 0) and ``b`` (share 1)."""
    return (
        round(a[0] + (b[0] - a[0]) * share),
        round(a[1] + (b[1] - a[1]) * share),
        round(a[2] + (b[2] - a[2]) * share),
    )


class _Painter:
    """Draws one scene; holds the canvas, the random source and the scene's common measures."""

    def __init__(self, scene: Scene, rng: np.random.Generator, width_px: int, height_px: int) -> None:
        self.scene = scene
        self.rng = rng
        self.width = width_px * SUPERSAMPLING
        self.height = height_px * SUPERSAMPLING
        self.unit = float(min(self.width, self.height))
        choices = PALETTES[scene.time]
        self.palette = choices[int(rng.integers(len(choices)))]
        self.horizon = self.height * self.between(0.50, 0.60)
        self.light_x = self.width * self.between(0.14, 0.86)
        self.image = Image.fromarray(self._backdrop())
        self.draw = ImageDraw.Draw(self.image, "RGBA")

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def _backdrop(self) -> npt.NDArray[np.uint8]:
        """Sky and far sea as two vertical gradients, uint8 [height, width, 3]."""
        rows = np.arange(self.height, dtype=np.float64)
        sky = np.clip(rows / self.horizon, 0, 1)[:, None]
        sea = np.clip((rows - self.horizon) / (self.height - self.horizon), 0, 1)[:, None]
        p = self.palette
        upper = np.asarray(p.sky_top) * (1 - sky) + np.asarray(p.sky_bottom) * sky
        lower = np.asarray(p.sea_far) * (1 - sea) + np.asarray(mix(p.sea_far, p.sea_near, 0.55)) * sea
        column: npt.NDArray[np.float64] = np.where((rows < self.horizon)[:, None], upper, lower)
        return np.repeat(column.round().astype(np.uint8)[:, None, :], self.width, axis=1)

    def disc(self, x: float, y: float, radius: float, fill: tuple[int, ...]) -> None:
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)

    def polygon(self, points: list[Point], fill: tuple[int, ...]) -> None:
        self.draw.polygon(points, fill=fill)

    def stars(self) -> None:
        for _ in range(14):
            radius = self.unit * self.between(0.005, 0.009)
            self.disc(self.width * self.between(0, 1), self.horizon * self.between(0.03, 0.75), radius, (250, 246, 226))

    def sun_or_moon(self) -> None:
        p = self.palette
        low, high = (0.62, 0.98) if self.scene.time == "dusk" else (0.18, 0.50)
        y = self.horizon * self.between(low, high)
        radius = self.unit * (0.115 if self.scene.time == "dusk" else 0.075)
        for ring in (1.9, 1.45):
            self.disc(self.light_x, y, radius * ring, (*p.light, 46))
        self.disc(self.light_x, y, radius, p.light)
        if self.scene.time == "night":
            self.disc(
                self.light_x + radius * 0.45,
                y - radius * 0.2,
                radius * 0.82,
                mix(p.sky_top, p.sky_bottom, y / self.horizon),
            )

    def clouds(self) -> None:
        for _ in range(int(self.rng.integers(1, 4))):
            x, y = self.width * self.between(0.05, 0.95), self.horizon * self.between(0.12, 0.58)
            size = self.unit * self.between(0.07, 0.12)
            fill = (*self.palette.cloud, 225)
            lobes = ((-0.95, 0.55), (-0.1, 0.9), (0.85, 0.62))
            for dx, r in lobes:
                self.draw.pieslice(
                    (x + (dx - r) * size, y - r * size, x + (dx + r) * size, y + r * size), 180, 360, fill=fill
                )

    def islands(self) -> None:
        for depth in (0.45, 0.85):
            if self.rng.random() < 0.2:
                continue
            centre = self.width * self.between(-0.05, 1.05)
            reach = self.unit * self.between(0.28, 0.5)
            peak = self.unit * self.between(0.10, 0.24) * (1.25 - depth * 0.5)
            lean = self.between(-0.35, 0.35)
            points: list[Point] = [(centre - reach, self.horizon)]
            for share, level in (
                (-0.55, 0.42),
                (lean * 0.4 - 0.18, 0.82),
                (lean * 0.4, 1.0),
                (lean * 0.4 + 0.2, 0.7),
                (0.6, 0.36),
            ):
                points.append((centre + share * reach, self.horizon - level * peak))
            points.append((centre + reach, self.horizon))
            self.polygon(points, mix(self.palette.sky_bottom, self.palette.land, depth))

    def glitter(self) -> None:
        """The light's path on the water: bars that widen towards the viewer."""
        step = self.unit * 0.042
        y = self.horizon + step * 0.5
        index = 0
        while y < self.height:
            half = self.unit * (0.05 + 0.016 * index) * (1.0 if index % 2 else 0.62)
            bar = (self.light_x - half, y, self.light_x + half, y + step * 0.42)
            self.draw.rounded_rectangle(bar, radius=step * 0.2, fill=(*self.palette.light, 130))
            y += step
            index += 1

    def wave_band(self, level: float, share: float) -> None:
        """One band of sea from ``level`` (0 horizon, 1 bottom edge) downwards, with a crested upper edge."""
        top = self.horizon + (self.height - self.horizon) * level
        amplitude = self.unit * (0.010 + 0.012 * level)
        length = self.unit * (0.16 + 0.16 * level)
        phase = self.between(0, 2 * math.pi)
        columns = range(0, self.width + SUPERSAMPLING, SUPERSAMPLING)
        edge = [(float(x), top - amplitude * abs(math.sin(math.pi * x / length + phase))) for x in columns]
        colour = mix(self.palette.sea_far, self.palette.sea_near, share)
        self.polygon([*edge, (float(self.width), float(self.height)), (0.0, float(self.height))], (*colour, 215))

    def gulls(self) -> None:
        for _ in range(int(self.rng.integers(0, 4))):
            x, y = self.width * self.between(0.1, 0.9), self.horizon * self.between(0.15, 0.6)
            span = self.unit * self.between(0.03, 0.045)
            line = max(1, round(self.unit * 0.011))
            wing = [
                (x - span, y - span * 0.45),
                (x - span * 0.45, y - span * 0.6),
                (x, y),
                (x + span * 0.45, y - span * 0.6),
                (x + span, y - span * 0.45),
            ]
            self.draw.line(wing, fill=(60, 66, 88), width=line, joint="curve")

    def boat(self, x: float, y: float, scale: float) -> None:
        """One boat whose waterline's middle is at (x, y); at scale 1 it is half as high as the picture's short side."""
        u = self.unit * scale
        side = 1.0 if self.rng.random() < 0.5 else -1.0
        sail = SAIL_COLOURS[int(self.rng.integers(len(SAIL_COLOURS)))]
        jib = sail if self.rng.random() < 0.4 else SAIL_COLOURS[3]
        hull = HULL_COLOURS[int(self.rng.integers(len(HULL_COLOURS)))]
        shade = {"day": 0.0, "dusk": 0.16, "night": 0.30}[self.scene.time]
        sail, jib, hull = (mix(colour, self.palette.sea_near, shade) for colour in (sail, jib, hull))

        def at(dx: float, dy: float) -> Point:
            return (x + side * dx * u, y - dy * u)

        for dx, dy, length in ((0.0, -0.035, 0.19), (0.01, -0.075, 0.14), (0.0, -0.115, 0.08)):
            (left, low), (right, _) = sorted((at(dx - length, dy), at(dx + length, dy)))
            self.draw.rounded_rectangle((left, low, right, low + u * 0.022), radius=u * 0.01, fill=(*sail, 120))
        self.polygon(
            [at(-0.20, 0.085), at(0.25, 0.10), at(0.17, 0.0), at(0.1, -0.012), at(-0.1, -0.012), at(-0.15, 0.0)], hull
        )
        self.polygon(
            [at(-0.20, 0.085), at(0.25, 0.10), at(0.236, 0.078), at(-0.19, 0.062)], mix(hull, (255, 255, 255), 0.45)
        )
        self.draw.line([at(0.02, 0.08), at(0.02, 0.54)], fill=MAST_COLOUR, width=max(1, round(u * 0.016)))
        belly = [at(0.0, 0.53), at(-0.09, 0.40), at(-0.155, 0.27), at(-0.19, 0.135), at(0.0, 0.125)]
        self.polygon(belly, sail)
        self.polygon([at(0.045, 0.47), at(0.115, 0.33), at(0.225, 0.135), at(0.045, 0.15)], jib)

    def fleet(self) -> list[tuple[float, float, float]]:
        """Waterline and scale of every boat, far ones first; the boats share the width evenly, so that they can be counted."""
        count = self.scene.boats
        low, high = {1: (0.95, 1.2), 2: (0.76, 0.95), 3: (0.60, 0.78), 4: (0.48, 0.62), 5: (0.42, 0.54)}[count]
        slot = self.width / count
        near = self.height - self.horizon
        boats = []
        for index in range(count):
            scale = self.between(low, high)
            jitter = self.between(-0.12, 0.12) if count > 1 else self.between(-0.22, 0.22)
            depth = 0.20 + 0.42 * (scale - 0.42) / 0.78 + self.between(-0.04, 0.04) + (0.12 if index % 2 else 0.0)
            boats.append(((index + 0.5 + jitter) * slot, self.horizon + near * depth, scale))
        return sorted(boats, key=lambda placed: placed[1])

    def paint(self) -> Image.Image:
        if self.scene.time == "night":
            self.stars()
        self.sun_or_moon()
        if self.scene.time != "night":
            self.clouds()
        self.islands()
        if self.scene.time == "day":
            self.gulls()
        # The sea's own edge hides whatever of sun and islands reaches below the horizon.
        self.draw.rectangle(
            (0, self.horizon, self.width, self.height), fill=mix(self.palette.sea_far, self.palette.sea_near, 0.08)
        )
        bands = [(0.16, 0.30), (0.42, 0.58), (0.72, 0.95)]
        waiting = self.fleet()
        for level, share in bands:
            self.wave_band(level, share)
        self.glitter()
        for x, y, scale in waiting:
            self.boat(x, y, scale)
        return self.image.reduce(SUPERSAMPLING)


def pick_scene(seed: int) -> Scene:
    """The scene that belongs to ``seed``: every number of boats and every time of day is equally likely."""
    rng = np.random.default_rng((seed, 1))
    return Scene(boats=int(rng.integers(MIN_BOATS, MAX_BOATS + 1)), time=TIMES[int(rng.integers(len(TIMES)))])


def draw_scene(
    seed: int, scene: Scene | None = None, width_px: int = DEFAULT_SIZE_PX, height_px: int = DEFAULT_SIZE_PX
) -> npt.NDArray[np.uint8]:
    """Draws the picture of ``seed`` as uint8 [height_px, width_px, 3]; ``scene`` defaults to :func:`pick_scene`.

    Raises ValueError for a scene that cannot be drawn.
    """
    wanted = scene if scene is not None else pick_scene(seed)
    if not MIN_BOATS <= wanted.boats <= MAX_BOATS or wanted.time not in TIMES:
        raise ValueError(f"cannot draw {wanted}: boats {MIN_BOATS} to {MAX_BOATS}, time one of {TIMES}")
    painter = _Painter(wanted, np.random.default_rng((seed, 2)), width_px, height_px)
    return np.asarray(painter.paint(), dtype=np.uint8)


def contact_sheet(pictures: list[Any], columns: int = 4, gap_px: int = 4) -> Image.Image:
    """Lays equally large uint8 [h, w, 3] pictures out in a grid on white."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + gap_px) + gap_px, rows * (height + gap_px) + gap_px), (255, 255, 255))
    for index, picture in enumerate(pictures):
        x = gap_px + index % columns * (width + gap_px)
        y = gap_px + index // columns * (height + gap_px)
        sheet.paste(Image.fromarray(picture), (x, y))
    return sheet
