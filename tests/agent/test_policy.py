"""What the policy computes while acting is what training computes for the same context."""

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.config import AgentConfig, DecodingConfig
from agent.inputs import TaskInputs, action_elements, encode_texts
from agent.policy import Policy
from agent.task import ArraySpec, TaskSpec
from agent.weights import flat_weights
from tests.agent.tasks import CONTROL, MISSIONS, TASKS, random_observation

SLOTS = 3


def small_agent(embedding: str, seed: int = 0) -> Agent:
    torch.manual_seed(seed)
    return Agent(AgentConfig(width=32, layers=2, heads=2, observation_embedding=embedding), TASKS)


def full_forward(agent: Agent, task: TaskSpec, history: list[dict], actions: list[np.ndarray], text: str | None):
    """Logits [elements, legal] of the newest step, by one plain forward over the context, as in training."""
    first = max(0, len(history) - task.context_steps)
    arrays = {
        key: torch.from_numpy(np.stack([step[key] for step in history[first:]]))[None]
        for key, spec in task.observation.items()
        if spec.kind != "text"
    }
    inputs = TaskInputs(
        task,
        arrays,
        encode_texts(task, [{"mission": text}], agent.text),
        torch.from_numpy(action_elements(np.stack(actions[first:]), task))[None],
        torch.tensor([False]),
        torch.tensor([len(history) - first]),
    )
    valid = agent.valid_positions(inputs).flatten()
    with torch.no_grad():
        hidden = agent.eval().transformer(agent.embed(inputs).flatten(1, 2)[:, valid])[0]
        elements = task.action_tokens
        return agent.logits(hidden[-elements - 1 : -1], agent.vocabulary.legal_actions(task.action))


@pytest.mark.parametrize("embedding", ["fused", "per_element"])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_acting_equals_the_training_forward(embedding: str, task: TaskSpec) -> None:
    agent = small_agent(embedding)
    policy = Policy(agent, task, SLOTS, seed=1)
    other = flat_weights(small_agent(embedding, seed=9))
    rng = np.random.default_rng(0)
    history: list[list[dict]] = [[] for _ in range(SLOTS)]
    actions: list[list[np.ndarray]] = [[] for _ in range(SLOTS)]
    texts = list(MISSIONS)
    for step in range(9):
        is_first = np.array([step == 0, step in (0, 4), step in (0, 2, 3)])
        for slot in np.flatnonzero(is_first):
            history[slot], actions[slot] = [], []
            texts[slot] = MISSIONS[(step + slot) % len(MISSIONS)]
        if step == 6:
            policy.load_weights(2, other)
        observation = random_observation(task, (SLOTS,), rng)
        given = dict(observation) | ({"mission": list(texts)} if "mission" in task.observation else {})
        chosen = policy.act(given, is_first)
        for slot in range(SLOTS):
            history[slot].append({key: value[slot] for key, value in observation.items()})
            actions[slot].append(chosen.action[slot])
            logits = full_forward(agent, task, history[slot], actions[slot], texts[slot])
            ids = torch.from_numpy(action_elements(chosen.action[slot], task))
            if task.action.kind == "continuous":
                ids = ((ids + 1) * 512).long()
            expected = logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]
            assert chosen.log_prob[slot] == pytest.approx(expected.numpy(), abs=1e-4), (step, slot)


def test_hidden_past_actions_do_not_matter() -> None:
    agent = small_agent("fused")
    rng = np.random.default_rng(0)
    steps = [random_observation(CONTROL, (SLOTS,), rng) for _ in range(3)]
    outcomes = []
    for executed in (0.9, -0.9):
        policy = Policy(agent, CONTROL, SLOTS, DecodingConfig(continuous="mean", past_actions="hidden"))
        for number, observation in enumerate(steps):
            chosen = policy.act(observation, np.full(SLOTS, number == 0))
            policy.executed(np.full((SLOTS, 2), executed, np.float32))
        outcomes.append(chosen.action)
    assert np.array_equal(*outcomes)


def test_only_legal_actions_are_chosen_and_decodings_differ() -> None:
    task = TaskSpec("test/two", {"x": ArraySpec("continuous", (1,))}, ArraySpec("discrete", (), num_values=2))
    agent = Agent(AgentConfig(width=32, layers=1, heads=2), [task])
    observation = {"x": np.zeros((64, 1), np.float32)}
    first = np.ones(64, bool)
    sampled = Policy(agent, task, 64, DecodingConfig(discrete="sample")).act(observation, first)
    assert set(sampled.action.tolist()) == {0, 1} and np.isfinite(sampled.log_prob).all()
    greedy = Policy(agent, task, 64, DecodingConfig(discrete="greedy")).act(observation, first)
    assert len(set(greedy.action.tolist())) == 1 and np.isnan(greedy.log_prob).all()
    nucleus = Policy(agent, task, 64, DecodingConfig(discrete="sample", top_p=0.01)).act(observation, first)
    assert np.array_equal(nucleus.action, greedy.action)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"discrete": "mean"}, "decoding.discrete"), ({"temperature": 0.0}, "greedy"), ({"top_p": 0.0}, "top_p")],
)
def test_decodings_that_do_not_exist_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecodingConfig(**changes).validate()
