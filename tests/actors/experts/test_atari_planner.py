"""The Boxing planner: what it returns is what the adapter replays, and it knows no more than it may."""

from __future__ import annotations

import ale_py
import numpy as np
import pytest
from ale_py import Action

from actors.demonstrations.episode import ActionRecord
from actors.environments import atari
from actors.experts import atari_planner
from actors.experts.atari_planner import AtariPlanner, BoxingRule, PlannerOptions

SHORT = {"max_episode_steps": 60}


def replay(record: ActionRecord, arguments: dict) -> np.ndarray:
    """Rewards of the record's actions through the adapter; it must end with the last of them."""
    environment = atari.make("atari/boxing", 1, **arguments)
    environment.reset([0], [record.seed])
    rewards = []
    for t in range(len(record.action)):
        step = environment.step(record.action[t : t + 1])
        rewards.append(float(step.reward[0]))
        assert bool(step.done[0]) == (t == len(record.action) - 1)
    environment.close()
    return np.array(rewards)


def test_a_whole_episode_replays_through_the_adapter_and_wins() -> None:
    record = AtariPlanner("atari/boxing", {}).play(seed=3)
    assert record.action.dtype == record.label.dtype == np.int32 and record.label_mask.all()
    np.testing.assert_array_equal(record.action, record.label)
    assert not record.noisy
    assert replay(record, {}).sum() == record.episode_return
    assert record.episode_return >= 80  # measured: 95 to 100, see PlannerOptions


def test_rewards_agree_step_by_step_under_noise_and_other_arguments() -> None:
    arguments = {"max_episode_steps": 150, "full_action_space": True, "repeat_action_probability": 0.5}
    planner = AtariPlanner("atari/boxing", arguments, options=PlannerOptions(horizon=3, replicas=1))
    record = planner.play(seed=9, noise=0.3)
    assert record.noisy and len(record.action) == 150
    changed = np.mean(record.action != record.label)
    assert 0.15 < changed < 0.42  # of 0.3 random actions one in 18 is the label
    rewards = replay(record, arguments)
    assert rewards.sum() == record.episode_return

    game = planner._emulator(9)
    names = game.getLegalActionSet()
    for t, action in enumerate(record.action):
        assert sum(game.act(names[action]) for _ in range(4)) == rewards[t]


def test_a_seed_gives_one_episode() -> None:
    first, second = (AtariPlanner("atari/boxing", SHORT).play(seed=4, noise=0.2) for _ in range(2))
    np.testing.assert_array_equal(first.action, second.action)
    np.testing.assert_array_equal(first.label, second.label)
    other = AtariPlanner("atari/boxing", SHORT).play(seed=5, noise=0.2)
    assert not np.array_equal(first.action, other.action)


def test_the_plan_does_not_know_the_random_numbers_of_the_game() -> None:
    """From one state the true game goes one way; plays in the planning emulator spread, as other seeds would."""
    planner = AtariPlanner("atari/boxing", {})
    game, plan = planner._emulator(1), planner._emulator(atari_planner.PLAN_SEED)
    for _ in range(20):
        game.act(Action.RIGHT)
    state = game.cloneState(include_rng=False)
    ends = set()
    for _ in range(8):
        plan.restoreState(state)
        for frame in range(16):
            plan.act(Action.UP if frame % 2 else Action.DOWN)
        ends.add(plan.getRAM().tobytes())
    assert len(ends) > 1


def test_planning_leaves_the_game_alone() -> None:
    planner = AtariPlanner("atari/boxing", SHORT)
    game, twin = planner._emulator(6), planner._emulator(6)
    plan = planner._emulator(atari_planner.PLAN_SEED)
    for step in range(30):
        planner._choose(game, plan, game.getRAM(), 10, Action.NOOP)
        action = planner._actions[step % len(planner._actions)]
        for _ in range(4):
            assert game.act(action) == twin.act(action)
        np.testing.assert_array_equal(game.getRAM(), twin.getRAM())


def memory(player: tuple[int, int], enemy: tuple[int, int]) -> np.ndarray:
    ram = np.zeros(128, np.uint8)
    ram[[atari_planner.PLAYER_X, atari_planner.PLAYER_Y]] = player
    ram[[atari_planner.ENEMY_X, atari_planner.ENEMY_Y]] = enemy
    return ram


@pytest.mark.parametrize(
    ("player", "enemy", "action"),
    [
        ((30, 40), (109, 40), Action.RIGHT),  # far away: come nearer
        ((80, 55), (95, 40), Action.FIRE),  # in touch, a glove beside the head
        ((80, 40), (95, 60), Action.FIRE),  # the same from above
        ((40, 80), (95, 40), Action.UP),  # far away in both: height first
        ((60, 45), (95, 40), Action.RIGHT),
        ((90, 40), (95, 40), Action.LEFT),  # too near
    ],
)
def test_rule(player: tuple[int, int], enemy: tuple[int, int], action: Action) -> None:
    assert BoxingRule().choose(memory(player, enemy), last_enemy_y=enemy[1]) == action


def test_memory_addresses() -> None:
    """Walking right, left, up and down moves the player's bytes, and not the opponent's place in them."""
    ram = {}
    for action in (Action.RIGHT, Action.DOWN):
        game = AtariPlanner("atari/boxing", {"repeat_action_probability": 0.0})._emulator(0)
        before = game.getRAM()
        for _ in range(16):
            game.act(action)
        ram[action] = game.getRAM().astype(int) - before
    assert ram[Action.RIGHT][atari_planner.PLAYER_X] > 4 and ram[Action.RIGHT][atari_planner.PLAYER_Y] == 0
    assert ram[Action.DOWN][atari_planner.PLAYER_Y] > 4 and ram[Action.DOWN][atari_planner.PLAYER_X] == 0
    enemy = [atari_planner.ENEMY_X, atari_planner.ENEMY_Y]
    np.testing.assert_array_equal(ram[Action.RIGHT][enemy], ram[Action.DOWN][enemy])


def test_refuses_other_games() -> None:
    with pytest.raises(ValueError, match="plays atari/boxing only"):
        AtariPlanner("atari/pong", {})
    with pytest.raises(ValueError, match="nearest: atari/boxing"):
        AtariPlanner("atari/boxin", {})


def test_ale_py_can_leave_out_the_random_numbers() -> None:
    """The planner leans on this: a state cloned without them is another than one with them."""
    game = AtariPlanner("atari/boxing", {})._emulator(0)
    assert len(game.cloneState(include_rng=False).serialize()) < len(game.cloneState(include_rng=True).serialize())
    assert ale_py.__version__
