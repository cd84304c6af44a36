"""Meta-World's scripted policies through our adapter."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("metaworld")

from actors.demonstrations.simulation import simulate
from actors.environments import metaworld
from actors.experts.expert import ExpertFailed
from actors.experts.metaworld_scripted import ENV_POLICY_MAP, MetaWorldScripted


def test_every_task_has_a_policy() -> None:
    assert sorted(f"metaworld/{name}" for name in ENV_POLICY_MAP) == sorted(metaworld.task_names())


@pytest.mark.parametrize(("name", "noise"), [("reach-v3", 0.0), ("drawer-close-v3", 0.3)])
def test_an_episode_succeeds_and_replays(name: str, noise: float) -> None:
    arguments = {"terminate_on_success": True}
    expert = MetaWorldScripted(f"metaworld/{name}", arguments)
    record = expert.play(seed=2, noise=noise)
    assert record.noisy == (noise > 0) and record.action.dtype == record.label.dtype == np.float32
    assert np.abs(record.action).max() <= 1 and np.abs(record.label).max() <= 1
    environment = metaworld.make(f"metaworld/{name}", 1, **arguments)
    (episode,) = [item[1] for item in simulate(environment, lambda _: record, [0]) if item is not None]
    assert episode.success and episode.terminated
    assert episode.episode_return == pytest.approx(record.episode_return)
    np.testing.assert_array_equal(record.action, expert.play(seed=2, noise=noise).action)


def test_a_policy_that_says_nothing_sound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    expert = MetaWorldScripted("metaworld/reach-v3", {})
    monkeypatch.setattr(expert._policy_class, "get_action", lambda self, state: np.full(4, np.nan))
    with pytest.raises(ExpertFailed, match=r"metaworld-scripted. on metaworld/reach-v3, seed 6: step 0: its action"):
        expert.play(seed=6)
