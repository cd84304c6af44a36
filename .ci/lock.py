"""Writes locks/: what `make setup` installs, and what the extra `bench` adds, each file with its SHA-256.

Versions are those of constraints.txt. torch is not among them, since its builds for CPU and CUDA differ. Hashes are of
the one file that pip takes for CPython 3.11 on Linux x86_64, all that dm-reverb has a build for. Run by `make lock`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = {"setuptools"}
"""What the one sdist (of antlr4) and Clowder itself are built with; installed before the others."""
BESIDE = re.compile("[n-s]")
"""Installed at the same time as the others, with torch: half of all there is to look up, unpack and compile."""
OF_TORCH = re.compile(r"nvidia-|cuda-|triton|torch$|clowder$")
"""What is not locked: torch, what its CUDA build brings, and Clowder."""


def canonical(name: str) -> str:
    """Name of a distribution as names are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolved(extras: str) -> dict[str, str]:
    """Lines of a lock by canonical name, for Clowder with some extras; nothing is installed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = ["install", "--dry-run", "--ignore-installed", "--quiet", "--disable-pip-version-check"]
        words += ["--report", str(report), "-c", "constraints.txt", f".[{extras}]"]
        subprocess.run([sys.executable, "-m", "pip", *words], check=True, cwd=ROOT, timeout=1800)
        installed = json.loads(report.read_text())["install"]
    lines = {}
    for each in installed:
        name, version = each["metadata"]["name"], each["metadata"]["version"]
        if not OF_TORCH.match(canonical(name)):
            digest = each["download_info"]["archive_info"]["hashes"]["sha256"]
            lines[canonical(name)] = f"{name}=={version} \\\n    --hash=sha256:{digest}"
    return lines


def main() -> None:
    """Resolve and write; exit with the names that constraints.txt does not pin."""
    setup = resolved("dev")
    bench = resolved("dev,bench")
    pinned = {canonical(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    if missing := sorted(bench[name].split(" ")[0] for name in bench.keys() - pinned):
        sys.exit(f"not in constraints.txt: {' '.join(missing)}; add these lines and run this again")
    parts = {
        "build.txt": BUILD,
        "setup.txt": {name for name in setup.keys() - BUILD if not BESIDE.match(name)},
        "beside.txt": {name for name in setup.keys() - BUILD if BESIDE.match(name)},
        "bench.txt": bench.keys() - setup.keys(),
    }
    for file, names in parts.items():
        text = "".join(f"{bench[name]}\n" for name in sorted(names))
        (ROOT / "locks" / file).write_text(f"# Written by `make lock` from constraints.txt.\n{text}")


if __name__ == "__main__":
    main()
