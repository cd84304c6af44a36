"""The Atari adapter against ale-py's single-game interface, which knows none of the vector environment's options."""

from __future__ import annotations

from pathlib import Path

import ale_py
import numpy as np
import pytest
from ale_py import ALEInterface, roms

from actors.environments import atari
from agent.task import TaskSpec

ROWS, COLUMNS = 210, 160


def emulator(rom: str, seed: int, sticky: float) -> ALEInterface:
    ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    game = ALEInterface()
    game.setFloat("repeat_action_probability", sticky)
    game.setInt("random_seed", seed)
    game.loadROM(roms.get_rom_path(rom))
    game.reset_game()
    return game


def area_weights(size: int, out: int) -> np.ndarray:
    """Row i says how much of each of ``size`` pixels falls into output pixel i: [out, size], rows sum to 1."""
    edges = np.arange(out + 1) * size / out
    low = np.maximum(edges[:-1, None], np.arange(size)[None])
    high = np.minimum(edges[1:, None], np.arange(size)[None] + 1)
    return np.clip(high - low, 0.0, None) * out / size


def shrink(frame: np.ndarray) -> np.ndarray:
    """Mean over areas, [210, 160, 3] to [64, 80, 3], before rounding."""
    rows, columns = area_weights(ROWS, atari.IMAGE_HEIGHT), area_weights(COLUMNS, atari.IMAGE_WIDTH)
    return np.moveaxis(np.tensordot(columns, np.tensordot(rows, frame.astype(np.float64), (1, 0)), (1, 1)), 0, 1)


def test_equals_an_independent_emulation() -> None:
    steps, seed = 200, 11
    environment = atari.make("atari/boxing", 1)
    game = emulator("boxing", seed, sticky=0.25)
    actions = game.getMinimalActionSet()
    image = environment.reset([0], [seed])["image"]
    assert image.shape == (1, 64, 80, 3) and image.dtype == np.uint8
    np.testing.assert_allclose(image[0], shrink(game.getScreenRGB()), atol=0.51)
    rewards = 0
    for action in np.random.default_rng(0).integers(len(actions), size=steps):
        step = environment.step(np.array([action]))
        reward, screens = 0, []
        for _ in range(4):
            reward += game.act(actions[action])
            screens.append(game.getScreenRGB())
        # Half a grey level: OpenCV's area mean is the exact mean up to rounding.
        np.testing.assert_allclose(step.observation["image"][0], shrink(np.maximum(*screens[2:])), atol=0.51)
        assert step.reward[0] == reward and step.reward.dtype == np.float32
        rewards += abs(reward)
    assert rewards > 0, "the comparison should have seen points scored"
    environment.close()


def test_seeds_decide_and_slots_do_not() -> None:
    """An episode depends on its seed and actions only: not on the slot, nor on what the other slots do."""
    actions = np.random.default_rng(1).integers(18, size=120)
    alone = atari.make("atari/boxing", 1)
    expected = [alone.reset([0], [5])["image"][0]]
    expected += [alone.step(actions[t : t + 1]).observation["image"][0] for t in range(len(actions))]

    several = atari.make("atari/boxing", 3, num_threads=2)
    several.reset([0, 1, 2], [1, 2, 3])
    for _ in range(10):
        several.step(np.array([3, 4, 5]))
    before = several.render(0)
    first = several.reset([2, 1], [5, 6])["image"]  # the given order, not the order of slots
    np.testing.assert_array_equal(first[0], expected[0])
    np.testing.assert_array_equal(several.render(0), before)  # slot 0 goes on undisturbed
    other = False
    for t, action in enumerate(actions):
        image = several.step(np.array([0, action, action])).observation["image"]
        np.testing.assert_array_equal(image[2], expected[t + 1])
        other = other or not np.array_equal(image[1], expected[t + 1])
    assert other, "another seed should play out differently under sticky actions"


@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_sticky_actions_are_in_force(sticky: float) -> None:
    """With the same actions, seeds differ if and only if actions are sticky."""
    environment = atari.make("atari/boxing", 4, repeat_action_probability=sticky)
    environment.reset(range(4), [1, 2, 3, 4])
    for action in np.random.default_rng(2).integers(18, size=60):
        image = environment.step(np.full(4, action)).observation["image"]
    same = [np.array_equal(image[0], image[slot]) for slot in range(1, 4)]
    assert all(same) if sticky == 0.0 else not any(same)


@pytest.mark.long
def test_a_quarter_of_frames_repeat_the_action_before() -> None:
    """After no-ops, UP sets in 0 to 4 frames late; how often says with what probability a frame is sticky."""
    pictures = []
    for delay in range(5):
        game = emulator("freeway", 0, sticky=0.0)
        for _ in range(20):
            game.act(ale_py.Action.NOOP)
        screens = []
        for frame in range(4):
            game.act(ale_py.Action.NOOP if frame < delay else ale_py.Action.UP)
            screens.append(game.getScreenRGB())
        pictures.append(shrink(np.maximum(*screens[2:])))

    environment = atari.make("atari/freeway", 10)
    delays = np.zeros(5, int)
    for round_ in range(4):
        environment.reset(range(10), range(10 * round_, 10 * round_ + 10))
        for _ in range(5):
            environment.step(np.zeros(10, int))
        for image in environment.step(np.ones(10, int)).observation["image"]:  # action 1 of Freeway is UP
            delays[np.argmin([np.abs(image - picture).sum() for picture in pictures])] += 1
    # The share that sets in at once is 0.75 with standard error 0.07, one frame late 0.19 with 0.06.
    assert delays.sum() == 40
    assert 0.53 <= delays[0] / 40 <= 0.97, delays
    assert delays[1] / 40 <= 0.40, delays


def test_raw_rewards_and_no_end_on_life_loss() -> None:
    """Random play of Ms. Pac-Man: rewards are in tens, and lives are lost within an episode."""
    environment = atari.make("atari/ms_pacman", 4, max_episode_steps=2_000)
    environment.reset(range(4), range(4))
    source = np.random.default_rng(3)
    lives, lost_within, largest, ended_with_life = environment.lives.copy(), 0, 0.0, 0
    for _ in range(500):
        step = environment.step(source.integers(environment.task.action.num_values, size=4))
        lost_within += int(((environment.lives < lives) & ~step.terminated).sum())
        ended_with_life += int((step.terminated & (environment.lives > 0)).sum())
        largest = max(largest, float(step.reward.max()))
        lives = environment.lives.copy()
        if step.done.any():
            slots = np.flatnonzero(step.done)
            environment.reset(slots, slots + 100)
            lives = environment.lives.copy()
    assert lost_within >= 3 and ended_with_life == 0
    assert largest >= 10.0


def test_no_reset_step_and_the_time_limit() -> None:
    """An episode of n actions has n rewards; afterwards only a reset by the caller goes on."""
    environment = atari.make("atari/boxing", 2, max_episode_steps=5)
    environment.reset([0, 1], [1, 2])
    for t in range(5):
        step = environment.step(np.array([0, 0]))
        assert step.truncated.tolist() == [t == 4] * 2 and not step.terminated.any()
    environment.reset([0], [3])
    with pytest.raises(RuntimeError, match=r"slots \[1\] have no episode"):
        environment.step(np.array([0, 0]))
    first = environment.reset([1], [3])["image"][0]
    np.testing.assert_array_equal(first, environment.reset([0], [3])["image"][0])
    step = environment.step(np.array([0, 0]))
    np.testing.assert_array_equal(step.observation["image"][0], step.observation["image"][1])
    assert not step.done.any()


def test_first_reset_may_be_partial() -> None:
    environment = atari.make("atari/boxing", 2)
    assert environment.reset([1], [4])["image"].shape == (1, 64, 80, 3)
    with pytest.raises(RuntimeError, match=r"slots \[0\]"):
        environment.step(np.array([0, 0]))
    environment.reset([0], [4])
    assert environment.step(np.array([0, 0])).reward.shape == (2,)


def test_a_game_ends_by_itself() -> None:
    environment = atari.make("atari/boxing", 1)
    environment.reset([0], [0])
    steps, done = 0, False
    while not done:
        step = environment.step(np.array([0]))
        steps, done = steps + 1, bool(step.done[0])
    assert step.terminated[0] and not step.truncated[0]
    assert 1_000 < steps < 2_000  # two minutes of the game's clock


def test_task_spec() -> None:
    task = atari.make("atari/breakout", 1).task
    assert task == TaskSpec.from_json(task.to_json())
    assert task.observation["image"].shape == (64, 80, 3) and task.action.num_values == 4
    assert (task.action_repeat, task.max_episode_steps) == (4, 27_000)
    assert atari.make("atari/breakout", 1, full_action_space=True).task.action.num_values == 18
    assert task.instruction is None


@pytest.mark.parametrize("name", ["atari/montezuma_revenge", "atari/pong"])
def test_names(name: str) -> None:
    assert atari.rom_name(name) == name.split("/")[1]


def test_refusals() -> None:
    with pytest.raises(ValueError, match="atari/montezuma_revenge"):
        atari.make("atari/MontezumaRevenge", 1)
    with pytest.raises(ValueError, match="atari/boxing"):
        atari.make("atari/boxng", 1)
    with pytest.raises(ValueError, match="repeat_action_probability"):
        atari.make("atari/boxing", 1, repeat_action_probability=1.5)
    environment = atari.make("atari/boxing", 2)
    for slots, seeds in [([0, 0], [1, 2]), ([2], [1]), ([0], [-1]), ([0], [2**31]), ([0, 1], [1])]:
        with pytest.raises(ValueError, match="atari/boxing"):
            environment.reset(slots, seeds)
    environment.reset([0, 1], [1, 2])
    for action in (np.array([0]), np.array([0, 18]), np.array([-1, 0]), np.array([0.0, 1.0])):
        with pytest.raises(ValueError, match="actions must be"):
            environment.step(action)


def test_render_enlarges_the_observation() -> None:
    environment = atari.make("atari/boxing", 2)
    image = environment.reset([0, 1], [1, 2])["image"]
    picture = environment.render(1)
    assert picture.shape == (256, 320, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[::4, ::4], image[1])


def test_games_for_two_players_are_refused_before_ale_ends_the_process() -> None:
    assert len(atari.task_names()) == 104
    for game in atari.FOR_TWO_PLAYERS:
        with pytest.raises(ValueError, match="two players"):
            atari.make(f"atari/{game}", 1)


@pytest.mark.parametrize(("content", "says"), [(b"another cartridge", "does not match"), (None, "No such file")])
def test_a_rom_with_another_checksum_is_refused(
    content: bytes | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "pong.bin").write_bytes(content)
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(atari.RomRefused, match=f"atari/pong: the ROM cannot be used .*{says}.*force-reinstall"):
        atari.make("atari/pong", 1)
