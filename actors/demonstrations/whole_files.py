"""Files that are either whole or not there: written aside, flushed to disk, renamed into place."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_whole(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``; an interruption or a full disk leaves the former file."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_json(path: Path, data: Any) -> None:
    """`write_whole` of indented JSON."""
    write_whole(path, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())
