"""Kit: small ComfyUI nodes that make, slow down, break, count and record things, for tests of Flotilla.

A custom-node pack of its own, put beside Flotilla in development fleets only (``dev.py fleet --extra-nodes
tests/kit_nodes``). Importing this package imports nothing of the host, so that unit tests can use its pure modules.

Environment of an instance:
    FLOTILLA_KIT_NAME       what the instance is called in ``only_worker`` and ``speeds``
    FLOTILLA_KIT_CHOICES    the names that KitCombo offers, separated by commas (default "a,b")
    FLOTILLA_KIT_RARE       "1" adds the node KitRare, which other instances then lack
"""

from __future__ import annotations

from typing import Any


async def comfy_entrypoint() -> Any:
    """The host's way in: the extension that lists the nodes."""
    from .extension import KitExtension

    return KitExtension()
