"""`dev.py fleet`: a fleet that lives until Ctrl+C, SIGTERM or the end of stdin."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from types import FrameType

from .env import say
from .fleet import Fleet, FleetError
from .hosts import resolve


class Ended(BaseException):
    """Somebody wants the fleet to end. Not an Exception, so that nothing on the way mistakes it for a failure."""


def raise_ended(number: int, frame: FrameType | None) -> None:
    """A signal handler that unwinds the main thread, once: an impatient second signal must not stop the tidying up."""
    ignore_signals()
    raise Ended


def end_on_signals() -> None:
    """Makes SIGINT and SIGTERM raise `Ended` in the main thread, also where they were inherited as ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), raise_ended)


def ignore_signals() -> None:
    """From now on nothing interrupts."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def end_on_stdin() -> None:
    """Sends this process SIGTERM (or its like) when stdin ends."""

    def watch() -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError:
            return  # no stdin to read from, as for a background job of a terminal: only signals end the fleet
        if os.name == "nt":
            import _thread

            _thread.interrupt_main()
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    if hasattr(signal, "SIGTTIN"):
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    threading.Thread(target=watch, name="stdin-watch", daemon=True).start()


def wait_for_end() -> None:
    """Blocks until a handler of `end_on_signals` raises."""
    forever = threading.Event()
    while True:
        forever.wait(1.0)  # bounded, because Windows delivers signals only between waits


def describe(fleet: Fleet) -> str:
    """The fleet for a person to read."""
    lines = [f"Master    {fleet.master.url}   (pid {fleet.master.pid}, log {fleet.master.log_path})"]
    lines += [f"{worker.id:9} {worker.url}   (pid {worker.pid}, log {worker.log_path})" for worker in fleet.workers]
    return "\n".join(lines)


def run(options: argparse.Namespace) -> int:
    """Carries out `dev.py fleet`; returns the exit status."""
    end_on_signals()
    end_on_stdin()
    fleet: Fleet | None = None
    up = False
    try:
        fleet = Fleet(
            workers=options.workers,
            host=resolve(options.host, options.comfyui),
            extra_nodes=options.extra_nodes,
            base_port=options.base_port,
            threads=options.threads,
            pack=not options.plain,
            api_nodes=options.api_nodes,
        )
        if not options.json:
            say(f"Starting a master and {options.workers} workers (ComfyUI {fleet.host.version}) ...")
        fleet.start()
        up = True
        print(json.dumps(fleet.summary()) if options.json else describe(fleet), flush=True)
        if not options.json:
            say("Ctrl+C ends the fleet.")
        wait_for_end()
    except Ended:
        if not up:
            say("Ended before the fleet was up.")
        return 0 if up else 1
    except (FleetError, RuntimeError, OSError) as error:
        say(f"The fleet did not start: {error}")
        return 1
    finally:
        ignore_signals()
        if fleet is not None:
            fleet.stop()
        sys.stdout.flush()
    return 0
