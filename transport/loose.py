"""Results that are worked on one by one as they arrive, and gathered nowhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from .assemble import ItemSink, data_of
from .dtypes import TORCH_DTYPES
from .limits import DEFAULT_LIMITS, TransportLimits
from .local_read import read_local
from .manifest import BlobManifest
from .memory import passing
from .precision import widen
from .values import Value

Landed = Callable[[int, dict[str, Value]], None]


class LooseItems:
    """As `Assembly` for those who bring results, from any thread; but each result goes to ``landed`` and is not kept."""

    def __init__(self, landed: Landed, limits: TransportLimits = DEFAULT_LIMITS) -> None:
        """``landed`` gets a place and its values, in the thread of whoever brings them, once per place: the first
        delivery wins. If it raises, the delivery has failed and the place is open for another one. Tensors own their
        memory."""
        self._landed = landed
        self._limits = limits
        self._lock = threading.Lock()
        self._taken: set[int] = set()

    def sink_for(self, index: int, manifest: BlobManifest) -> ItemSink | None:
        """Memory for a delivery to the place ``index``; None if that has landed. Raises TooLarge if memory is short.

        Two deliveries to one place may run at the same time; they never share memory.
        """
        with self._lock:
            if index in self._taken:
                return None
        sink = ItemSink(index, manifest.values, manifest.tensors)
        for spec in manifest.tensors:
            target = passing(spec.shape, TORCH_DTYPES[spec.restore_dtype])
            exact = spec.dtype == spec.restore_dtype
            sink.targets[spec.name] = target
            sink.stored[spec.name] = target if exact else passing(spec.shape, TORCH_DTYPES[spec.dtype])
        return sink

    def arrived(self, sink: ItemSink) -> bool:
        """Hands over what ``sink`` holds, filled and verified, with its precision restored (a moment's work: for a
        thread). False if another delivery was first; this one is then dropped. Raises what ``landed`` raises."""
        for name, target in sink.targets.items():
            if sink.stored[name] is not target:
                widen(sink.stored[name], target)
        values = {name: Value(meta["kind"], data_of(name, sink)) for name, meta in sink.metas.items()}
        self.abandon(sink)
        return self._land(sink.index, values)

    def abandon(self, sink: ItemSink) -> None:
        """Gives the memory of a delivery up, once nobody writes into it any more."""
        sink.stored, sink.targets = {}, {}

    def put_local(self, index: int, values: Mapping[str, Value]) -> bool:
        """Hands over what was made in this process, as it is. False if the place has landed already."""
        return self._land(index, dict(values))

    def _land(self, index: int, values: dict[str, Value]) -> bool:
        with self._lock:
            if index in self._taken:
                return False
            self._taken.add(index)
        try:
            self._landed(index, values)
        except BaseException:
            with self._lock:
                self._taken.discard(index)
            raise
        return True


def read_values(path: Path, manifest: BlobManifest, limits: TransportLimits = DEFAULT_LIMITS) -> dict[str, Value]:
    """The values of a blob's file, in memory of their own. Blocks. Raises as `read_local` does, and TooLarge."""
    found: dict[str, Value] = {}
    items = LooseItems(lambda _place, values: found.update(values), limits)
    sink = items.sink_for(0, manifest)
    assert sink is not None
    read_local(path, manifest, sink, limits)
    items.arrived(sink)
    return found
