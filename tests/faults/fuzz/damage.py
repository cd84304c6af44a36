"""What fuzzing does to bytes and to JSON, and how often."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

MANY = int(os.environ.get("CLOWDER_FUZZ_CASES", "0"))


def cases(few: int, share: float) -> Callable[[Any], Any]:
    """So many examples in `make test`, and that share of a target's many in `make fuzz`."""
    return settings(
        max_examples=max(1, round(MANY * share)) if MANY else few,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "overwrite", "truncate", "remove", "flip", "repeat"]),
        st.integers(0, 2**24),
        st.binary(min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=3,
)


def edited(data: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    """Bytes after some damage."""
    for kind, where, what in edits:
        at = where % (len(data) + 1)
        if kind == "insert":
            data = data[:at] + what + data[at:]
        elif kind == "overwrite":
            data = data[:at] + what + data[at + len(what) :]
        elif kind == "truncate":
            data = data[:at]
        elif kind == "remove":
            data = data[:at] + data[at + what[0] :]
        elif kind == "repeat":
            data = data[:at] + data[max(0, at - 8 * what[0]) :]
        elif at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << what[0] % 8)]) + data[at + 1 :]
    return data


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["os:system", "../../x", "/etc/passwd", "!!python/name:os.system", "nan", "${oc.env:HOME}", "${x}"]
    ),
)
VALUES = st.one_of(PLAIN, st.lists(PLAIN, max_size=3), st.dictionaries(st.text(max_size=4), PLAIN, max_size=2))
JSON_EDITS = st.lists(
    st.tuples(st.sampled_from(["replace", "delete", "rename", "copy"]), st.integers(0, 2**16), VALUES),
    min_size=1,
    max_size=2,
)


def places(data: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in plain data."""
    keys = list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    return [each for key in keys for each in [(data, key), *places(data[key])]]


def edited_json(data: Any, edits: list[tuple[str, int, Any]]) -> Any:
    """Plain data after some changes to its form or values."""
    data = copy.deepcopy(data)
    for kind, where, value in edits:
        found = places(data)
        if not found:
            continue
        container, key = found[where % len(found)]
        if kind == "replace":
            container[key] = value
        elif kind == "delete":
            del container[key]
        elif kind == "rename" and isinstance(container, dict):
            container[str(value)] = container.pop(key)
        else:
            other, other_key = found[(7 * where + 3) % len(found)]
            with contextlib.suppress(KeyError, IndexError):
                container[key] = copy.deepcopy(other[other_key])
    return data
