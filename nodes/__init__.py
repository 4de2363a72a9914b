"""Floor 5: the nodes that people put in graphs."""

from __future__ import annotations

from ..host.node_api import io
from . import tiles
from .collector import DistributedCollector, DistributedCollectorAny
from .dividers import AudioBatchDivider, ImageBatchDivider
from .internal import FlotillaDeliver, FlotillaItem, FlotillaOffset, FlotillaPick
from .plain import DistributedEmptyImage, DistributedModelName, DistributedQueue
from .rounds import FlotillaGather, FlotillaHandIn, FlotillaRound, FlotillaTake
from .upscale import DistributedUpscale, FlotillaUpscale, UltimateSDUpscaleDistributed
from .varying import DistributedItem, DistributedPrompts, DistributedSeed, DistributedValue

ALL_NODES: list[type[io.ComfyNode]] = [
    DistributedCollector,
    DistributedCollectorAny,
    UltimateSDUpscaleDistributed,
    DistributedUpscale,
    DistributedSeed,
    DistributedValue,
    DistributedItem,
    DistributedPrompts,
    DistributedModelName,
    DistributedEmptyImage,
    ImageBatchDivider,
    AudioBatchDivider,
    DistributedQueue,
    FlotillaDeliver,
    FlotillaOffset,
    FlotillaPick,
    FlotillaItem,
    FlotillaTake,
    FlotillaHandIn,
    FlotillaGather,
    FlotillaRound,
    FlotillaUpscale,
    *tiles.NODES,
]
