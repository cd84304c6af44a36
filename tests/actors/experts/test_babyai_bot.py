from __future__ import annotations

import numpy as np
import pytest

from actors.environments import babyai
from actors.experts.babyai_bot import BabyAIBotExpert


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("level", ["GoToLocal", "UnblockPickup"])
def test_the_record_replayed_through_the_adapter_is_the_same_episode(level: str, noise: float) -> None:
    expert = BabyAIBotExpert(f"babyai/{level}", {})
    environment = babyai.make(f"babyai/{level}", 1)
    for seed in range(6):
        record = expert.play(seed, noise)
        assert record.seed == seed and record.noisy == (noise > 0)
        assert record.action.dtype == np.int32 and record.label.dtype == np.int32 and record.label_mask.dtype == bool
        environment.reset([0], [seed])
        episode_return, ends = 0.0, []
        for action in record.action:
            step = environment.step(action[None])
            episode_return += float(step.reward[0])
            ends.append(bool(step.done[0]))
        assert ends == [False] * (len(ends) - 1) + [True]
        assert episode_return == record.episode_return
        assert step.success is not None and bool(step.success[0]) == (record.episode_return > 0)


def test_without_noise_the_bot_solves_and_labels_are_what_it_did() -> None:
    expert = BabyAIBotExpert("babyai/GoToLocal", {})
    records = [expert.play(seed) for seed in range(30)]
    assert all(record.episode_return > 0.7 and record.label_mask.all() for record in records)
    assert all((record.action == record.label).all() for record in records)
    assert np.mean([record.episode_return for record in records]) > 0.9


def test_with_noise_labels_stay_the_bots_own_and_it_recovers() -> None:
    expert = BabyAIBotExpert("babyai/GoToLocal", {})
    records = [expert.play(seed, noise=0.3) for seed in range(60)]
    executed = np.concatenate([record.action for record in records])
    labels = np.concatenate([record.label for record in records])
    share = (executed != labels)[np.concatenate([record.label_mask for record in records])].mean()
    assert 0.15 < share < 0.4  # 0.3 of steps, less the random actions that equal the bot's
    assert np.mean([record.episode_return > 0 for record in records]) > 0.9


def test_a_seed_and_a_noise_make_one_episode() -> None:
    first = BabyAIBotExpert("babyai/GoToLocal", {}).play(17, 0.5)
    second = BabyAIBotExpert("babyai/GoToLocal", {}).play(17, 0.5)
    np.testing.assert_array_equal(first.action, second.action)
    np.testing.assert_array_equal(first.label, second.label)


def test_where_the_bot_gives_up_the_rest_is_no_label_and_the_return_is_zero() -> None:
    """Much noise opens boxes; such an episode is whole, idles to its end, and is known by its return."""
    expert = BabyAIBotExpert("babyai/MiniBossLevel", {})
    given_up = [record for seed in range(40) if not (record := expert.play(seed, 0.4)).label_mask.all()]
    assert given_up
    for record in given_up:
        first = int(np.argmin(record.label_mask))
        assert not record.label_mask[first:].any() and (record.action[first:] == 6).all()
        assert record.episode_return == 0.0


@pytest.mark.long
def test_a_bot_that_changes_its_plan_for_ever_gives_up() -> None:
    record = BabyAIBotExpert("babyai/GoToImpUnlock", {}).play(6)
    assert record.episode_return == 0 and 0 < record.label_mask.sum() < len(record.action)
