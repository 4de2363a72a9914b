"""Fleets of real ComfyUI servers on this machine, for hand and for tests.

    with Fleet(workers=2, extra_nodes=["tests/kit_nodes"]) as fleet:
        print(fleet.master.url, [worker.url for worker in fleet.workers])

Every instance has its own folders and database under one temporary folder; the models are shared. Leaving the block
stops every process and removes the folder, also when the start fails half-way. Should this process be killed, the
instances end by themselves (see `launcher.py`).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from .files import process_lock
from .hosts import Host, resolve
from .instances import Instance, Spec
from .paths import DEV, MODELS, ROOT
from .ports import Ports
from .readiness import FleetError, PortLost, await_online, await_ready
from .scratch import ScratchFolder

STOP_TIMEOUT_S = 8.0
START_TRIES = 3

__all__ = ["Fleet", "FleetError", "build_models", "default_threads"]


def build_models(folder: Path = MODELS) -> Path:
    """Makes sure that the tiny model lies in the shared models folder, and returns the folder."""
    from .tiny_model.build import build

    with process_lock(DEV / "models.lock"):
        build(folder)
    return folder


def default_threads(instances: int) -> int | None:
    """Torch threads per instance so that all together do not ask for more cores than there are; None: torch's own."""
    if instances < 2:
        return None
    return max(1, (os.cpu_count() or 1) // instances)


class Fleet:
    """A master and its workers.

    Args:
        workers: How many workers.
        host: ComfyUI version of the matrix, or a `Host`; None takes COMFYUI_PATH or the default version.
        extra_nodes: Custom-node folders that every instance loads besides the pack.
        env: Environment variables for every instance.
        master_env, worker_env: More of them, for the master, and by worker id.
        master_args, worker_args: Arguments appended to main.py's, for the master, and for every worker.
        worker_nodes: By worker id, the custom-node folders of that worker instead of `extra_nodes`.
        worker_models: By worker id, the models folder of that worker instead of the shared one; None for no models.
        models: The shared models folder; None builds and uses the tiny model.
        key: The fleet key; None draws one; the empty string starts the fleet without.
        base_port: First port to try; None draws free ports.
        threads: Torch threads per instance; None divides the machine's cores.
        register: Whether the workers are entered in the master's registry.
        pack: Whether instances load the pack; False gives plain ComfyUI servers.
        plain: Names of ComfyUI servers without the pack to start beside the fleet, to compare with; see `extras`.
        api_nodes: Whether hosts load their API nodes.

    Attributes:
        master: The master's `Instance`.
        workers: The workers' instances; ids "w1", "w2", ...
        extras: The plain servers, then the instances added by `add_instance`.
        folder: The fleet's temporary folder.
        key: The fleet key.
    """

    def __init__(
        self,
        workers: int = 2,
        host: str | Host | None = None,
        *,
        extra_nodes: Sequence[str | Path] = (),
        env: Mapping[str, str] | None = None,
        master_env: Mapping[str, str] | None = None,
        worker_env: Mapping[str, Mapping[str, str]] | None = None,
        master_args: Sequence[str] = (),
        worker_args: Sequence[str] = (),
        worker_nodes: Mapping[str, Sequence[str | Path]] | None = None,
        worker_models: Mapping[str, Path | None] | None = None,
        models: Path | None = None,
        key: str | None = None,
        base_port: int | None = None,
        threads: int | None = None,
        register: bool = True,
        pack: bool = True,
        plain: Sequence[str] = (),
        api_nodes: bool = False,
    ) -> None:
        self.host = host if isinstance(host, Host) else resolve(host)
        self.key = secrets.token_urlsafe(32) if key is None else key
        self.folder = Path()
        self.master: Instance
        self.workers: list[Instance] = []
        self.extras: list[Instance] = []
        self._models = models
        self._base_port = base_port
        self._threads = default_threads(workers + 1) if threads is None else threads
        self._plain = list(plain)
        self._ports = Ports()
        self._scratch: ScratchFolder | None = None
        self._register = register and pack
        self._defaults: dict[str, Any] = {"pack": pack, "api_nodes": api_nodes}
        self._nodes = _folders(extra_nodes)
        self._env = dict(env or {})
        self._master = Spec("master", args=list(master_args), env=dict(master_env or {}))
        self._workers = [
            Spec(f"w{number}", args=list(worker_args), env=dict((worker_env or {}).get(f"w{number}", {})))
            for number in range(1, workers + 1)
        ]
        self._worker_nodes = {name: _folders(paths) for name, paths in (worker_nodes or {}).items()}
        self._worker_models = dict(worker_models or {})

    def __enter__(self) -> Fleet:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def instances(self) -> list[Instance]:
        """Every instance: the master, the workers, the added ones."""
        first = [self.master] if hasattr(self, "master") else []
        return [*first, *self.workers, *self.extras]

    @property
    def pids(self) -> list[int]:
        """Process ids of all instances, the master's first."""
        return [instance.pid for instance in self.instances]

    def start(self) -> None:
        """Starts all instances side by side and waits until they answer and the workers are online.

        Raises:
            FleetError: An instance did not come up, or a worker stayed offline.
        """
        atexit.register(self.stop)
        try:
            if self._models is None:
                self._models = build_models()
            for attempt in range(1, START_TRIES + 1):
                try:
                    self._start_once()
                    return
                except PortLost as lost:
                    self.stop()
                    if attempt == START_TRIES:
                        raise FleetError(f"Ports were taken by others {START_TRIES} times in a row: {lost}") from lost
        except BaseException:
            self.stop()
            raise

    def _start_once(self) -> None:
        self._scratch = ScratchFolder()
        self.folder = self._scratch.path
        ports = self._ports.reserve(1 + len(self._workers) + len(self._plain), self._base_port)
        self.workers = [
            self._instance(spec, port, self._worker_nodes.get(spec.name), self._models_of(spec.name))
            for spec, port in zip(self._workers, ports[1:], strict=False)
        ]
        if self._register:
            self._master.workers = [
                {
                    "id": worker.id,
                    "name": f"Worker {number}",
                    "address": worker.url,
                    "enabled": True,
                    "kind": "local",
                    "tags": [],
                }
                for number, worker in enumerate(self.workers, start=1)
            ]
        self.master = self._instance(self._master, ports[0], None, self._models)
        self.extras = [
            Instance(self._plain_spec(name), self.host, port, self.folder / name, self._threads)
            for name, port in zip(self._plain, ports[1 + len(self._workers) :], strict=True)
        ]
        for instance in self.instances:
            instance.start()
        await_ready(self.instances)
        if self._register and self.workers:
            await_online(self.master, self.workers)

    def _plain_spec(self, name: str) -> Spec:
        return Spec(name, nodes=self._nodes, models=self._models, pack=False, env=self._env)

    def _models_of(self, name: str) -> Path | None:
        return self._worker_models.get(name, self._models)

    def _instance(self, spec: Spec, port: int, nodes: list[Path] | None, models: Path | None) -> Instance:
        """Completes a spec with what the whole fleet shares; every try of a start makes instances anew."""
        full = Spec(
            spec.name,
            nodes=self._nodes if nodes is None else nodes,
            models=models,
            key=self.key,
            env={**self._env, **spec.env},
            args=spec.args,
            workers=spec.workers,
            **self._defaults,
        )
        return Instance(full, self.host, port, self.folder / spec.name, self._threads)

    def add_instance(
        self,
        name: str,
        *,
        key: str | None = None,
        pack: bool = True,
        extra_nodes: Sequence[str | Path] | None = None,
        models: Path | None = None,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        workers: list[dict[str, Any]] | None = None,
        wait: bool = True,
    ) -> Instance:
        """Starts one more instance that nobody is told about, and waits until it answers. It ends with the fleet.

        Args:
            name: Its id; also the name of its folder.
            key: Its fleet key; None takes the fleet's, the empty string starts it without.
            pack: Whether it loads the pack; without, it is a plain ComfyUI to compare with.
            extra_nodes: Its custom-node folders; None takes the fleet's.
            models: Its models folder; None takes the fleet's.
            env, args: More environment variables, more arguments.
            workers: Entries for its own worker registry.
            wait: Whether to wait until it answers.

        Raises:
            FleetError: It did not come up.
        """
        if any(instance.id == name for instance in self.instances):
            raise FleetError(f"There already is an instance {name}.")
        spec = Spec(
            name,
            nodes=self._nodes if extra_nodes is None else _folders(extra_nodes),
            models=self._models if models is None else models,
            key=self.key if key is None else key,
            pack=pack,
            env={**self._env, **(env or {})},
            args=list(args),
            workers=workers,
            api_nodes=self._defaults["api_nodes"],
        )
        for _ in range(START_TRIES):
            instance = Instance(spec, self.host, self._ports.reserve(1)[0], self.folder / name, self._threads)
            self.extras.append(instance)
            instance.start()
            try:
                if wait:
                    await_ready([instance])
                return instance
            except (PortLost, FleetError) as error:
                self.extras.remove(instance)
                instance.kill()
                if isinstance(error, FleetError):
                    raise
        raise FleetError(f"No port could be kept for {name}.")

    def kill_worker(self, index: int) -> None:
        """Ends worker `index` (from 0) at once, as a crash would."""
        self.workers[index].kill()

    def restart(self, instance: Instance, wait: bool = True) -> None:
        """Starts an ended instance again on its old port, with its old folders.

        Raises:
            FleetError: It still runs, or did not come up.
        """
        if instance.alive():
            raise FleetError(f"{instance.id} still runs.")
        instance.start()
        if wait:
            await_ready([instance])

    def stop(self) -> None:
        """Ends every process (in good order first, then by force) and removes the fleet's folder. May be repeated."""
        atexit.unregister(self.stop)
        for instance in self.instances:
            instance.ask_to_stop()
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        for instance in self.instances:
            if instance.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    instance.process.wait(timeout=max(0.0, deadline_s - time.monotonic()))
            instance.kill()
            instance.remove_leftovers()
        if self._scratch is not None:
            self._scratch.remove()
            self._scratch = None
        self._ports.release()
        self.folder = Path()
        self.workers, self.extras = [], []
        if hasattr(self, "master"):
            del self.master

    def summary(self) -> dict[str, Any]:
        """What `dev.py fleet --json` prints."""
        return {
            "master": self.master.url,
            "workers": [{"id": worker.id, "url": worker.url, "pid": worker.pid} for worker in self.workers],
            "pids": self.pids,
            "folders": {
                "fleet": str(self.folder),
                **{instance.id: str(instance.folder) for instance in self.instances},
            },
        }


def _folders(paths: Sequence[str | Path]) -> list[Path]:
    """Absolute folders; relative ones are looked for where the user stands, then in the checkout.

    Raises:
        FleetError: One is missing.
    """
    found = []
    for path in paths:
        folder = Path(path).expanduser()
        candidates = [folder.absolute(), ROOT / folder]
        match = next((candidate for candidate in candidates if candidate.is_dir()), None)
        if match is None:
            raise FleetError(f"There is no folder {path} to load nodes from.")
        found.append(match)
    return found
