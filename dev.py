"""Flotilla's development command: `python dev.py demo | test | check | fleet | setup`.

Needs nothing but Python 3.10 to 3.13. It makes `.venv` in the checkout, obtains ComfyUI, and runs the command there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from devtools import env, hosts, paths

MOST_WORKERS = 64
MOST_THREADS = 1024


def _whole(lowest: int, highest: int) -> Callable[[str], int]:
    """A type for argparse: a whole number in a range."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = lowest - 1
        if not lowest <= number <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {lowest} to {highest}")
        return number

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dev.py", description="Flotilla's development command.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, allow_abbrev=False)

    def add_host(command: argparse.ArgumentParser) -> None:
        command.add_argument("--comfyui", metavar="PATH", help="your own ComfyUI folder (or set COMFYUI_PATH)")
        command.add_argument("--host", metavar="VERSION", help=f"ComfyUI of the matrix: {', '.join(hosts.MATRIX)}")

    demo = add("demo", "Make pictures on a master and two workers, and compare them with a single server's.")
    add_host(demo)
    demo.add_argument(
        "--workers", type=_whole(0, MOST_WORKERS), default=2, metavar="N", help="workers beside the master (default 2)"
    )
    demo.add_argument("--keep", action="store_true", help="leave the fleet up and print its addresses")

    fleet = add("fleet", "Start a master and workers on this machine, until Ctrl+C or the end of stdin.")
    add_host(fleet)
    fleet.add_argument(
        "--workers", type=_whole(0, MOST_WORKERS), default=2, metavar="N", help="how many workers (default 2)"
    )
    fleet.add_argument(
        "--base-port", type=_whole(1024, 65_535), metavar="P", help="first port to try; drawn at random without"
    )
    fleet.add_argument("--json", action="store_true", help="print one line of JSON once all answer")
    fleet.add_argument("--extra-nodes", action="append", default=[], metavar="DIR", help="more custom nodes for all")
    fleet.add_argument("--threads", type=_whole(1, MOST_THREADS), metavar="N", help="torch threads per instance")
    fleet.add_argument("--plain", action="store_true", help="plain ComfyUI servers, without Flotilla")
    fleet.add_argument("--api-nodes", action="store_true", help="let the hosts load their API nodes")

    test = add("test", "Run the tests; unknown arguments go to pytest.")
    test.add_argument("--fast", action="store_true", help="leave out tests that start servers or browsers")

    check = add("check", "Format, lint, types, import floors, dead and duplicate code, tests: all that CI runs.")
    check.add_argument("--no-tests", action="store_true", help="leave the tests out")
    check.add_argument("--fix", action="store_true", help="let ruff format and repair first")

    setup = add("setup", "Only make the environment, and optionally other hosts of the matrix.")
    setup.add_argument("--host", action="append", default=[], metavar="VERSION", help="also make this host ready")
    return parser


def _run(options: argparse.Namespace, rest: list[str]) -> int:
    """Runs the command inside the environment. Imports late: these modules may use what was installed."""
    if options.command == "demo":
        from devtools import demo

        return demo.run(options)
    if options.command == "fleet":
        from devtools import fleet_cli

        return fleet_cli.run(options)
    if options.command == "test":
        from devtools import check

        return check.run_tests(rest, fast=options.fast)
    if options.command == "check":
        from devtools import check

        return check.run(options)
    for version in options.host:
        hosts.obtain(version)
    env.say(f"Ready: {paths.VENV}")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Parses the command line, makes the environment ready, and runs the command; returns the exit status."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "test":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        if not env.inside_venv():
            env.bootstrap()
            env.install(hosts.obtain_tree() / "requirements.txt")
            return env.reexecute(arguments)
        env.install(hosts.obtain_tree() / "requirements.txt")
        return _run(options, rest)
    except env.SetupError as error:
        env.say(f"\n{error}")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
