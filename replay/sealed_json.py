"""JSON objects that carry a hash of themselves, so that a file that was changed is not taken for what was written.

For the files that say what others hold: manifests of checkpoints, settings and facts of demonstration sets. Against
accidents, not against forgers. It lies on this floor since learner and actors, who know nothing of each other, use it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEAL = "seal"


def seal(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same with its hash under the key `SEAL`."""
    return {**data, SEAL: _digest(data)}


def read_sealed(path: Path) -> dict[str, Any]:
    """The object in a JSON file, without its seal; one that has none (earlier versions wrote none) is taken as it is.

    Raises:
        OSError: there is no such file.
        ValueError: it is not a JSON object, or not what was sealed.
    """
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error})") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} is not a JSON object")
    if SEAL in data and data.pop(SEAL) != _digest(data):
        raise ValueError(
            f"{path} was changed: its seal is not that of its content (was it by hand? then delete its key {SEAL!r})"
        )
    return data


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
