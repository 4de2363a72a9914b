"""Long messages in pieces, so that a heartbeat never waits behind a prompt of many megabytes.

A frame that begins with "{" is a whole message. Others begin with a mark: "<" first piece, "+" next piece, ">" last
piece. Whole messages may come between the pieces of a long one, but only one long message is under way at a time; a
new first piece drops an unfinished message.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..utils.errors import InvalidInput, TooLarge
from .messages import MAX_MESSAGE_BYTES

PIECE_CHARS = 256 * 1024
MAX_FRAME_BYTES = 2 * PIECE_CHARS
"""What a side reads at most at once, also before the other side has proved anything."""

FIRST, NEXT, LAST = "<", "+", ">"


def split(text: str) -> Iterator[str]:
    """The frames of one dumped message (ASCII, so a character is a byte)."""
    if len(text) <= PIECE_CHARS:
        yield text
        return
    for start in range(0, len(text), PIECE_CHARS):
        end = start + PIECE_CHARS
        mark = FIRST if start == 0 else NEXT if end < len(text) else LAST
        yield mark + text[start:end]


class Joiner:
    """Puts the frames of one connection together again."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._chars = 0

    def feed(self, frame: str) -> str | None:
        """A whole message, or None while pieces are missing. Raises InvalidInput and TooLarge."""
        mark, piece = frame[:1], frame[1:]
        if mark == "{":
            return frame
        if mark == FIRST:
            self._reset()
        elif mark not in (NEXT, LAST) or not self._pieces:
            raise InvalidInput("A frame of the link is neither a message nor a fitting piece of one.")
        self._pieces.append(piece)
        self._chars += len(piece)
        if self._chars > MAX_MESSAGE_BYTES:
            self._reset()
            raise TooLarge("A message of the link is larger than 64 MiB.")
        if mark != LAST:
            return None
        text = "".join(self._pieces)
        self._reset()
        return text

    def _reset(self) -> None:
        self._pieces.clear()
        self._chars = 0
