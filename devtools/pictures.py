"""The crops of docs/upscale.md: `python -m devtools.pictures`, with the Python of `.venv`, makes them again.

One server draws a small picture with the tiny model, enlarges it plainly and redraws it in every mode with the real node. How
many servers take part makes no difference to the pixels.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from . import demo
from .demo_client import Client, Prompt
from .demo_sheet import BACKGROUND, INK, SOFT_INK
from .env import say
from .fleet import Fleet
from .paths import ROOT

PATH = ROOT / "docs" / "images" / "upscale-modes.png"
PROMPT_TIMEOUT_S = 300.0

SCENE = demo.Scene(2, "day", 4_000)

SIDE_PX = 3 * demo.SIZE_PX
"""Of the enlarged picture, which has three by three tiles."""
REDRAW = {
    "seed": 7,
    "steps": 12,
    "cfg": 1.0,
    "sampler_name": "euler",
    "scheduler": "simple",
    "denoise": 0.75,
    "tile_width": demo.SIZE_PX,
    "tile_height": demo.SIZE_PX,
    "padding": 32,
    "mask_blur": 4,
    "force_uniform_tiles": True,
    "tiled_decode": False,
}
CORNER_PX = (0, 0, SIDE_PX, demo.SIZE_PX)
"""What is shown of every picture: its upper row of tiles."""

PLAIN = "enlarged, not redrawn"
SHOWN = (
    ("linear", "linear: every tile sees the finished ones beside it"),
    ("chess", "chess: every second tile sees four finished ones"),
    ("mosaic", "mosaic (default): three of four tiles see finished ones"),
    ("independent", "independent: every tile sees the source only"),
)

ENLARGED = 2
MARGIN_PX, GAP_PX, CAPTION_PX = 16, 14, 30
FONT_PX = 17


def workflow(mode: str | None) -> Prompt:
    """A picture that is drawn, enlarged and redrawn in a mode; None: not redrawn."""
    prompt = demo.workflow(SCENE, distributed=False)
    scale = {"upscale_method": "lanczos", "width": SIDE_PX, "height": SIDE_PX, "crop": "disabled"}
    prompt["scale"] = {"class_type": "ImageScale", "inputs": {"image": ["decode", 0], **scale}}
    prompt[demo.SAVER]["inputs"]["images"] = ["scale", 0]
    if mode is not None:
        prompt["redraw"] = {
            "class_type": "UltimateSDUpscaleDistributed",
            "inputs": {
                "upscaled_image": ["scale", 0],
                "model": ["model", 0],
                "positive": ["wish", 0],
                "negative": ["none", 0],
                "vae": ["vae", 0],
                **REDRAW,
                "mode": mode,
            },
        }
        prompt[demo.SAVER]["inputs"]["images"] = ["redraw", 0]
    return prompt


async def _made(url: str, modes: Sequence[str | None]) -> list[Image.Image]:
    found = []
    async with Client(url) as client:
        for mode in modes:
            say(f"  {mode or PLAIN} ...")
            prompt_id = await client.queue(workflow(mode))
            await client.finished(prompt_id, PROMPT_TIMEOUT_S)
            found.append((await client.pictures(prompt_id))[0])
    return found


def crops(pictures: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """The same corner of pictures, below each other, each with its caption."""
    width = (CORNER_PX[2] - CORNER_PX[0]) * ENLARGED
    height = (CORNER_PX[3] - CORNER_PX[1]) * ENLARGED
    step = CAPTION_PX + height + GAP_PX
    sheet = Image.new("RGB", (width + 2 * MARGIN_PX, len(pictures) * step + MARGIN_PX), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_PX)
    for place, (caption, picture) in enumerate(pictures):
        top = place * step + GAP_PX
        name, _, rest = caption.partition(":")
        draw.text((MARGIN_PX, top), name, font=font, fill=INK)
        draw.text((MARGIN_PX + draw.textlength(name, font=font), top), rest and f":{rest}", font=font, fill=SOFT_INK)
        corner = picture.crop(CORNER_PX).resize((width, height), Image.Resampling.BICUBIC)
        sheet.paste(corner, (MARGIN_PX, top + CAPTION_PX))
    return sheet


def main() -> int:
    """Starts one server, makes all pictures, and saves the sheet."""
    with Fleet(workers=0, extra_nodes=[demo.KIT_NODES]) as fleet:
        plain, *redrawn = asyncio.run(_made(fleet.master.url, [None, *(mode for mode, _ in SHOWN)]))
    captions = [caption for _, caption in SHOWN]
    PATH.parent.mkdir(parents=True, exist_ok=True)
    crops([(PLAIN, plain), *zip(captions, redrawn, strict=True)]).save(PATH, optimize=True)
    say(f"Saved: {PATH}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
