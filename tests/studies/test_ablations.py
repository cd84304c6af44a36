"""What each variant is compared with, and what its run is told."""

import argparse
from pathlib import Path

import numpy as np

from distributed.compose import compose
from studies.ablations import CHANGES, OBJECTIVES, overrides, rows


def test_a_variant_is_compared_with_the_default_of_its_part() -> None:
    rng = np.random.default_rng(0)

    def seeds(mean: float) -> list[np.ndarray]:
        return [mean + rng.normal(size=40) for _ in range(3)]

    returns = {
        ("weak", "return_conditioned"): seeds(20.0),
        ("weak", "asked none"): seeds(10.0),
        ("weak", "advantage_filtered"): seeds(25.0),
        ("online", "default"): seeds(50.0),
        ("online", "best_table"): seeds(50.0),
    }
    found = {(row["set"], row["variant"]): row for row in rows(returns)}
    assert {key: row.get("against") for key, row in found.items()} == {
        ("weak", "return_conditioned"): "advantage_filtered",
        ("weak", "asked none"): "return_conditioned",
        ("weak", "advantage_filtered"): None,
        ("online", "default"): None,
        ("online", "best_table"): "default",
    }
    asked = found["weak", "asked none"]
    assert asked["holds"] and -11 < asked["difference"] < -9  # below holds as well as above
    assert not found["online", "best_table"]["holds"]


def test_every_variant_is_one_change() -> None:
    default = set(CHANGES["default"])
    assert all(default < set(words) for name, words in CHANGES.items() if name != "default")
    offline = set(OBJECTIVES["advantage_filtered"])
    assert all(offline <= set(words) for words in OBJECTIVES.values())


def test_overrides_compose() -> None:
    options = argparse.Namespace(updates=7, overrides=["agent.width=32"])
    for words in (*OBJECTIVES.values(), *CHANGES.values()):
        config = compose(overrides("balance", Path("somewhere"), words, options))
        assert config.learner.steps == 7 and config.agent.width == 32
