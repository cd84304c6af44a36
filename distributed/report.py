"""The one form of what a benchmark or a study prints: JSON with the command and the machine it ran on."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def write_report(module: str, figures: dict[str, Any], out: Path | None = None) -> None:
    """Print one JSON object, and write it to ``out`` where given; ``module`` is what ``python -m`` was given."""
    report = {
        "benchmark": module.rpartition(".")[2],
        "command": shlex.join(["python", "-m", module, *map(anywhere, sys.argv[1:])]),
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "load_1_minute": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
            "torch": metadata.version("torch"),
        },
        **figures,
    }
    text = json.dumps(report, indent=2)
    print(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")


def anywhere(word: str) -> str:
    """A word of a command line with absolute paths cut to their last part: where they lay is no reader's business."""
    return re.sub(r"(^|[=\[,])/(?:[^\s,\]/]+/)*", r"\1", word)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
