"""One ComfyUI process of a fleet: its folders, its command line, its life."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .files import link_folder
from .hosts import Host
from .paths import ROOT
from .ports import LOOPBACK

PACK_LINK = "flotilla-pack"
"""Name of the pack's link in an instance's custom_nodes: a dash, because users' folders have them too."""

KEY_VARIABLE = "FLOTILLA_FLEET_KEY"
SYSTEM_USER_FOLDER = "__flotilla"
PROBE_NODE = "DistributedCollector"

MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 (nothing is made in it here, only removed)
REQUEST_TIMEOUT_S = 5.0
LOG_TAIL_LINES = 40
PORT_TAKEN_SIGNS = (
    "is already in use on address",
    "address already in use",
    "errno 98",
    "errno 48",
    "only one usage of each socket address",
)

MODEL_FOLDERS = (
    "checkpoints",
    "clip_vision",
    "controlnet",
    "diffusion_models",
    "embeddings",
    "loras",
    "text_encoders",
    "upscale_models",
    "vae",
)

# Loopback must never go through a proxy that the user's environment names.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def request_json(url: str, body: object = None, timeout_s: float = REQUEST_TIMEOUT_S) -> Any:
    """GET, or POST when there is a body, and parse the JSON answer.

    Raises:
        OSError: No answer (URLError), or an error status (HTTPError, with `.code`).
        ValueError: The answer is not JSON.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with _opener.open(request, timeout=timeout_s) as response:
        return json.loads(response.read())


@dataclass
class Spec:
    """What an instance is to be.

    Attributes:
        name: Its id and the name of its folder: "master", "w1", or any word of the caller's.
        nodes: Custom-node folders to load besides the pack.
        models: Folder of models to show it, or None for none.
        key: The fleet key; the empty string starts it without one.
        pack: Whether it loads the pack; without, it is a plain ComfyUI.
        env: Environment variables to add.
        args: Arguments for main.py to append.
        workers: What to write into its worker registry before it starts; None writes nothing.
        api_nodes: Whether the host loads its API nodes (slower to start).
    """

    name: str
    nodes: list[Path] = field(default_factory=list)
    models: Path | None = None
    key: str = ""
    pack: bool = True
    env: dict[str, str] = field(default_factory=dict)
    args: list[str] = field(default_factory=list)
    workers: list[dict[str, Any]] | None = None
    api_nodes: bool = False


class Instance:
    """A ComfyUI process with folders of its own. Made by `Fleet`.

    Attributes:
        id: The name it was asked by.
        url: Where it answers, without a slash at the end.
        folder: Its own folder, with `input`, `output`, `temp`, `user`, `custom_nodes`.
        log_path: Everything it printed.
    """

    def __init__(self, spec: Spec, host: Host, port: int, folder: Path, threads: int | None) -> None:
        self.spec = spec
        self.host = host
        self.port = port
        self.folder = folder
        self.threads = threads
        self.log_path = folder / "comfyui.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._past_pids: list[int] = []

    def __repr__(self) -> str:
        return f"<Instance {self.id} {self.url}>"

    @property
    def id(self) -> str:
        """Its id in the fleet."""
        return self.spec.name

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id. Raises RuntimeError before the first start."""
        if self.process is None:
            raise RuntimeError(f"{self.id} was never started")
        return self.process.pid

    @property
    def user_folder(self) -> Path:
        """The host's user directory of this instance."""
        return self.folder / "user"

    def prepare(self) -> None:
        """Makes the instance's folders, links and configuration files."""
        for name in ("input", "output", "temp", "user", "custom_nodes", "system-temp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        wanted = {path.name: path for path in self.spec.nodes}
        if self.spec.pack:
            wanted[PACK_LINK] = ROOT
        for name, target in wanted.items():
            if not (self.folder / "custom_nodes" / name).exists():
                link_folder(target, self.folder / "custom_nodes" / name)
        if self.spec.models is not None:
            # JSON is YAML, and quotes every path rightly.
            config = {"base_path": str(self.spec.models), **{name: name for name in MODEL_FOLDERS}}
            (self.folder / "models.yaml").write_text(json.dumps({"fleet": config}, indent=1), encoding="utf-8")
        if self.spec.workers is not None:
            registry = self.user_folder / SYSTEM_USER_FOLDER / "workers.json"
            registry.parent.mkdir(parents=True, exist_ok=True)
            content = {"version": 1, "workers": self.spec.workers, "settings": {}}
            registry.write_text(json.dumps(content, indent=2), encoding="utf-8")

    def command(self) -> list[str]:
        """The command line that starts it."""
        parts = [str(self.host.python), str(Path(__file__).with_name("launcher.py")), str(self.host.folder / "main.py")]
        parts += ["--cpu", "--listen", LOOPBACK, "--port", str(self.port), "--disable-auto-launch"]
        # A base directory of its own keeps the host's custom nodes and models out, the user's own ones above all.
        parts += ["--base-directory", str(self.folder), "--user-directory", str(self.user_folder)]
        parts += ["--database-url", f"sqlite:///{(self.user_folder / 'comfyui.db').as_posix()}"]
        if self.spec.models is not None:
            parts += ["--extra-model-paths-config", str(self.folder / "models.yaml")]
        if not self.spec.api_nodes:
            parts.append("--disable-api-nodes")
        return parts + self.spec.args

    def environment(self) -> dict[str, str]:
        """The environment it runs in."""
        env = dict(os.environ)
        env["PYTHONUNBUFFERED"] = "1"
        env["PYTHONUTF8"] = "1"
        env[KEY_VARIABLE] = self.spec.key
        env["FLOTILLA_KIT_NAME"] = self.id  # what the test kit's nodes call the instance
        for name in ("TMPDIR", "TEMP", "TMP"):
            env[name] = str(self.folder / "system-temp")
        if self.threads is not None:
            # The same number for every instance: sums split over another number of threads round differently.
            for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
                env[name] = str(self.threads)
        env.update(self.spec.env)
        return env

    def start(self) -> None:
        """Starts the process. Does not wait for it to answer."""
        self.prepare()
        flags = 0
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl+C in the terminal is for the fleet, which then stops its instances in good order.
                start_new_session=os.name != "nt",
                creationflags=flags,
            )
        self._past_pids.append(self.process.pid)

    def alive(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.poll() is None

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return None if self.process is None else self.process.poll()

    def ready(self) -> bool:
        """Whether it answers, is really this instance, and has loaded the pack if it is to have it."""
        return self._is_up() and (not self.spec.pack or self._has_pack() is True)

    def answers_without_pack(self) -> bool:
        """Whether the host is up although the pack's node is missing: its import failed."""
        return self._is_up() and self.spec.pack and self._has_pack() is False

    def _is_up(self) -> bool:
        """Whether something answers on its port and is this instance: another fleet's may have won the port."""
        try:
            return str(self.folder) in request_json(f"{self.url}/system_stats")["system"]["argv"]
        except (OSError, ValueError, KeyError):
            return False

    def _has_pack(self) -> bool | None:
        """Whether the host knows the pack's node; None while it does not say. A host answers after importing packs."""
        try:
            return PROBE_NODE in request_json(f"{self.url}/object_info/{PROBE_NODE}")
        except (OSError, ValueError):
            return None

    def log_tail(self, count: int = LOG_TAIL_LINES) -> str:
        """The last lines that it printed, and before them those that follow its first traceback."""
        try:
            lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        tail_start = max(0, len(lines) - count)
        trace = next((number for number, line in enumerate(lines) if "Traceback (most recent" in line), tail_start)
        return "\n".join([*lines[trace : min(trace + count, tail_start)], *lines[tail_start:]])

    def lost_its_port(self) -> bool:
        """Whether it ended because somebody else had taken its port meanwhile."""
        tail = self.log_tail().lower()
        return not self.alive() and any(sign in tail for sign in PORT_TAKEN_SIGNS)

    def ask_to_stop(self) -> None:
        """Lets it end in good order: the end of its stdin makes the launcher press Ctrl+C for it."""
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    def kill(self) -> None:
        """Ends the process at once (SIGKILL) and waits until it is gone."""
        if self.process is None:
            return
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        self.ask_to_stop()

    def remove_leftovers(self) -> None:
        """Removes what killed processes of this instance left in memory-backed folders; the rest is in its folder."""
        for pid in self._past_pids:
            for path in MEMORY_FOLDER.glob(f"flotilla-*/spool-{pid}-*"):
                with contextlib.suppress(OSError):
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()

    def freeze(self) -> None:
        """Stops the process in its tracks (POSIX only): alive, but silent. `thaw` lets it go on."""
        if sys.platform == "win32":
            raise NotImplementedError("Windows has no SIGSTOP")
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets a frozen process go on."""
        if sys.platform == "win32":
            raise NotImplementedError("Windows has no SIGCONT")
        os.kill(self.pid, signal.SIGCONT)
