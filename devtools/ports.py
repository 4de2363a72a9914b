"""Loopback ports for a fleet: probed, and reserved against other fleets of this checkout that start meanwhile."""

from __future__ import annotations

import os
import random
import socket

from .files import try_lock
from .paths import DEV

LOOPBACK = "127.0.0.1"
PORT_RANGE = (20_000, 30_000)
"""Where ports are drawn from unless a base port is asked for: below every system's ephemeral range."""

PORT_DRAWS = 200
PORT_END = 65_536


def port_is_free(port: int) -> bool:
    """Whether nobody listens on a loopback port right now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name != "nt":
            # As servers do: a port whose last connections linger in TIME_WAIT counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


class Ports:
    """The ports that one fleet holds. Each is reserved by a locked file, which ends with this process."""

    def __init__(self) -> None:
        self._locks: list[int] = []

    def reserve(self, count: int, base_port: int | None = None) -> list[int]:
        """Reserves free ports: the first ones from `base_port` upwards, or ones drawn at random.

        Raises:
            RuntimeError: Not enough free ports were found.
        """
        if base_port is None:
            candidates = random.SystemRandom().sample(range(*PORT_RANGE), PORT_DRAWS)
        else:
            candidates = list(range(base_port, min(base_port + PORT_DRAWS, PORT_END)))
        found: list[int] = []
        for port in candidates:
            if len(found) == count:
                break
            if self._reserve_one(port):
                found.append(port)
        if len(found) < count:
            raise RuntimeError(f"Only {len(found)} of {count} free ports were found; name another --base-port.")
        return found

    def _reserve_one(self, port: int) -> bool:
        folder = DEV / "ports"
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / f"{port}.lock", os.O_RDWR | os.O_CREAT)
        if try_lock(descriptor) and port_is_free(port):
            self._locks.append(descriptor)
            return True
        os.close(descriptor)
        return False

    def release(self) -> None:
        """Gives all of them back."""
        while self._locks:
            os.close(self._locks.pop())
