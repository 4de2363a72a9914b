"""Which nodes the kit offers on this instance."""

from __future__ import annotations

import os

from comfy_api.latest import ComfyExtension, io

from . import link_probe, models, queue_probe, screen_probe
from .makers import KitAudio, KitCombo, KitConditioning, KitImage, KitLatent, KitMask
from .passers import KitCount, KitFail, KitRare, KitSlow, KitStall, KitSteps
from .recorders import KitHash, KitHashList, KitSave

RARE_VARIABLE = "FLOTILLA_KIT_RARE"

_ALWAYS: tuple[type[io.ComfyNode], ...] = (
    KitImage,
    KitMask,
    KitLatent,
    KitAudio,
    KitConditioning,
    KitCombo,
    KitSlow,
    KitSteps,
    KitFail,
    KitStall,
    KitCount,
    KitHash,
    KitHashList,
    KitSave,
    *models.NODES,
)


class KitExtension(ComfyExtension):
    """The kit as ComfyUI sees it."""

    async def on_load(self) -> None:
        link_probe.register()
        queue_probe.register()
        screen_probe.register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        nodes = list(_ALWAYS)
        if os.environ.get(RARE_VARIABLE) == "1":
            nodes.append(KitRare)
        return nodes
