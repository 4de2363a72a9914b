"""Facts about this machine and this host, for ``system_info`` and ``network_info`` (shapes: the older extension's)."""

from __future__ import annotations

import os
import platform
import socket
import uuid
from pathlib import Path
from typing import Any

import comfy.model_management
import comfyui_version
import psutil
import torch
from comfy.cli_args import args


def host_version() -> str:
    """The version of ComfyUI."""
    return str(comfyui_version.__version__)


def configured_port() -> int | None:
    """The port that this host was told to listen on; known before it listens."""
    port = getattr(args, "port", None)
    return port if isinstance(port, int) else None


def system_info() -> dict[str, Any]:
    """Who this machine is: name, platform, path separator, containers."""
    return {
        "hostname": socket.gethostname(),
        "machine_id": f"{uuid.getnode():012x}",
        "platform": {
            "system": platform.system(),
            "machine": platform.machine(),
            "node": platform.node(),
            "path_separator": os.sep,
            "os_name": os.name,
        },
        "is_docker": Path("/.dockerenv").exists() or bool(os.environ.get("DOCKER_CONTAINER")),
        "is_runpod": bool(os.environ.get("RUNPOD_POD_ID")),
        "runpod_pod_id": os.environ.get("RUNPOD_POD_ID"),
    }


def network_info() -> dict[str, Any]:
    """This machine's IPv4 addresses, the one to recommend (private ones first), and its CUDA device."""
    addresses = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]
    addresses.sort(key=_address_rank)
    cuda_count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "hostname": socket.gethostname(),
        "all_ips": addresses,
        "recommended_ip": addresses[0] if addresses else None,
        "cuda_device": _cuda_device(),
        "cuda_device_count": cuda_count,
        "message": "Addresses of this machine, the most useful one first",
    }


def device_name() -> str:
    """The name of the device that models run on, e.g. ``cpu`` or ``cuda:0 NVIDIA GeForce RTX 4090``."""
    return str(comfy.model_management.get_torch_device_name(comfy.model_management.get_torch_device()))


def _address_rank(address: str) -> tuple[int, str]:
    if address.startswith("192.168."):
        return 0, address
    second = address.split(".")[1] if address.count(".") == 3 else "0"
    if address.startswith("10.") or (address.startswith("172.") and 16 <= int(second) <= 31):
        return 1, address
    return 2, address


def _cuda_device() -> int | None:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if visible.isdigit():
        return int(visible)
    if not torch.cuda.is_available():
        return None
    return int(torch.cuda.current_device())
