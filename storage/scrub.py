"""What of a prompt's extra data may be written down: what queueing it again needs, and no credentials."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

KEPT = ("extra_pnginfo", "preview_method")
"""The workflow that goes into saved files, and the user's choice of previews. Everything else of the host's extra data is
of the moment (client id, creation time) or secret (tokens and keys of paid nodes)."""

_SECRET_NAME = re.compile(
    r"token|secret|password|passwd|credential|authorization|cookie|api_?key|auth_key", re.IGNORECASE
)


def scrub(extra_data: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of what a re-queue needs. What lies in the workflow itself stays as its author wrote it.

    Entries beside the workflow whose names speak of a secret are dropped, and so is what is not JSON.
    """
    kept = {name: extra_data[name] for name in KEPT if name in extra_data}
    info = kept.get("extra_pnginfo")
    if isinstance(info, Mapping):
        kept["extra_pnginfo"] = {name: value for name, value in info.items() if not _SECRET_NAME.search(str(name))}
    return {name: value for name, value in kept.items() if _is_json(value)}


def _is_json(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
