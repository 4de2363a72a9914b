"""Output nodes that keep what reached them, exactly, where a test can read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from .makers import CATEGORY
from .records import describe, file_name, take_apart, write_description, write_record


def _schema(node_id: str, display_name: str, prefix: str, *, is_input_list: bool = False) -> io.Schema:
    return io.Schema(
        node_id=node_id,
        display_name=display_name,
        category=CATEGORY,
        inputs=[io.AnyType.Input("any"), io.String.Input("prefix", default=prefix)],
        outputs=[],
        is_output_node=True,
        is_input_list=is_input_list,
    )


class KitHash(io.ComfyNode):
    """Writes hash, shape and dtype of every tensor to ``kit_hash_<prefix>.json`` and shows the hashes and plain values."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("KitHash", "Kit Hash", "hash")

    @classmethod
    def execute(cls, any: Any, prefix: str) -> io.NodeOutput:  # noqa: A002
        description = describe(take_apart(any))
        write_description(Path(folder_paths.get_output_directory(), file_name("hash", prefix, ".json")), description)
        lines = [f"{name} {facts['blake3']}" for name, facts in description["tensors"].items()]
        lines += [f"{name} = {value}" for name, value in description["values"].items()]
        return io.NodeOutput(ui={"text": lines})


class KitHashList(io.ComfyNode):
    """As KitHash for a whole list at once: what each entry holds stands under its number, from "0"."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("KitHashList", "Kit Hash (List)", "list", is_input_list=True)

    @classmethod
    def execute(cls, any: list[Any], prefix: list[str]) -> io.NodeOutput:  # noqa: A002
        return KitHash.execute(any, prefix[0])


class KitSave(io.ComfyNode):
    """Writes every tensor with all its bits to ``kit_save_<prefix>.safetensors`` (`records.read_record` reads it)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("KitSave", "Kit Save", "save")

    @classmethod
    def execute(cls, any: Any, prefix: str) -> io.NodeOutput:  # noqa: A002
        path = Path(folder_paths.get_output_directory(), file_name("save", prefix, ".safetensors"))
        write_record(path, take_apart(any))
        return io.NodeOutput(ui={"text": [path.name]})
