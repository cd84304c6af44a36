"""The sets that ship: small, of the tasks that name them, and still what was recorded."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from actors.config import ActorConfig
from actors.demonstrations.card import CARD, make_card
from actors.demonstrations.open_set import load_set, open_set, shipped_sets
from actors.experts.make import EXPERTS, expert_sees

CONFIGS = Path(__file__).parents[3] / "configs" / "actors"
NAMES = {
    "babyai-captions": "babyai_captions",
    "babyai-goto-local": "babyai_goto_local",
    "babyai-questions": "babyai_questions",
    "boxing": "boxing",
    "cartpole-swingup": "cartpole_swingup",
    "sonnets": "sonnets",
}
EXPLORED = {"montezuma-revenge": 0.25, "montezuma-revenge-found": 0.0}
"""Stickiness of the sets that an explorer found; no actor config names them, the experiment does."""


def test_no_other_sets_ship_and_they_are_small() -> None:
    assert sorted(shipped_sets()) == sorted([*NAMES, *EXPLORED])
    files = [path for folder in shipped_sets().values() for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000


@pytest.mark.parametrize("name", [*NAMES, *EXPLORED])
def test_a_shipped_set_has_a_card_that_agrees_with_it(name: str) -> None:
    opened = load_set(name)
    card = make_card(opened)
    assert json.loads((opened.folder / CARD).read_text()) == card.to_json()
    assert card.sees == (expert_sees(card.expert) if card.expert in EXPERTS else "simulator state")


@pytest.mark.parametrize("name", EXPLORED)
def test_an_explored_set_opens_and_comes_out_as_recorded(name: str) -> None:
    config = ActorConfig(**yaml.safe_load((CONFIGS / "montezuma_revenge.yaml").read_text())["montezuma_revenge"])
    sticky = EXPLORED[name]
    opened = open_set(name, dataclasses.replace(config, arguments={"repeat_action_probability": sticky}), num_envs=1)
    assert opened.settings.expert == "go-explore" and opened.demonstrator_return == 2500
    assert opened.noisy.any() == (sticky > 0)  # replays that were cut earlier
    assert opened.episode(0).episode_return == 2500
    opened.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_set_opens_and_comes_out_as_recorded(name: str) -> None:
    config = ActorConfig(**yaml.safe_load((CONFIGS / f"{NAMES[name]}.yaml").read_text())[NAMES[name]])
    assert config.demonstrations == name
    opened = open_set(config.demonstrations, config, num_envs=1)
    assert opened.settings.expert == config.expert
    assert opened.noisy.any() != opened.settings.task.says_text  # a text has no disturbed form
    assert opened.settings.random_return is not None
    assert opened.demonstrator_return > opened.settings.random_return
    shortest = int(opened.lengths.argmin())  # the others are checked when a run streams them
    assert opened.episode(shortest).episode_return == pytest.approx(opened.returns[shortest])
    opened.close()
