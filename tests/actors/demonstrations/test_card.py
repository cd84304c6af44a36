"""Cards agree with their sets, and say what the sets cannot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from actors.demonstrations.card import CARD, make_card
from actors.demonstrations.demonstration_set import DemonstrationSetError
from actors.demonstrations.open_set import load_set
from actors.demonstrations.record import record
from tests.actors.demonstrations.sets import BABYAI


@pytest.mark.parametrize("form", ["minari", "actions"])
def test_a_recorded_set_has_a_card_that_agrees_with_it(form: str, tmp_path: Path) -> None:
    settings = {"form": form, "noise_levels": [0.2], "noise_share": 0.25, "random_seconds": 0, "command": "make it"}
    record(BABYAI, "babyai-bot", 4, tmp_path, **settings)
    opened = load_set(tmp_path)
    card = make_card(opened)
    assert (card.task, card.expert, card.form, card.episodes) == (BABYAI.task, "babyai-bot", form, 4)
    assert card.noise == {"levels": [0.2], "share": 0.25} and card.noisy_episodes == opened.noisy.sum()
    assert card.returns["mean"] == opened.returns.mean() and card.returns["median"] == np.median(opened.returns)
    assert (card.returns["min"], card.returns["max"]) == (opened.returns.min(), opened.returns.max())
    assert (card.first_seed, card.last_seed) == (opened.seeds[0], opened.seeds[-1])
    assert card.command == "make it" and card.versions == opened.settings.versions
    assert json.loads((tmp_path / CARD).read_text()) == card.to_json()
    page = (tmp_path / "README.md").read_text()
    for said in (BABYAI.task, "babyai-bot", "make it", "0.2", f"{opened.demonstrator_return:.6g}", "minigrid"):
        assert said in page
    record(BABYAI, "babyai-bot", 6, tmp_path, **settings | {"command": ""})
    assert json.loads((tmp_path / CARD).read_text())["episodes"] == 6
    assert make_card(load_set(tmp_path)).command == "make it"  # what is not said anew stays


def test_a_damaged_card_says_that_the_set_does_without(tmp_path: Path) -> None:
    record(BABYAI, "babyai-bot", 1, tmp_path, random_seconds=0)
    (tmp_path / CARD).write_text("{")
    with pytest.raises(DemonstrationSetError, match="delete it, the set does without"):
        make_card(load_set(tmp_path))
    (tmp_path / CARD).unlink()
    assert make_card(load_set(tmp_path)).command == "unknown"
