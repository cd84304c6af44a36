"""Meta-World: a sample of tasks; `make test-tasks` steps all fifty."""

import numpy as np
import pytest

pytest.importorskip("metaworld")

from metaworld.policies import ENV_POLICY_MAP

from actors.config import ActorConfig
from actors.environments import metaworld
from actors.environments.failures import UnknownTask
from actors.environments.make import make_environment

SAMPLE = ("reach-v3", "assembly-v3", "door-open-v3", "stick-pull-v3")


def play(name: str, seed: int, steps: int, before: tuple[int, ...] = ()) -> np.ndarray:
    """States and rewards of random play, [steps, 40], after whole episodes of other seeds in the same slot."""
    environment = metaworld.make(f"metaworld/{name}", 1, max_episode_steps=steps)
    for each in (*before, seed):
        environment.reset([0], [each])
        random, rows = np.random.default_rng(each), []
        for _ in range(steps):
            step = environment.step(random.uniform(-1, 1, (1, 4)).astype(np.float32))
            rows.append([*step.observation["state"][0], *step.reward])
        assert step.truncated[0] and not step.terminated[0]
    environment.close()
    return np.array(rows)


def test_all_fifty_are_named() -> None:
    assert len(metaworld.task_names()) == 50
    assert {name.removeprefix("metaworld/") for name in metaworld.task_names()} == set(ENV_POLICY_MAP)


@pytest.mark.parametrize("name", SAMPLE)
def test_an_episode_depends_on_its_seed_alone(name: str) -> None:
    fresh = play(name, 7, 20)
    np.testing.assert_array_equal(play(name, 7, 20, before=(3, 4)), fresh)
    assert (play(name, 8, 20) != fresh).any()


def test_the_observation_is_what_the_scripted_policies_read() -> None:
    """The policy solves its task from the 39 numbers alone; success is said, and stays said."""
    environment = make_environment(ActorConfig(task="metaworld/reach-v3"), 2)
    task = environment.task
    assert list(task.observation) == ["state"] and task.observation["state"].shape == (39,)
    assert (task.action.kind, task.action.shape, task.max_episode_steps) == ("continuous", (4,), 500)
    policies = [ENV_POLICY_MAP["reach-v3"]() for _ in range(2)]
    state = environment.reset([0, 1], [0, 1])["state"]
    assert (state[:, 36:] != 0).all() and (state[0, 36:] != state[1, 36:]).any()  # goals, and those of their seeds
    solved = []
    for _ in range(100):
        action = np.stack([policy.get_action(row.astype(np.float64)) for policy, row in zip(policies, state)])
        step = environment.step(action.clip(-1, 1).astype(np.float32))
        state = step.observation["state"]
        solved.append(step.success)
    assert not solved[0].any() and solved[-1].all() and (np.diff(np.array(solved, int), axis=0) >= 0).all()
    assert not step.done.any()
    environment.close()


def test_terminate_on_success_ends_the_episode() -> None:
    environment = metaworld.make("metaworld/reach-v3", 1, terminate_on_success=True)
    policy = ENV_POLICY_MAP["reach-v3"]()
    state = environment.reset([0], [0])["state"]
    for _ in range(500):
        action = policy.get_action(state[0].astype(np.float64)).clip(-1, 1)[None].astype(np.float32)
        step = environment.step(action)
        state = step.observation["state"]
        if step.done[0]:
            break
    assert step.terminated[0] and not step.truncated[0] and step.success is not None and step.success[0]
    environment.close()


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "message"),
    [
        ("metaworld/assembly-v2", {}, UnknownTask, "metaworld/assembly-v3"),
        ("metaworld/Reach-v3", {}, UnknownTask, "metaworld/reach-v3"),
        ("metaworld/reach-v3", {"max_episode_steps": 501}, ValueError, "1 to 500"),
        ("metaworld/reach-v3", {"goal": 3}, ValueError, "goal"),
    ],
)
def test_refusals(name: str, arguments: dict, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        metaworld.make(name, 1, **arguments)


def test_a_picture() -> None:
    environment = metaworld.make("metaworld/door-open-v3", 1)
    environment.reset([0], [0])
    try:
        first = environment.render(0)
    except ValueError as error:  # a machine without OpenGL is told so
        assert "libegl1" in str(error)
    else:
        for _ in range(10):
            environment.step(np.ones((1, 4), np.float32))
        assert first.shape == (240, 320, 3) and first.std() > 5 and (environment.render(0) != first).any()
    environment.close()
    environment.close()
