"""What the policy computes while acting is what training computes for the same context."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.attention import Layout
from agent.cache import KeyValueCache
from agent.config import AgentConfig, DecodingConfig
from agent.context import Prompt
from agent.inputs import TaskInputs, action_elements, encode_texts
from agent.policy import Policy
from agent.task import ArraySpec, TaskSpec
from agent.transformer import Transformer
from agent.weights import flat_weights
from tests.agent.tasks import CONTROL, MISSIONS, TASKS, random_observation, random_values

SLOTS = 3


def small_agent(embedding: str = "fused", seed: int = 0, **settings: Any) -> Agent:
    torch.manual_seed(seed)
    return Agent(AgentConfig(width=32, layers=2, heads=2, observation_embedding=embedding, **settings), TASKS)


def make_inputs(agent: Agent, task: TaskSpec, steps: Prompt, hide: bool) -> TaskInputs:
    return TaskInputs(
        task,
        {key: torch.from_numpy(array)[None] for key, array in steps.observation.items()},
        encode_texts(task, [steps.texts], agent.text),
        torch.from_numpy(action_elements(steps.action, task))[None],
        torch.tensor([hide]),
        torch.tensor([steps.steps]),
    )


def full_forward(agent: Agent, task: TaskSpec, parts: list[Prompt], hide: bool) -> torch.Tensor:
    """Logits [elements, legal] of the newest step, by one plain forward over prompt and context, as in training."""
    tokens = []
    for part in parts:
        inputs = make_inputs(agent, task, part, hide)
        valid = agent.valid_positions(inputs).flatten()
        tokens.append(agent.embed(inputs).flatten(1, 2)[:, valid])
    pinned = torch.zeros(1, sum(each.shape[1] for each in tokens), dtype=torch.bool)
    pinned[:, : pinned.shape[1] - tokens[-1].shape[1]] = True
    with torch.no_grad():
        layout = Layout(torch.arange(pinned.shape[1])[None], pinned=pinned)
        hidden = agent.eval().transformer(torch.cat(tokens, dim=1), layout)[0]
        elements = task.action_tokens
        return agent.logits(hidden[-elements - 1 : -1], agent.vocabulary.legal_actions(task.action))


def random_prompt(task: TaskSpec, steps: int, rng: np.random.Generator) -> Prompt:
    texts = {"mission": "put the ball next to the box"} if "mission" in task.observation else {}
    return Prompt(random_observation(task, (steps,), rng), texts, random_values(task.action, (steps,), rng))


def steps_read(mode: str, before: int, limit: int, swapped: bool) -> int:
    """Timesteps in the context, the newest included, when ``before`` were in it at the step before."""
    if mode == "recompute" or (mode == "rolling" and swapped):
        return min(before + 1, limit)
    if mode == "reprefill":
        return before + 1 if before < limit else max(1, limit // 2)
    return before + 1


SETTINGS = [
    ("recompute", {}),
    ("recompute", {"positions": "xl"}),
    ("reprefill", {}),
    ("reprefill", {"positions": "xl"}),
    ("reprefill", {"observation_embedding": "per_element"}),
    ("recompute", {"observation_embedding": "per_element"}),
    ("rolling", {"attention_window": 5}),
    ("rolling", {"attention_window": 5, "positions": "xl"}),
]


@pytest.mark.parametrize("prompt_steps", [0, 1], ids=["no prompt", "prompt"])
@pytest.mark.parametrize("hide", [False, True], ids=["shown", "hidden"])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize(("mode", "settings"), SETTINGS, ids=str)
def test_acting_equals_one_forward_over_its_context(
    mode: str, settings: dict, task: TaskSpec, hide: bool, prompt_steps: int
) -> None:
    """Over several contexts: resets of single slots, other actions executed than chosen, and a swap of weights."""
    settings = {"embedding": settings.get("observation_embedding", "fused")} | {
        key: value for key, value in settings.items() if key != "observation_embedding"
    }
    agent, other = small_agent(**settings), flat_weights(small_agent(seed=9, **settings))
    decoding = DecodingConfig(context=mode, past_actions="hidden" if hide else "shown")
    rng = np.random.default_rng(0)
    prompt = random_prompt(task, prompt_steps, rng) if prompt_steps else None
    policy = Policy(agent, task, SLOTS, decoding, seed=1, prompt=prompt)
    history: list[list[dict]] = [[] for _ in range(SLOTS)]
    actions: list[list[np.ndarray]] = [[] for _ in range(SLOTS)]
    texts, read = list(MISSIONS), [0] * SLOTS
    for step in range(5 * task.context_steps):
        is_first = np.array([step == 0, step in (0, 4), step in (0, 2, 3)])
        for slot in np.flatnonzero(is_first):
            history[slot], actions[slot], read[slot] = [], [], 0
            texts[slot] = MISSIONS[(step + slot) % len(MISSIONS)]
        if step == 6:
            policy.load_weights(2, other)
        observation = random_observation(task, (SLOTS,), rng)
        given = dict(observation) | ({"mission": list(texts)} if "mission" in task.observation else {})
        chosen = policy.act(given, is_first)
        for slot in range(SLOTS):
            history[slot].append({key: value[slot] for key, value in observation.items()})
            actions[slot].append(chosen.action[slot])
            limit = task.context_steps - prompt_steps
            read[slot] = newest = steps_read(mode, read[slot], limit, swapped=step == 6)
            observed = {key: np.stack([each[key] for each in history[slot][-newest:]]) for key in observation}
            context = Prompt(observed, {"mission": texts[slot]}, np.stack(actions[slot][-newest:]))
            logits = full_forward(agent, task, [context] if prompt is None else [prompt, context], hide)
            ids = torch.from_numpy(action_elements(chosen.action[slot], task))
            if task.action.kind == "continuous":
                ids = ((ids + 1) * 512).long()
            expected = logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]
            assert chosen.log_prob[slot] == pytest.approx(expected.numpy(), abs=1e-4), (step, slot)
        if step % 3 == 1:
            executed = random_values(task.action, (SLOTS,), rng)
            policy.executed(executed)
            for slot in range(SLOTS):
                actions[slot][-1] = executed[slot]


@pytest.mark.parametrize("positions", ["rotary", "xl"])
def test_a_rolling_cache_is_exact_far_into_an_episode(positions: str) -> None:
    """At position 300,000 it equals a windowed forward over all its tokens, and over the last L(W - 1) + 1 of them."""
    torch.manual_seed(0)
    config = AgentConfig(width=32, layers=3, heads=2, positions=positions, attention_window=6)
    transformer = Transformer(config).eval()
    for block in transformer.blocks:  # a new sink is zero
        torch.nn.init.normal_(block.sink.value)
    x = torch.randn(1, 200, 32)
    cache = KeyValueCache(config, 1, x.device)
    cache.next[:] = 300_000 - 100
    with torch.inference_mode():
        pieces, start = [], 0
        for length in [7, 1, 1, 12, 3] * 8 + [8]:
            valid = torch.ones(1, length, dtype=torch.bool)
            pieces.append(transformer(x[:, start : start + length], extension=cache.append(None, valid)))
            start += length
        assert start == 200 and cache.columns < 100
        cached, whole = torch.cat(pieces, dim=1), transformer(x)
        torch.testing.assert_close(cached, whole, atol=1e-4, rtol=0)
        enough = config.layers * (config.attention_window - 1) + 1
        torch.testing.assert_close(transformer(x[:, -enough:])[:, -1], whole[:, -1], atol=1e-5, rtol=0)
        short = transformer(x[:, 1 - enough :])[:, -1]
        assert (short - whole[:, -1]).abs().max() > 1e-4


@pytest.mark.parametrize("window", [None, 7])
def test_rolling_is_refused_where_the_window_is_not_half_the_context(window: int | None) -> None:
    with pytest.raises(ValueError, match="6 of test/control's 12 tokens"):
        Policy(small_agent(attention_window=window), CONTROL, 1, DecodingConfig(context="rolling"))


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


def test_int8_weights_act_almost_alike_and_follow_a_swap() -> None:
    agent, other = small_agent(), flat_weights(small_agent(seed=9))
    rng = np.random.default_rng(0)
    policies = [
        Policy(agent if weights == "float32" else copy.deepcopy(agent), CONTROL, SLOTS, DecodingConfig(
            continuous="mean", past_actions="hidden", weights=weights
        ))
        for weights in ("float32", "int8")
    ]  # fmt: skip
    for step in range(6):
        if step == 3:
            for policy in policies:
                policy.load_weights(1, other)
        observation = random_observation(CONTROL, (SLOTS,), rng)
        exact, rounded = (policy.act(observation, np.full(SLOTS, step == 0)).action for policy in policies)
        assert 0 < np.abs(exact - rounded).max() < 0.05


def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    prompt = random_prompt(CONTROL, 3, np.random.default_rng(0))
    with pytest.raises(ValueError, match="leaves none of test/control's context of 3"):
        Policy(small_agent(), CONTROL, 1, prompt=prompt)
