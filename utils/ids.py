"""Names for things."""

from __future__ import annotations

import uuid


def new_id() -> str:
    """A fresh canonical lowercase UUID, the only form that the host accepts as a prompt id."""
    return str(uuid.uuid4())


def is_prompt_id(text: object) -> bool:
    """Whether ``text`` is a UUID in the canonical lowercase form."""
    if not isinstance(text, str):
        return False
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
