"""What people see: messages, texts and pictures for the clients that are connected to this host's websocket.

A message that is not JSON ends the whole server, because the host's sender has nothing to catch it with: everything is
tried before it is handed over.
"""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

from comfy_api import feature_flags
from comfy_execution.progress import get_progress_state
from server import PromptServer

from ..utils.log import get_logger
from .execution import executing_node_id

log = get_logger("screen")

METADATA_FLAG = "supports_preview_metadata"
"""What a client declares in its first message when it can take pictures for any node, not only for the one at work."""

PREVIEW_IMAGE = 1
PREVIEW_IMAGE_WITH_METADATA = 4
"""The host's numbers of binary messages."""

JPEG_TYPE = 1
JPEG_MIME = "image/jpeg"


class Screen:
    """The clients of ``PromptServer.instance``. Thread-safe; never raises."""

    def __init__(self) -> None:
        self._sending: dict[str, asyncio.Task[None]] = {}  # by client: a slow one misses pictures, it gathers none

    @property
    def _server(self) -> Any:
        return PromptServer.instance

    def listens(self, client_id: str) -> bool:
        """Whether a client of this id is connected."""
        return bool(client_id) and client_id in self._server.sockets

    def send_event(self, name: str, data: dict[str, Any], client_id: str | None = None) -> bool:
        """Sends ``{"type": name, "data": data}`` to one client, or to all. False if ``data`` is not strict JSON: then
        nothing was sent. ``data`` must not be changed afterwards."""
        try:
            json.dumps(data, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            log.warning("a message that is not JSON was not sent", name=name)
            return False
        try:
            self._server.send_sync(name, data, client_id)
        except RuntimeError:  # the server's loop is closed
            return False
        return True

    def send_text(self, node_id: str, text: str, client_id: str) -> None:
        """Shows ``text`` on the node, to one client; to nobody when ``client_id`` is empty."""
        if self.listens(client_id):
            try:
                self._server.send_progress_text(text.encode("utf-8", "replace"), _utf8(node_id), sid=client_id)
            except RuntimeError:
                return

    def send_preview(self, jpeg: bytes, node_id: str, prompt_id: str, client_id: str) -> None:
        """Shows a JPEG on the node, to one client; to nobody when ``client_id`` is empty.

        A client that knows no pictures for other nodes shows every picture on the node at work; it gets this one only if
        that is the node meant. A client that is still busy with the last picture does not get this one.
        """
        if not self.listens(client_id):
            return
        server = self._server
        if feature_flags.supports_feature(server.sockets_metadata, client_id, METADATA_FLAG):
            event, body = PREVIEW_IMAGE_WITH_METADATA, _with_metadata(jpeg, node_id, prompt_id)
        elif server.client_id == client_id and server.last_node_id == node_id:
            event, body = PREVIEW_IMAGE, struct.pack(">I", JPEG_TYPE) + jpeg
        else:
            return
        try:
            server.loop.call_soon_threadsafe(self._start_sending, event, body, client_id)
        except RuntimeError:
            return

    def _start_sending(self, event: int, body: bytes, client_id: str) -> None:
        # The host would encode a picture anew on its loop; this one is ready, and goes past that.
        if client_id not in self._sending:
            task = asyncio.ensure_future(self._server.send_bytes(event, body, client_id))
            self._sending[client_id] = task
            task.add_done_callback(lambda done: self._sent(client_id, done))

    def _sent(self, client_id: str, task: asyncio.Task[None]) -> None:
        self._sending.pop(client_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("a picture could not be sent", error=error)


class NodeText:
    """A text on the node that is executing, for the client that queued the prompt. Must be made inside its ``execute``."""

    def __init__(self) -> None:
        registry = get_progress_state()
        self._node_id = registry.dynprompt.get_display_node_id(executing_node_id() or "")
        self._client_id = str(PromptServer.instance.client_id or "")

    def show(self, text: str) -> None:
        """Shows ``text``; what it said before is replaced. Silent without a client."""
        Screen().send_text(self._node_id, text, self._client_id)


def _with_metadata(jpeg: bytes, node_id: str, prompt_id: str) -> bytes:
    """The body of a picture with metadata: length of the metadata (4 bytes, big-endian), the metadata as JSON, the JPEG."""
    metadata = {
        "node_id": node_id,
        "display_node_id": node_id,
        "parent_node_id": None,
        "real_node_id": node_id,
        "prompt_id": prompt_id,
        "image_type": JPEG_MIME,
    }
    packed = json.dumps(metadata).encode()
    return struct.pack(">I", len(packed)) + packed + jpeg


def _utf8(text: str) -> str:
    """``text`` with everything that UTF-8 cannot hold replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")
