"""The Atari planner: what it returns is what the adapter replays, and it knows no more than it may."""

from __future__ import annotations

import ale_py
import numpy as np
import pytest
from ale_py import Action

from actors.demonstrations.episode import ActionRecord
from actors.environments import atari
from actors.experts import atari_planner, atari_rules
from actors.experts.atari_planner import AtariPlanner, RuleOptions, ShootingOptions, _AroundRule, _Shooting
from actors.experts.atari_rules import BoxingRule, BreakoutRule, FreewayRule
from actors.experts.expert import ExpertFailed, StepDeadline

SHORT = {"max_episode_steps": 60}


def replay(record: ActionRecord, arguments: dict, task: str = "atari/boxing") -> np.ndarray:
    """Rewards of the record's actions through the adapter; it must end with the last of them."""
    environment = atari.make(task, 1, **arguments)
    environment.reset([0], [record.seed])
    rewards = []
    for t in range(len(record.action)):
        step = environment.step(record.action[t : t + 1])
        rewards.append(float(step.reward[0]))
        assert bool(step.done[0]) == (t == len(record.action) - 1)
    environment.close()
    return np.array(rewards)


@pytest.mark.long
def test_a_whole_episode_replays_through_the_adapter_and_wins() -> None:
    record = AtariPlanner("atari/boxing", {}).play(seed=3)
    assert record.action.dtype == record.label.dtype == np.int32 and record.label_mask.all()
    np.testing.assert_array_equal(record.action, record.label)
    assert not record.noisy
    assert replay(record, {}).sum() == record.episode_return
    assert record.episode_return >= 80  # measured: 95 to 100, see RuleOptions


def test_rewards_agree_step_by_step_under_noise_and_other_arguments() -> None:
    arguments = {"max_episode_steps": 150, "full_action_space": True, "repeat_action_probability": 0.5}
    planner = AtariPlanner("atari/boxing", arguments, options=RuleOptions(horizon=3, replicas=1))
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


@pytest.mark.long
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
    plan, deadline = planner._emulator(atari_planner.PLAN_SEED), StepDeadline("x", "y", 0, seconds=3600)
    for kind in ("rule", "shooting"):
        game, twin = planner._emulator(6), planner._emulator(6)
        chooser = (
            _AroundRule(game, plan, BoxingRule(), RuleOptions())
            if kind == "rule"
            else _Shooting(game, plan, planner._actions, ShootingOptions(), np.random.default_rng(0), deadline)
        )
        for step in range(20):
            chooser.choose(Action.NOOP)
            action = planner._actions[step % len(planner._actions)]
            for _ in range(4):
                assert game.act(action) == twin.act(action)
            np.testing.assert_array_equal(game.getRAM(), twin.getRAM())


def memory(player: tuple[int, int], enemy: tuple[int, int]) -> np.ndarray:
    ram = np.zeros(128, np.uint8)
    ram[[atari_rules.PLAYER_X, atari_rules.PLAYER_Y]] = player
    ram[[atari_rules.ENEMY_X, atari_rules.ENEMY_Y]] = enemy
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
    ram = memory(player, enemy)
    assert BoxingRule().choose(ram, ram) == action


def test_memory_addresses() -> None:
    """Walking right, left, up and down moves the player's bytes, and not the opponent's place in them."""
    ram = {}
    for action in (Action.RIGHT, Action.DOWN):
        game = AtariPlanner("atari/boxing", {"repeat_action_probability": 0.0})._emulator(0)
        before = game.getRAM()
        for _ in range(16):
            game.act(action)
        ram[action] = game.getRAM().astype(int) - before
    assert ram[Action.RIGHT][atari_rules.PLAYER_X] > 4 and ram[Action.RIGHT][atari_rules.PLAYER_Y] == 0
    assert ram[Action.DOWN][atari_rules.PLAYER_Y] > 4 and ram[Action.DOWN][atari_rules.PLAYER_X] == 0
    enemy = [atari_rules.ENEMY_X, atari_rules.ENEMY_Y]
    np.testing.assert_array_equal(ram[Action.RIGHT][enemy], ram[Action.DOWN][enemy])


@pytest.mark.parametrize(
    ("ball", "ball_before", "paddle", "action"),
    [
        ((0, 0), (0, 0), 120, Action.FIRE),  # no ball: serve
        ((129, 100), (129, 104), 120, Action.NOOP),  # rising straight above the paddle
        ((150, 100), (150, 96), 120, Action.RIGHT),
        ((129, 100), (133, 96), 120, Action.LEFT),  # comes down left of here
        ((190, 100), (182, 96), 70, Action.LEFT),  # by both walls: comes down a little right of the left one
        ((190, 100), (182, 96), 52, Action.NOOP),
    ],
)
def test_breakout_rule(ball: tuple, ball_before: tuple, paddle: int, action: Action) -> None:
    ram, before = np.zeros(128, np.uint8), np.zeros(128, np.uint8)
    ram[[atari_rules.BALL_X, atari_rules.BALL_Y]] = ball
    before[[atari_rules.BALL_X, atari_rules.BALL_Y]] = ball_before
    ram[atari_rules.PADDLE_X] = paddle
    assert BreakoutRule().choose(ram, before) == action


def test_the_breakout_rule_plays_above_an_average_human() -> None:
    """30.5 (Mnih et al. 2015); it must replay too."""
    arguments = {"max_episode_steps": 1500}
    record = AtariPlanner("atari/breakout", arguments).play(seed=0)
    assert record.episode_return > 30.5
    assert replay(record, arguments, "atari/breakout").sum() == record.episode_return


def test_freeway_addresses_and_potential() -> None:
    planner = AtariPlanner("atari/freeway", {"repeat_action_probability": 0.0})
    game, rule = planner._emulator(0), FreewayRule()
    low = rule.potential(game.getRAM())
    for _ in range(40):
        game.act(rule.choose(game.getRAM(), game.getRAM()))
    assert 0 <= low < 0.1 < rule.potential(game.getRAM()) < 1.1


def test_freeway_waits_for_cars() -> None:
    """Without sticky actions, always-up is hit by a car some 735 frames after the start."""
    planner = AtariPlanner("atari/freeway", {"repeat_action_probability": 0.0})
    assert isinstance(planner.options, RuleOptions)
    game, plan = planner._emulator(0), planner._emulator(1)
    for _ in range(704):
        game.act(Action.UP)
    chooser, chosen = _AroundRule(game, plan, FreewayRule(), planner.options), []
    for _ in range(12):
        chosen.append(chooser.choose(chosen[-1] if chosen else Action.UP))
        for _ in range(4):
            game.act(chosen[-1])
    assert set(chosen) > {Action.UP}
    assert game.getRAM()[atari_rules.CHICKEN_Y] > 60  # always up: 40


def test_a_game_without_a_rule_is_played_by_shooting_and_replays() -> None:
    arguments = {"max_episode_steps": 60}
    options = ShootingOptions(horizon=8, samples=4)
    record = AtariPlanner("atari/krull", arguments, options).play(seed=2, noise=0.1)
    assert record.noisy and replay(record, arguments, "atari/krull").sum() == record.episode_return
    again = AtariPlanner("atari/krull", arguments, options).play(seed=2, noise=0.1)
    np.testing.assert_array_equal(record.action, again.action)


def test_shooting_prefers_points_and_lives() -> None:
    """In Assault, a planner's first 150 steps earn more than random play's (222 in a whole episode, of some 500)."""
    arguments = {"max_episode_steps": 150}
    record = AtariPlanner("atari/assault", arguments, ShootingOptions(horizon=10, samples=5)).play(seed=0)
    assert record.episode_return >= 105  # points come in 21s


def test_shooting_has_a_deadline_and_rules_are_asked_for_where_there_are_none() -> None:
    endless = ShootingOptions(samples=10**6)
    with pytest.raises(ExpertFailed, match=r"'atari-planner' on atari/krull, seed 3: step 0 took"):
        AtariPlanner("atari/krull", {}, endless, step_seconds=0.5).play(seed=3)
    with pytest.raises(ValueError, match="has no rule to plan around"):
        AtariPlanner("atari/krull", {}, RuleOptions())
    with pytest.raises(ValueError, match="nearest: atari/boxing"):
        AtariPlanner("atari/boxin", {})


def test_ale_py_can_leave_out_the_random_numbers() -> None:
    """The planner leans on this: a state cloned without them is another than one with them."""
    game = AtariPlanner("atari/boxing", {})._emulator(0)
    assert len(game.cloneState(include_rng=False).serialize()) < len(game.cloneState(include_rng=True).serialize())
    assert ale_py.__version__
