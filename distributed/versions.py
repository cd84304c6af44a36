"""Which code runs: versions of packages, the git commit, and where our own packages were loaded from."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
from pathlib import Path

from distributed.errors import ClowderError

PACKAGES = ("agent", "actors", "learner", "replay", "distributed", "configs")
"""Our import packages; such names are easily shadowed (`distributed` is also Dask's)."""
REQUIREMENTS = (
    "torch", "numpy", "ray", "dm-reverb", "tensorflow-cpu", "gymnasium", "ale-py", "dm_control", "mujoco", "minigrid",
    "minari", "pyarrow", "hydra-core", "omegaconf", "safetensors", "sentencepiece", "tensorboard", "matplotlib",
    "imageio-ffmpeg", "rich", "psutil",
)  # fmt: skip
"""Distributions that matter for what a run does."""


def repository_root() -> Path:
    """The folder that holds our packages: the checkout, or site-packages of an installed wheel."""
    return Path(__file__).resolve().parent.parent


def package_versions() -> dict[str, str]:
    """Version of Clowder and of each distribution of `REQUIREMENTS`; ``missing`` where it is not installed."""
    versions = {}
    for name in ("clowder", *REQUIREMENTS):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "missing"
    return versions


def git_commit() -> str:
    """Commit of the checkout, with ``+changes`` where files differ from it; ``not a checkout`` outside of one."""
    root = repository_root()
    if not (root / ".git").exists():
        return "not a checkout"
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "not a checkout"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def package_locations() -> dict[str, Path | None]:
    """Folder that each of our packages is loaded from in this process; None where it is not found."""
    locations: dict[str, Path | None] = {}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        places = list(spec.submodule_search_locations or ()) if spec else []
        locations[name] = Path(places[0]).resolve() if places else None
    return locations


def check_packages() -> None:
    """Raise ClowderError where one of our packages is shadowed by another of the same name; called at every start."""
    root = repository_root()
    for name, place in package_locations().items():
        if place is None:
            raise ClowderError(f"the package {name!r} of Clowder is not found; repeat `make setup`")
        if place != root / name:
            raise ClowderError(
                f"the package {name!r} was loaded from {place}, not from {root / name}: something of the same name "
                f"comes first on Python's path; start from another folder, or uninstall it (pip uninstall {name})"
            )
