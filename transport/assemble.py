"""The results of a job's items, brought together in memory that is taken once.

When the first item's shapes are known, room is made for all items of such a shape; each item then arrives where it
belongs, and joining them costs nothing. An item of another batch size, or one that two participants deliver at the
same time, gets memory of its own and is copied in at the end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..utils.errors import InvalidInput, NotFound
from .chunks import as_bytes
from .codec import plan_blob
from .dtypes import TORCH_DTYPES
from .join import Piece, check_alike, join_audio, join_batches, join_latents, primary_of
from .limits import DEFAULT_LIMITS, TransportLimits
from .manifest import BlobManifest, TensorSpec, split_name, tensor_name
from .memory import Reserve, empty
from .precision import widen
from .values import JSON, LATENT, PLAIN_KINDS, PRIMARY, Value


@dataclass(eq=False)
class ItemSink(Mapping[str, memoryview]):
    """Where one delivery of an item goes: a `fetch.Sink`. Hand it to `Assembly.arrived` or `Assembly.abandon`."""

    index: int
    metas: Mapping[str, Mapping[str, Any]]
    specs: tuple[TensorSpec, ...]
    targets: dict[str, torch.Tensor] = field(default_factory=dict)  # final type
    stored: dict[str, torch.Tensor] = field(default_factory=dict)  # as on the way; the target itself where exact
    in_place: bool = False  # some target lies in the memory shared by all items

    def __getitem__(self, name: str) -> memoryview:
        return as_bytes(self.stored[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


class Assembly:
    """Takes ``item_count`` items in any order, from any thread, each once, and joins them by index."""

    def __init__(
        self,
        item_count: int,
        limits: TransportLimits = DEFAULT_LIMITS,
        reserve: Reserve | None = None,
        *,
        joined: bool = True,
    ) -> None:
        """Large memory comes from ``reserve``, if there is one, and goes back there with the last tensor in it.

        With ``joined`` off the items stay apart: they need not be alike, and `entries` gives them.
        """
        if item_count < 1:
            raise InvalidInput("An assembly needs at least one item.")
        self.item_count = item_count
        self._limits = limits
        self._reserve = reserve
        self.joined = joined
        self._lock = threading.Lock()
        self._items: dict[int, ItemSink] = {}
        self._in_place: dict[int, ItemSink] = {}  # who writes, or has written, into the shared memory at an index
        self._layouts: dict[str, torch.Tensor] = {}  # [items, B, ...] for each value that has a batch
        self._known: dict[int, ItemSink] = {}  # by identity: arrived or on the way
        self._examples: dict[tuple[str, bool], ItemSink] = {}  # what newcomers are compared with, see `_remember`
        self._finished = False

    def sink_for(self, index: int, manifest: BlobManifest) -> ItemSink | None:
        """Memory for the item ``index``; None if it is there already and need not be fetched.

        Two deliveries of one item may run at the same time; they never share memory. Raises InvalidInput if the
        item does not go with those before it (other size, other kind of value), TooLarge if memory is short.
        """
        return self._claim(index, manifest.tensors, manifest.values)

    def arrived(self, sink: ItemSink) -> bool:
        """Takes the item, filled and verified, and restores reduced precision (which takes a moment: for a thread).

        False if another delivery was first; this one is then dropped.
        """
        with self._lock:
            if self._is_late(sink):
                return False
        for name, target in sink.targets.items():
            if sink.stored[name] is not target:
                widen(sink.stored[name], target)
        with self._lock:
            if self._is_late(sink):
                return False
            sink.stored = {}
            self._items[sink.index] = sink
            return True

    def abandon(self, sink: ItemSink) -> None:
        """Gives the place back, once nobody writes into it any more, so that another delivery may have it."""
        with self._lock:
            self._let_go(sink)

    def put_local(self, index: int, values: Mapping[str, Value]) -> bool:
        """Copies an item that was made in this process. False if it is there already. Raises as `sink_for` does."""
        plan = plan_blob(values, limits=self._limits)
        sink = self._claim(index, plan.specs, plan.values)
        if sink is None:
            return False
        try:
            for name, target in sink.targets.items():
                target.copy_(plan.sources[name])
        except BaseException:
            self.abandon(sink)
            raise
        return self.arrived(sink)

    def missing(self) -> list[int]:
        """Indices that have not arrived."""
        with self._lock:
            return [index for index in range(self.item_count) if index not in self._items]

    def finish(self) -> dict[str, Any]:
        """The joined values by name; items that are missing are left out. Ends the assembly: later items are dropped.

        IMAGE, MASK and LATENT are joined along the batch, AUDIO along its samples, JSON is a list; always in the order
        of items, leaving out those that have none of it. A value that no item has is None. Raises NotFound if nothing
        arrived or the assembly has ended before.
        """
        items, layouts = self._end()
        with torch.inference_mode(False):
            names = dict.fromkeys(name for item in items for name in item.metas)
            return {name: _join(name, items, layouts.get(name)) for name in names}

    def entries(self) -> dict[int, tuple[Any, ...]]:
        """The values of each item that has arrived, in the order in which it named them; by index, ascending.

        A value that an item has none of is None. Ends the assembly, and raises NotFound, as `finish` does.
        """
        items, _ = self._end()
        return {item.index: tuple(data_of(name, item) for name in item.metas) for item in items}

    def _end(self) -> tuple[list[ItemSink], dict[str, torch.Tensor]]:
        """What has arrived, in order, and the shared memory that nobody writes into any more. Nothing comes later."""
        with self._lock:
            items = [] if self._finished else [self._items[index] for index in sorted(self._items)]
            self._finished = True
            writing = any(sink is not self._items.get(index) for index, sink in self._in_place.items())
            layouts = {} if writing else self._layouts
            self._items, self._layouts, self._in_place, self._known, self._examples = {}, {}, {}, {}, {}
        if not items:
            raise NotFound("No item has arrived that could be joined.")
        return items, layouts

    def _claim(
        self, index: int, specs: tuple[TensorSpec, ...], metas: Mapping[str, Mapping[str, Any]]
    ) -> ItemSink | None:
        if not 0 <= index < self.item_count:
            raise InvalidInput(f"There is no item {index} among {self.item_count}.")
        sink = ItemSink(index, metas, specs)
        with self._lock:
            if self._finished or index in self._items:
                return None
            if self.joined:
                check_alike(list(self._examples.values()), sink)
            for spec in specs:
                target = self._place(sink, spec)
                exact = spec.dtype == spec.restore_dtype
                sink.targets[spec.name] = target
                sink.stored[spec.name] = target if exact else self._empty(spec.shape, TORCH_DTYPES[spec.dtype])
            if sink.in_place:
                self._in_place[index] = sink
            self._remember(sink)
        return sink

    def _remember(self, sink: ItemSink) -> None:
        """One example of each value, and one that is not empty, are enough to compare with: all others are like them."""
        self._known[id(sink)] = sink
        for name in sink.metas:
            self._examples.setdefault((name, primary_of(sink, name) is not None), sink)

    def _place(self, sink: ItemSink, spec: TensorSpec) -> torch.Tensor:
        """The item's part of the shared memory, if it fits there and nobody else has it, or memory of its own."""
        value, key = split_name(spec.name)
        kind = sink.metas[value]["kind"]
        dtype = TORCH_DTYPES[spec.restore_dtype]
        if self.joined and (kind in PLAIN_KINDS or (kind == LATENT and key == PRIMARY[LATENT])) and spec.size_bytes:
            layout = self._layouts.get(value)
            fits = layout is not None and layout.dtype == dtype and tuple(layout.shape[1:]) == spec.shape
            if layout is None or not (fits or self._in_place):
                layout = self._layouts[value] = self._empty((self.item_count, *spec.shape), dtype)
                fits = True
            if fits and sink.index not in self._in_place:
                sink.in_place = True
                with torch.inference_mode(False):
                    return layout[sink.index]
        return self._empty(spec.shape, dtype)

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return empty(shape, dtype, self._reserve)

    def _is_late(self, sink: ItemSink) -> bool:
        """Whether ``sink`` comes too late to be taken; it is then let go."""
        late = self._finished or sink.index in self._items
        if late:
            self._let_go(sink)
        return late

    def _let_go(self, sink: ItemSink) -> None:
        if self._items.get(sink.index) is sink:
            return  # it has been taken and stays
        if self._in_place.get(sink.index) is sink:
            del self._in_place[sink.index]
        if self._known.pop(id(sink), None) is not None and any(other is sink for other in self._examples.values()):
            remaining, self._known, self._examples = self._known, {}, {}
            for other in remaining.values():
                self._remember(other)
        sink.stored, sink.targets = {}, {}


def _join(name: str, items: list[ItemSink], layout: torch.Tensor | None) -> Any:
    having = [item for item in items if name in item.metas]
    pieces = [_piece(name, item) for item in having if not item.metas[name].get("empty")]
    kind = having[0].metas[name]["kind"]
    if kind == JSON:
        return [piece.extras for piece in pieces]
    if not pieces:
        return None
    if kind in PLAIN_KINDS:
        return join_batches(name, [(piece.index, piece.tensors[""]) for piece in pieces], layout)
    if kind == LATENT:
        return join_latents(name, pieces, layout)
    return join_audio(pieces)


def data_of(name: str, item: ItemSink) -> Any:
    """A value of one item, filled and widened, as it was."""
    meta = item.metas[name]
    if meta.get("empty"):
        return None
    piece = _piece(name, item)
    if meta["kind"] == JSON:
        return piece.extras
    return piece.tensors[""] if meta["kind"] in PLAIN_KINDS else {**piece.tensors, **piece.extras}


def _piece(name: str, item: ItemSink) -> Piece:
    meta = item.metas[name]
    tensors = {}
    for spec in item.specs:
        value, key = split_name(spec.name)
        if value == name:
            tensors[key] = item.targets[tensor_name(value, key)]
    return Piece(item.index, tensors, meta["json"] if meta["kind"] == JSON else meta.get("extras", {}))
