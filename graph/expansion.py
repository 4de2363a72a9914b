"""One item of a stage as nodes to be added to the prompt that is running: what varies anew, the rest as it is there."""

from __future__ import annotations

from typing import Any

from .items import item_prompt, varying_nodes
from .plan import ItemPlan, JobPlan
from .prompt import Prompt, is_link


def expand_item(plan: JobPlan, item: ItemPlan, prefix: str, running: Prompt) -> tuple[Prompt, dict[str, Any]]:
    """The nodes to add, under ids that begin with ``prefix``, and the inputs that the stage's node would have.

    Nodes whose output is the same in every item are not repeated: links to them lead to the running prompt's own, which
    run at most once. ``running`` is the prompt as the host's validation left it: added nodes are not validated, so
    they take from there the constants that the host has converted (the text "20" to a number). Raises InvalidPrompt.
    """
    built = item_prompt(plan.index, item.node_id, item.values)
    varying = set(plan.index.downstream(varying_nodes(plan.index, item.node_id))) & built.keys() - {item.node_id}

    def moved(value: Any) -> Any:
        return [prefix + value[0], value[1]] if is_link(value) and value[0] in varying else value

    def inputs_of(node_id: str) -> dict[str, Any]:
        posted = plan.prompt[node_id]["inputs"]
        converted = running.get(node_id, {}).get("inputs", {})
        return {
            name: moved(converted.get(name, value) if name in posted and posted[name] == value else value)
            for name, value in built[node_id]["inputs"].items()
        }

    nodes: Prompt = {prefix + node_id: {**built[node_id], "inputs": inputs_of(node_id)} for node_id in varying}
    return nodes, inputs_of(item.node_id)
