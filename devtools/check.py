"""`dev.py check` and `dev.py test`: what must hold before a change goes in, as CI runs it."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomlkit

from .env import say, wait_for
from .files import link_folder, process_lock, remove_tree
from .paths import DEV, ROOT

TESTS = ROOT / "tests"
MIRROR = DEV / "check" / "mirror"
PACK = "flotilla"
BESIDE_THE_PACK = ("benchmarks", "devtools", "docs", "example_workflows", "tests", "web")
MODULE_LINES = 400
SLOW_MARKERS = ("integration", "browser", "matrix")
PYPROJECT = ROOT / "pyproject.toml"

WIRE_FIELD = re.compile(r"(api/wire|workers/(messages|entries))[^:]*\.py:\d+: unused variable")
"""A finding of vulture about a field of a model that exists to be read elsewhere: over a wire, or by older tools."""


@dataclass(frozen=True)
class Outcome:
    """How a step ended: whether it passed, and what it has to say."""

    passed: bool
    text: str = ""


@dataclass(frozen=True)
class Step:
    """One check, by name."""

    name: str
    run: Callable[[], Outcome]


def python_files() -> list[Path]:
    """Every Python file of the project."""
    folders = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted([*ROOT.glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))])


def rooms() -> list[Path]:
    """The pack's own packages: folders of the root with an __init__.py."""
    return sorted(
        path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name not in BESIDE_THE_PACK and path.is_file()
    )


def make_mirror() -> Path:
    """A folder in which the checkout is the importable package `flotilla`, whatever the checkout is called.

    The pack's folder is the root of the repository, so linters that want a package find it here: links to the rooms
    and copies of the root's modules, with `devtools` and `benchmarks` beside it.
    """
    if MIRROR.exists():
        remove_tree(MIRROR)
    (MIRROR / PACK).mkdir(parents=True)
    for module in (ROOT / "__init__.py", ROOT / "plugin.py"):
        if module.exists():
            (MIRROR / PACK / module.name).write_bytes(module.read_bytes())
    for room in rooms():
        link_folder(room, MIRROR / PACK / room.name)
    for name in ("benchmarks", "devtools"):
        if (ROOT / name).is_dir():
            link_folder(ROOT / name, MIRROR / name)
    (MIRROR / "dev.py").write_bytes((ROOT / "dev.py").read_bytes())
    return MIRROR


def _tool(*arguments: str, cwd: Path = ROOT) -> Outcome:
    """Runs a tool of the environment; it passes when it exits with 0."""
    env = {**os.environ, "PYTHONPATH": str(cwd), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return Outcome(done.returncode == 0, done.stdout.strip())


def _types() -> Outcome:
    packages = ["-p", PACK, "-p", "devtools", "-m", "dev"]
    if any((MIRROR / "benchmarks").glob("*.py")):
        packages += ["-p", "benchmarks"]
    return _tool("-m", "mypy", "--config-file", str(PYPROJECT), *packages, cwd=MIRROR)


def _floors() -> Outcome:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return _tool("-c", code, "--config", str(PYPROJECT), "--no-cache", cwd=MIRROR)


def _dead_code() -> Outcome:
    paths = [
        *rooms(),
        *(ROOT / name for name in ("devtools", "tests", "benchmarks", "dev.py", "__init__.py", "plugin.py")),
    ]
    present = [str(path.relative_to(ROOT)) for path in paths if path.exists()]
    outcome = _tool("-m", "vulture", "--config", str(PYPROJECT), *present)
    findings = [line for line in outcome.text.splitlines() if not WIRE_FIELD.match(line)]
    return Outcome(not findings, "\n".join(findings))


def _duplicates() -> Outcome:
    return _tool("-m", "pylint", "--rcfile", str(PYPROJECT), "--score", "n", PACK, "devtools", cwd=MIRROR)


def requirement_lines(path: Path) -> list[str]:
    """The requirements of a file, without comments and blank lines."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _requirements() -> Outcome:
    listed = sorted(requirement_lines(ROOT / "requirements.txt"))
    document = tomlkit.parse(PYPROJECT.read_text(encoding="utf-8")).unwrap()
    declared = sorted(document["project"]["dependencies"])
    if listed == declared:
        return Outcome(True)
    return Outcome(False, f"requirements.txt has {listed}\npyproject.toml has  {declared}")


def _lengths() -> Outcome:
    long = [(path, len(path.read_text(encoding="utf-8").splitlines())) for path in python_files()]
    found = [f"{path.relative_to(ROOT)} has {lines} lines" for path, lines in long if lines > MODULE_LINES]
    return Outcome(True, "\n".join(f"warning: {text}; a module past {MODULE_LINES} asks to be two" for text in found))


STEPS = (
    Step("format", lambda: _tool("-m", "ruff", "format", "--check", "--output-format", "concise", ".")),
    Step("lint", lambda: _tool("-m", "ruff", "check", "--output-format", "concise", ".")),
    Step("types", _types),
    Step("import floors", _floors),
    Step("dead code", _dead_code),
    Step("duplicate code", _duplicates),
    Step("requirements", _requirements),
    Step("module lengths", _lengths),
)


def _names_a_path(argument: str) -> bool:
    return not argument.startswith("-") and Path(argument.split("::")[0]).exists()


def run_tests(arguments: Sequence[str], fast: bool = False) -> int:
    """Runs pytest on `tests/`, or on the paths among its arguments; returns its exit status."""
    rest = [argument for argument in arguments if argument != "--"]
    command = [sys.executable, "-m", "pytest", "-c", str(TESTS / "pytest.ini"), "--rootdir", str(TESTS)]
    command += ["-o", f"cache_dir={DEV / 'pytest_cache'}"]
    if fast:
        command += ["-m", " and ".join(f"not {marker}" for marker in SLOW_MARKERS)]
    if not any(_names_a_path(argument) for argument in rest):
        command.append(str(TESTS))
    sys.stdout.flush()
    return wait_for(subprocess.Popen([*command, *rest]))


def run(options: argparse.Namespace) -> int:
    """Carries out `dev.py check`; returns the exit status. The tests come last and end the output."""
    if options.fix:
        for arguments in (("check", "--fix", "--quiet", "."), ("format", "--quiet", ".")):
            _tool("-m", "ruff", *arguments)
    failed = []
    with process_lock(DEV / "check.lock"):
        make_mirror()
        for step in STEPS:
            started_s = time.monotonic()
            outcome = step.run()
            verdict = "ok" if outcome.passed else "FAILED"
            print(f"{step.name:16} {time.monotonic() - started_s:6.1f} s  {verdict}", flush=True)
            if outcome.text and (not outcome.passed or step.name == "module lengths"):
                print("\n".join(f"    {line}" for line in outcome.text.splitlines()), flush=True)
            if not outcome.passed:
                failed.append(step.name)
    if failed:
        say(f"Failed: {', '.join(failed)}.")
    if options.no_tests:
        return 1 if failed else 0
    print(f"{'tests':16}", flush=True)
    status = run_tests([])
    return status or (1 if failed else 0)
