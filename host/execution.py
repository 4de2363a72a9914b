"""The prompt that is executing now: its id, its end, its progress, and whether somebody wants it to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.utils
from comfy_execution.progress import NodeState, get_progress_state
from comfy_execution.utils import CurrentNodeContext, get_executing_context
from PIL import Image

from .records import ProgressSnapshot

LifecycleCallback = Callable[[str], None]


def executing_prompt_id() -> str | None:
    """The id of the prompt on whose behalf this code runs; None outside a node."""
    context = get_executing_context()
    return context.prompt_id if context is not None else None


def executing_node_id() -> str | None:
    """The id of the node whose code runs; None outside a node."""
    context = get_executing_context()
    return context.node_id if context is not None else None


def raise_if_interrupted() -> None:
    """Raises the host's InterruptProcessingException (a BaseException) when the running prompt is to stop."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def progress_of(prompt_id: str) -> ProgressSnapshot | None:
    """The progress of ``prompt_id`` if it is the one running, else None. Safe to call from any thread."""
    registry = get_progress_state()
    if registry.prompt_id != prompt_id:
        return None
    states = list(registry.nodes.items())
    finished = sum(1 for _, state in states if state["state"] == NodeState.Finished)
    for node_id, state in states:
        if state["state"] == NodeState.Running:
            return ProgressSnapshot(node_id, float(state["value"]), float(state["max"] or 1.0), finished)
    return ProgressSnapshot("", 0.0, 1.0, finished)


class NodeProgress:
    """The progress bar on a node of the running prompt. Must be made and used inside the ``execute`` of some node."""

    def __init__(self, total: int, node_id: str) -> None:
        self._bar = comfy.utils.ProgressBar(total, node_id=node_id)
        self._total = total
        self._shown = -1, total

    def show(self, value: int, total: int | None = None, picture: Image.Image | None = None) -> None:
        """Shows ``value`` of ``total``, and a picture on the node if there is one; repeats are not sent."""
        if total is not None:
            self._total = total
        value = max(0, min(value, self._total))
        if (value, self._total) != self._shown:
            self._shown = value, self._total
            shown = ("JPEG", picture, max(picture.size)) if picture is not None else None
            self._bar.update_absolute(value, self._total, shown)


def make_room_after(error: BaseException) -> None:
    """What the host does when a node runs out of memory, for one that catches its errors: lets go of all models."""
    if isinstance(error, comfy.model_management.OOM_EXCEPTION):
        comfy.model_management.unload_all_models()


def as_node(node_id: str) -> CurrentNodeContext:
    """Within it, progress and previews belong to ``node_id``, which need not be a node of the prompt: so that a sampler
    that is called many times leaves the bar of the node that calls it alone."""
    return CurrentNodeContext(executing_prompt_id() or "", node_id)


class CachePromptWatch:
    """Tells when prompts start and end, through the host's one official hook: that of external cache providers.

    The hook is only held between `hold` and `let_go`, because while any provider is registered the host serialises the
    cache key of every node it does not find, also of prompts that are none of our business.
    Before ComfyUI 0.18 there is no hook: `available` is False and nothing is ever called.
    """

    def __init__(self, started: LifecycleCallback, ended: LifecycleCallback) -> None:
        """``started`` and ``ended`` get the prompt's id, in the prompt thread, and must be quick."""
        self._provider = _make_provider(started, ended)
        self._held = False

    @property
    def available(self) -> bool:
        """Whether this host has the hook."""
        return self._provider is not None

    def hold(self) -> None:
        """Starts to watch. Harmless when it does already. Any thread."""
        if self._provider is not None and not self._held:
            from comfy_execution.cache_provider import register_cache_provider

            self._held = True
            register_cache_provider(self._provider)

    def let_go(self) -> None:
        """Stops to watch. Harmless when it does not. Any thread."""
        if self._provider is not None and self._held:
            from comfy_execution.cache_provider import unregister_cache_provider

            self._held = False
            unregister_cache_provider(self._provider)


def _make_provider(started: LifecycleCallback, ended: LifecycleCallback) -> Any | None:
    try:
        from comfy_execution.cache_provider import CacheProvider
    except ImportError:  # a host from before 0.18
        return None

    class PromptWatcher(CacheProvider):
        """Stores nothing and finds nothing; it only hears of prompts."""

        async def on_lookup(self, context: Any) -> None:
            return None

        async def on_store(self, context: Any, value: Any) -> None:
            return None

        def should_cache(self, context: Any, value: Any = None) -> bool:
            return False

        def on_prompt_start(self, prompt_id: str) -> None:
            started(prompt_id)

        def on_prompt_end(self, prompt_id: str) -> None:
            ended(prompt_id)

    return PromptWatcher()


async def wait_interruptibly(future: asyncio.Future[Any], check_every_s: float = 0.1) -> None:
    """Waits until ``future`` is done; raises the host's interrupt within ``check_every_s``. Cancels nothing.

    The host's interrupt is a flag that wakes nobody, so it has to be looked at.
    """
    while not future.done():
        await asyncio.wait({future}, timeout=check_every_s)
        raise_if_interrupted()
