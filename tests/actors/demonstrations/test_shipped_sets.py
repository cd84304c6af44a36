"""The sets that ship: small, of the tasks that name them, and still what was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from actors.config import ActorConfig
from actors.demonstrations.open_set import open_set, shipped_sets

CONFIGS = Path(__file__).parents[3] / "configs" / "actors"
NAMES = {
    "babyai-captions": "babyai_captions",
    "babyai-goto-local": "babyai_goto_local",
    "babyai-questions": "babyai_questions",
    "boxing": "boxing",
    "cartpole-swingup": "cartpole_swingup",
    "sonnets": "sonnets",
}


def test_no_other_sets_ship_and_they_are_small() -> None:
    assert sorted(shipped_sets()) == sorted(NAMES)
    files = [path for folder in shipped_sets().values() for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000


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
