import dataclasses

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.attention import Layout
from agent.config import AgentConfig
from agent.tokenizer import TextTokenizer, encode_action
from learner.batch import Batch, make_batch, packed_hidden
from learner.config import LearnerConfig
from learner.crop import Crop, collate, random_crop, returns_to_come, shift_image
from learner.objectives.imitation import imitation, weights_of
from tests.agent.tasks import CONTROL, GRID, TASKS
from tests.learner.windows import random_window


def make(agent: Agent, seed: int = 0, row_length: int = 160, windows: int = 3) -> Batch:
    rng = np.random.default_rng(seed)
    groups = []
    for task in TASKS:
        crops = [random_crop(random_window(task, 2 + i, rng), task.context_steps, rng) for i in range(windows)]
        groups.append(collate(task, crops, agent.text, rng))
    return make_batch(agent, groups, row_length)


def small_agent(embedding: str = "fused") -> Agent:
    torch.manual_seed(0)
    return Agent(AgentConfig(width=32, layers=2, heads=2, observation_embedding=embedding), TASKS).eval()


@pytest.mark.parametrize("embedding", ["fused", "per_element"])
def test_packing_changes_nothing_that_is_predicted(embedding: str) -> None:
    agent = small_agent(embedding)
    length = 160 if embedding == "fused" else 400
    rng = np.random.default_rng(1)
    windows = {task.name: [random_window(task, 2 + i, rng) for i in range(3)] for task in TASKS}
    crops = [[Crop(w, 0, min(w.length, task.context_steps)) for w in windows[task.name]] for task in TASKS]
    together = make_batch(agent, [collate(task, own, agent.text, rng) for task, own in zip(TASKS, crops)], length)
    assert together.gather.shape[0] < together.windows  # several crops do share a row
    hidden = packed_hidden(agent, together)
    for task, targets, own in zip(TASKS, together.targets, crops):
        alone = [make_batch(agent, [collate(task, [crop], agent.text, rng)], length) for crop in own]
        apart = torch.cat([packed_hidden(agent, one)[one.targets[0].position] for one in alone])
        torch.testing.assert_close(hidden[targets.position], apart, atol=1e-5, rtol=1e-4)
        assert torch.equal(targets.id, torch.cat([one.targets[0].id for one in alone]))


@pytest.mark.parametrize("embedding", ["fused", "per_element"])
def test_a_prompt_is_read_before_its_crop_as_one_sequence(embedding: str) -> None:
    """What is predicted behind a prompt is what one forward over both gives, for prompt and crop alike."""
    agent = small_agent(embedding)
    length = 200 if embedding == "fused" else 500
    rng = np.random.default_rng(1)
    for task in TASKS:
        windows = [random_window(task, 4, rng) for _ in range(4)]
        prompted = Crop(windows[0], 1, 3, prompt=Crop(windows[1], 2, 4))
        crops = [Crop(windows[2], 0, 2), prompted, Crop(windows[3], 0, 3)]
        batch = make_batch(agent, [collate(task, crops, agent.text, rng)], length)
        assert batch.windows == 3 and batch.targets[0].window.unique().tolist() == [0, 1, 2]
        assert batch.layout.pinned is not None and batch.layout.segments is not None
        hidden = packed_hidden(agent, batch)

        parts = []
        for crop in (prompted.prompt, Crop(windows[0], 1, 3)):
            assert crop is not None
            inputs, _ = collate(task, [crop], agent.text, rng)
            parts.append(agent.embed(inputs).flatten(1, 2)[:, agent.valid_positions(inputs).flatten()])
        alone = agent.transformer(torch.cat(parts, dim=1))[0]
        segment = batch.layout.segments.flatten() == 2
        torch.testing.assert_close(hidden[segment], alone, atol=1e-5, rtol=1e-4)
        assert batch.layout.positions.flatten()[segment].tolist() == list(range(len(alone)))
        assert batch.layout.pinned.flatten()[segment].sum() == parts[0].shape[1]
        assert batch.layout.pinned.sum() == parts[0].shape[1]
        own = batch.targets[0].window == 1
        assert own.sum() == 4 * task.action_tokens  # both are learned from
        label = torch.from_numpy(np.concatenate([windows[1].label[2:4], windows[0].label[1:3]]))
        expected = encode_action(label, task.action, agent.vocabulary).flatten() - batch.targets[0].legal.start
        assert torch.equal(batch.targets[0].id[own], expected)


def test_no_crop_sees_another_and_none_its_own_future() -> None:
    agent = small_agent()
    batch = make(agent)
    flat = torch.cat([agent.embed(group).flatten(0, 2) for group in batch.groups]).detach()
    flat = torch.cat((flat, flat.new_zeros(1, flat.shape[1]))).requires_grad_()
    x = flat.index_select(0, batch.gather.flatten()).unflatten(0, batch.gather.shape)
    x.retain_grad()
    hidden = agent.transformer(x, batch.layout)
    row, column = (
        0,
        int((batch.layout.segments[0] == batch.layout.segments[0, 0]).sum()) + 1,
    )  # second position of a later crop
    hidden[row, column].square().sum().backward()
    assert x.grad is not None
    reached = x.grad[row].abs().sum(-1) > 0
    same = batch.layout.segments[row] == batch.layout.segments[row, column]
    assert torch.equal(reached, same & (torch.arange(len(same)) <= column))
    assert x.grad[1:].abs().sum() == 0


def test_targets_are_the_labels_and_only_where_the_mask_says() -> None:
    agent = small_agent()
    rng = np.random.default_rng(0)
    window = random_window(GRID, 4, rng)
    window.label_mask[1] = False
    window.label[2] = (window.action[2] + 1) % 7
    batch = make_batch(agent, [collate(GRID, [Crop(window, 0, 4)], agent.text, rng)], 64)
    assert batch.targets[0].id.tolist() == window.label[[0, 2, 3]].tolist()
    assert batch.targets[0].legal.count == 7


def test_each_window_weighs_the_same_by_row_and_each_target_by_token() -> None:
    batch = make(small_agent())
    total = {}
    for normalisation in ("row", "task", "token"):
        weights = weights_of(batch, normalisation)
        assert float(sum(w.sum() for w in weights)) == pytest.approx(1.0)
        total[normalisation] = weights
    for targets, weights in zip(batch.targets, total["row"]):
        share = torch.zeros(batch.windows).index_add_(0, targets.window, weights)
        assert share[share > 0].tolist() == pytest.approx([1 / batch.windows] * 3)
    assert [float(w.sum()) for w in total["task"]] == pytest.approx([1 / 3] * 3)
    assert len({round(float(x), 9) for w in total["token"] for x in w}) == 1

    rewards = dataclasses.replace(batch.targets[0], kind="reward")  # a task that has targets of two kinds is one task
    weights = weights_of(dataclasses.replace(batch, targets=[*batch.targets, rewards]), "task")
    assert [float(w.sum()) for w in weights] == pytest.approx([1 / 6, 1 / 3, 1 / 3, 1 / 6])


def test_the_loss_is_the_mean_nats_of_a_plain_computation() -> None:
    agent = small_agent()
    rng = np.random.default_rng(0)
    window = random_window(CONTROL, 3, rng)
    batch = make_batch(agent, [collate(CONTROL, [Crop(window, 0, 3)], agent.text, rng)], 64)
    loss, record = imitation(agent, batch, LearnerConfig())
    hidden = packed_hidden(agent, batch)[batch.targets[0].position]
    legal = agent.vocabulary.continuous
    scores = (hidden @ agent.tokens.weight.T)[:, legal.start : legal.stop]
    bins = np.clip(np.floor((window.label.reshape(-1) + 1) / 2 * 1024), 0, 1023).astype(int)
    nats = -scores.log_softmax(-1)[range(len(bins)), bins]
    assert float(loss) == pytest.approx(float(nats.mean()), rel=1e-5)
    assert float(record["loss/continuous"]) == pytest.approx(float(loss), rel=1e-6)


def test_a_context_longer_than_a_row_names_its_task() -> None:
    with pytest.raises(ValueError, match=r"test/control: 3 steps of context .* raise learner.tokens_per_row"):
        make(small_agent(), row_length=8, windows=2)


def test_crops_are_uniform_and_images_shift_as_a_whole() -> None:
    rng = np.random.default_rng(0)
    window = random_window(GRID, 10, rng)
    starts = np.bincount([random_crop(window, 4, rng).start for _ in range(7000)], minlength=7)
    assert starts.min() > 850 and starts.max() < 1150
    frames = rng.integers(0, 256, (2, 8, 9, 3)).astype(np.uint8)
    shifted = shift_image(frames, 2, np.random.default_rng(5))
    down, right = np.random.default_rng(5).integers(-2, 3, size=2)
    inner = shifted[:, 2:-2, 2:-2]
    assert np.array_equal(inner, frames[:, 2 - down : 6 - down, 2 - right : 7 - right])


def test_returns_to_come_are_known_only_where_they_are() -> None:
    window = random_window(CONTROL, 5, np.random.default_rng(0))
    reward = np.array([1, 2, 4, 8, 16, 32, 64], np.float32)  # two steps beyond the window
    ended = np.array([False] * 4 + [True])
    cases = [
        # rewards, terminated, truncated, has rewards, horizon -> expected
        (reward, None, None, True, 3, [7, 14, 28, 56, 112]),
        (reward[:6], None, None, True, 3, [7, 14, 28, 56, np.nan]),
        (reward[:5], ended, None, True, 3, [7, 14, 28, 24, 16]),
        (reward[:5], None, ended, True, 3, [7, 14, 28, np.nan, np.nan]),  # a time limit is no end
        (reward[:5], ended, None, True, 0, [31, 30, 28, 24, 16]),
        (reward[:5], None, ended, True, 0, [np.nan] * 5),
        (reward[:5], None, None, True, 0, [np.nan] * 5),
        (reward, None, None, False, 3, [np.nan] * 5),
    ]
    for rewards, terminated, truncated, has_reward, horizon, expected in cases:
        changed = dataclasses.replace(
            window,
            reward=rewards,
            terminated=window.terminated if terminated is None else terminated,
            truncated=window.truncated if truncated is None else truncated,
            metadata=dataclasses.replace(window.metadata, has_reward=has_reward),
        )
        np.testing.assert_array_equal(returns_to_come(changed, horizon), np.array(expected, np.float32))
    before_the_end = dataclasses.replace(window.metadata, tail_terminated=True)
    changed = dataclasses.replace(window, reward=reward[:6], metadata=before_the_end)
    assert returns_to_come(changed, 3).tolist() == [7, 14, 28, 56, 48]


def test_rewards_after_a_crop_are_known_only_where_they_are() -> None:
    task = dataclasses.replace(CONTROL, return_horizon=3)
    window = random_window(CONTROL, 5, np.random.default_rng(0))
    reward = np.array([1, 2, 4, 8, 16, 32, 64], np.float32)  # two steps beyond the window
    ended = np.array([False] * 4 + [True])
    cases = [
        (dataclasses.replace(window, reward=reward), [[8, 16, 32], [np.nan] * 3]),
        (dataclasses.replace(window, reward=reward[:5], terminated=ended), [[8, 16, 0], [0, 0, 0]]),
        (dataclasses.replace(window, reward=reward[:5], truncated=ended), [[np.nan] * 3] * 2),  # a time limit is no end
    ]
    before_the_end = dataclasses.replace(window.metadata, tail_terminated=True)
    near = dataclasses.replace(window, reward=reward[:6], metadata=before_the_end)
    cases = [(task, *case) for case in cases]
    cases += [(task, near, [[8, 16, 32], [32, 0, 0]])]
    cases += [(dataclasses.replace(task, ends_counted=False), near, [[8, 16, 32], [np.nan] * 3])]
    for task, changed, expected in cases:
        crops = [Crop(changed, 0, 3), Crop(changed, 2, 5)]
        _, labels = collate(task, crops, TextTokenizer.default(), np.random.default_rng(0))
        np.testing.assert_array_equal(labels.later.numpy(), np.array(expected, np.float32))


@pytest.mark.parametrize("kind", ["masked", "visible"])
@pytest.mark.parametrize("embedding", ["fused", "per_element"])
def test_returns_in_packed_rows_are_those_of_one_forward(kind: str, embedding: str) -> None:
    """Actions and returns are predicted in a packed row as in a row of their own, returns said or not."""
    torch.manual_seed(0)
    agent = Agent(AgentConfig(width=32, layers=2, heads=2, observation_embedding=embedding, returns=kind), TASKS).eval()
    rng, length = np.random.default_rng(1), 240 if embedding == "fused" else 500
    for task in TASKS:
        windows = []
        for _ in range(4):
            window = random_window(task, 4, rng)
            window.terminated[-1] = True
            reward = rng.uniform(*task.return_range, 4).astype(np.float32) / 4
            windows.append(dataclasses.replace(window, reward=reward))
        crops = [Crop(windows[0], 0, 2, prompt=Crop(windows[1], 2, 4)), Crop(windows[2], 1, 4), Crop(windows[3], 0, 1)]
        inputs, labels = collate(task, crops, agent.text, rng, return_bins=128)
        inputs.returns[1, 1] = -1  # one of which nothing is said
        batch = make_batch(agent, [(inputs, labels)], length)
        assert (batch.layout.private is not None) == (kind == "masked")
        hidden = packed_hidden(agent, batch)
        actions, returns = batch.targets
        assert returns.kind == "return" and len(returns.id) == 2 + 1 + 3 + 1
        assert torch.equal(returns.id, inputs.returns[inputs.returns >= 0])

        valid = agent.valid_positions(inputs)
        tokens = agent.embed(inputs)
        is_return = torch.zeros_like(valid)
        is_return[:, :, valid.shape[2] - agent.tail(task)] = True
        number = torch.arange(valid[..., 0].numel()).reshape(valid.shape[:2])[..., None].expand_as(valid)
        for row, parts in enumerate(([0, 1], [2], [3])):
            chosen = [valid[part] for part in parts]
            x = torch.cat([tokens[part][mask] for part, mask in zip(parts, chosen)])[None]
            of = {
                name: torch.cat([values[part][mask] for part, mask in zip(parts, chosen)])[None]
                for name, values in (("private", is_return), ("timesteps", number))
            }
            own = torch.arange(x.shape[1])[None]
            layout = Layout(own, **of) if kind == "masked" else Layout(own)
            alone = agent.transformer(x, layout)[0]
            places = torch.nonzero(of["private"][0])[:, 0]
            said = torch.cat([inputs.returns[part] for part in parts])
            said = said[torch.cat([torch.arange(inputs.steps) < inputs.lengths[part] for part in parts])]
            expected = alone[places[said >= 0] - 1]
            torch.testing.assert_close(hidden[returns.position[returns.window == row]], expected, atol=1e-5, rtol=1e-4)
            behind = alone[(places[:, None] + 1 + torch.arange(task.action_tokens)).flatten()]
            torch.testing.assert_close(hidden[actions.position[actions.window == row]], behind, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("embedding", ["fused", "per_element"])
def test_the_last_token_of_an_action_predicts_the_sign_of_its_reward(embedding: str) -> None:
    agent, rng = small_agent(embedding), np.random.default_rng(0)
    rewards = np.array([0.5, 0.0, -2.0], np.float32)
    known = dataclasses.replace(random_window(CONTROL, 3, rng), reward=rewards)
    unknown = dataclasses.replace(known, metadata=dataclasses.replace(known.metadata, has_reward=False))
    group = collate(CONTROL, [Crop(known, 1, 3), Crop(unknown, 0, 3)], agent.text, rng)
    batch = make_batch(agent, [group], 64, rewards=True)
    (targets,) = (each for each in batch.targets if each.kind == "reward")
    assert targets.legal == agent.vocabulary.rewards and targets.legal.count == 3
    assert targets.id.tolist() == [1, 0] and targets.window.tolist() == [0, 0]
    per_step = agent.observation.positions(CONTROL) + agent.tail(CONTROL)
    (start,) = (int(row) * 64 + int(column) for row, column in torch.nonzero(batch.gather == 0))
    assert targets.position.tolist() == [start + per_step - 1, start + 2 * per_step - 1]
    plain = dataclasses.replace(batch, targets=[each for each in batch.targets if each.kind != "reward"])
    (both, record), (actions, _) = (imitation(agent, each, LearnerConfig()) for each in (batch, plain))
    assert float(both - actions) == pytest.approx(float(record["loss/reward"]) / 2, rel=1e-4)  # of one window in two
    assert not [each for each in make_batch(agent, [group], 64).targets if each.kind == "reward"]
