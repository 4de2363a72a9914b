"""Runs one ComfyUI for a fleet: `launcher.py <main.py> [arguments of main.py]`.

The fleet holds the write end of this process's stdin and never writes. When the pipe ends, because the fleet stops us
or because the fleet itself died, ComfyUI gets Ctrl+C, and after a grace period the process ends whatever happens.
So no instance outlives its fleet, on any system. Standard library only; runs on the host's interpreter.
"""

import contextlib
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

GRACE_S = 6.0
"""How long ComfyUI has for its exit handlers after Ctrl+C."""


def _end_with_stdin(pipe: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(pipe, 1024):
            pass
    if sys.platform == "win32":
        import _thread

        _thread.interrupt_main()
    else:
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(GRACE_S)
    os._exit(1)


def main() -> None:
    """Replaces stdin by the null device, starts the watch, and becomes ComfyUI's main.py."""
    # A process started in the background of a script inherits an ignored SIGINT, and would not stop by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    watched = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)  # processes that the host starts must not share the pipe
    os.close(null)
    threading.Thread(target=_end_with_stdin, args=(watched,), name="fleet-watch", daemon=True).start()
    script = Path(sys.argv[1]).absolute()
    sys.argv = [str(script), *sys.argv[2:]]
    sys.path[0] = str(script.parent)
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
