"""`read_yaml`: plain data from a YAML file, whatever is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from distributed.errors import ConfigError

NOT_YAML = (yaml.YAMLError, ValueError, RecursionError, AttributeError, LookupError)
"""What PyYAML raises of a file: ValueError of bytes that are not UTF-8 and of a 99th of the month, RecursionError of a
thousand brackets, the last two of a tag that does not fit its value, such as ``!!timestamp x``."""


def read_yaml(path: Path) -> Any:
    """What a file says; nothing in it is executed. ConfigError, of one line, where it cannot be read or is no YAML."""
    try:
        return yaml.safe_load(path.read_text())
    except (OSError, *NOT_YAML) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
