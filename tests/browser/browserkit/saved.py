"""Workflows as the front end saves them (schema 0.4), put together node by node."""

from __future__ import annotations

from typing import Any

COLUMN_PX = 320
ROW_PX = 260
ROWS = 3

Output = tuple[int, int]
"""A node's id and the slot of one of its outputs."""


class Saved:
    """A workflow that grows; ids are 1, 2, ... in the order of adding."""

    def __init__(self) -> None:
        self._nodes: list[dict[str, Any]] = []
        self._links: list[list[Any]] = []

    def add(
        self,
        kind: str,
        values: object = None,
        *,
        outputs: list[tuple[str, str]] | None = None,
        sockets: dict[str, tuple[Output, str]] | None = None,
        widgets: dict[str, tuple[Output, str]] | None = None,
        properties: dict[str, str] | None = None,
        place: tuple[int, int] | None = None,
    ) -> int:
        """Adds a node and returns its id.

        Args:
            kind: Its class.
            values: Its ``widgets_values``, written as they are.
            outputs: Saved outputs: (name, type).
            sockets: Saved inputs: name → (what it is linked to, type).
            widgets: Widgets turned into inputs, likewise.
            properties: Its ``properties``.
            place: Its column and row on the canvas; without it, the next after the last node's.
        """
        node_id = len(self._nodes) + 1
        inputs: list[dict[str, Any]] = []
        for linked, extra in ((sockets or {}, False), (widgets or {}, True)):
            for name, (source, type_name) in linked.items():
                saved = {"name": name, "type": type_name, "link": self._link(source, node_id, len(inputs), type_name)}
                inputs.append({**saved, "widget": {"name": name}} if extra else saved)
        column, row = place or divmod(node_id - 1, ROWS)
        self._nodes.append(
            {
                "id": node_id,
                "type": kind,
                "pos": [column * COLUMN_PX, row * ROW_PX],
                "size": [270, 120],
                "flags": {},
                "order": node_id - 1,
                "mode": 0,
                "inputs": inputs,
                "outputs": [{"name": name, "type": type_name, "links": []} for name, type_name in outputs or []],
                "properties": {"Node name for S&R": kind, **(properties or {})},
                "widgets_values": values,
            }
        )
        return node_id

    def _link(self, source: Output, target: int, slot: int, type_name: str) -> int:
        link_id = len(self._links) + 1
        self._links.append([link_id, source[0], source[1], target, slot, type_name])
        self._nodes[source[0] - 1]["outputs"][source[1]]["links"].append(link_id)
        return link_id

    def workflow(self) -> dict[str, Any]:
        """What the file would hold."""
        return {
            "last_node_id": len(self._nodes),
            "last_link_id": len(self._links),
            "nodes": self._nodes,
            "links": self._links,
            "groups": [],
            "config": {},
            "extra": {},
            "version": 0.4,
        }
