"""Loggers by fixed name.

The host loads this package under its absolute path with the dots replaced, so ``__name__`` is no logger name.
Messages are constant, so they take no positional arguments; facts travel as keyword arguments and are appended as
``key=value``. A fact may come from another machine: it never starts a line of its own in the log.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

ROOT = "flotilla"

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter  # Python 3.10 cannot subscript it


class _FactsAdapter(_Adapter):
    """Turns unknown keyword arguments of a log call into ``key=value`` behind the message."""

    _OWN = frozenset({"exc_info", "stack_info", "stacklevel", "extra"})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        facts = {key: kwargs.pop(key) for key in [key for key in kwargs if key not in self._OWN]}
        if not facts:
            return f"[Flotilla] {msg}", kwargs
        kwargs["extra"] = {**kwargs.get("extra", {}), "facts": facts}
        tail = " ".join(f"{key}={_one_line(value)}" for key, value in facts.items())
        # Without positional arguments logging formats nothing, so a per cent sign needs no escape.
        return f"[Flotilla] {msg} ({tail})", kwargs


def _one_line(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else repr(text)


def get_logger(room: str) -> _FactsAdapter:
    """The logger ``flotilla.<room>``. Usage: ``log.info("worker linked", worker="w1", rtt_ms=3)``."""
    return _FactsAdapter(logging.getLogger(f"{ROOT}.{room}"), {})
