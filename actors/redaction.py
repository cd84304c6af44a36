"""What looks like a secret: it is refused in a configuration, which is written to disk, and blotted out of other text.

A secret is known by its form, such as the tokens of code hosts and passwords in addresses, by the name of the argument
that it is given to, or because it is the value of an environment variable of such a name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

BLOT = "<redacted>"
SHORTEST = 8
"""Characters below which the value of an environment variable is no secret: it would be found in ordinary words."""
_NAMED = re.compile(
    r"(^|_)(token|secret|password|passwd|passphrase|apikey|credentials?|(api|access|private|secret)_key)(_|$)"
)
_PLACES = ("path", "file", "dir", "folder", "url", "name", "type")
"""Last words of names whose values only say where or what a secret is."""
_FORMS = re.compile(
    r"\b(?:gh[pousr]_|github_pat_|glpat-|hf_|sk-|xox[abprs]-|AKIA)[A-Za-z0-9_-]{16,}"  # tokens of well-known services
    r"|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"  # user:password@ of an address
)


def names_a_secret(name: str) -> bool:
    """Whether a variable or argument of this name holds a secret: ``API_KEY``, ``authToken``, not ``max_tokens``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).lower()
    return bool(_NAMED.search(words)) and words.rsplit("_", 1)[-1] not in _PLACES


def redact(text: str) -> str:
    """The text with a blot in the place of each secret."""
    for value in sorted(_values(), key=len, reverse=True):
        text = text.replace(value, BLOT)
    return _FORMS.sub(BLOT, text)


def refuse_secrets(data: Any, where: str) -> None:
    """Raise ValueError, naming the key, where plain data holds a secret.

    Args:
        data: dictionaries, lists and values, as YAML has them.
        where: dotted key of ``data``; empty for a whole configuration.
    """
    for key, value in _texts(data, where):
        if value and (names_a_secret(key.rsplit(".", 1)[-1]) or redact(value) != value):
            raise ValueError(
                f"{key} looks like a secret, and a configuration is written to files that are passed on; leave it out, "
                "and have your environment read it from an environment variable, which all its processes have"
            )


def _texts(data: Any, where: str) -> Iterator[tuple[str, str]]:
    """Dotted key and value of each text."""
    if isinstance(data, str):
        yield where, data
    pairs = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, list | tuple) else ()
    for key, value in pairs:
        yield from _texts(value, where if isinstance(key, int) else f"{where}.{key}".lstrip("."))


def _values() -> set[str]:
    return {value for name, value in os.environ.items() if len(value) >= SHORTEST and names_a_secret(name)}
