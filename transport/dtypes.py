"""The element types that torch and safetensors share, by their safetensors names."""

from __future__ import annotations

import torch

# name in a safetensors header → name in torch, bytes per element
_KNOWN: dict[str, tuple[str, int]] = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U64": ("uint64", 8),
    "U32": ("uint32", 4),
    "U16": ("uint16", 2),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}

# An older torch lacks some of them; a blob that needs one is refused there with its name.
TORCH_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, torch_name) for name, (torch_name, _) in _KNOWN.items() if hasattr(torch, torch_name)
}
DTYPE_NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in TORCH_DTYPES.items()}
ITEM_BYTES: dict[str, int] = {name: size for name, (_, size) in _KNOWN.items() if name in TORCH_DTYPES}

FLOAT_NAMES = frozenset({"F64", "F32", "F16", "BF16"})
