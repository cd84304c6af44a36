"""What the policy computes while acting is what training computes for the same context."""

import copy
import dataclasses
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
from agent.tokenizer import IdRange, encode_action, return_centres
from agent.transformer import Transformer
from agent.weights import flat_weights
from tests.agent.tasks import CONTROL, GRID, MISSIONS, TASKS, random_observation, random_values

SLOTS = 3


def small_agent(embedding: str = "fused", seed: int = 0, **settings: Any) -> Agent:
    torch.manual_seed(seed)
    return Agent(AgentConfig(width=32, layers=2, heads=2, observation_embedding=embedding, **settings), TASKS)


def make_inputs(
    agent: Agent, task: TaskSpec, steps: Prompt, hide: bool, returns: list[int] | None = None
) -> TaskInputs:
    return TaskInputs(
        task,
        {key: torch.from_numpy(array)[None] for key, array in steps.observation.items()},
        encode_texts(task, [steps.texts], agent.text),
        torch.from_numpy(action_elements(steps.action, task))[None],
        torch.tensor([hide]),
        torch.tensor([steps.steps]),
        None if returns is None else torch.tensor(returns)[None],
    )


@torch.no_grad()
def full_forward(
    agent: Agent, task: TaskSpec, parts: list[Prompt], hide: bool, returns: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the newest step: of its action [elements, legal], and of its return to come [bins], where the model
    has one."""
    hidden = full_hidden(agent, task, parts, hide, returns)
    actions = agent.logits(hidden[-task.action_tokens - 1 : -1], agent.vocabulary.legal_actions(task.action))
    return actions, agent.logits(hidden[-agent.tail(task) - 1], agent.vocabulary.returns)


@torch.no_grad()
def full_hidden(
    agent: Agent, task: TaskSpec, parts: list[Prompt], hide: bool, returns: list[int] | None
) -> torch.Tensor:
    """Hidden states [positions, d] of one plain forward over prompt and context, as in training."""
    tokens, timesteps, private = [], [], []
    for part in parts:
        inputs = make_inputs(agent, task, part, hide, returns if part is parts[-1] else None)
        valid = agent.valid_positions(inputs)
        number = torch.arange(part.steps)[None, :, None].expand_as(valid) + 1000 * len(tokens)
        is_return = torch.zeros_like(valid)
        is_return[:, :, valid.shape[2] - agent.tail(task)] = agent.config.returns == "masked"
        tokens.append(agent.embed(inputs).flatten(1, 2)[:, valid.flatten()])
        timesteps.append(number.flatten()[valid.flatten()])
        private.append(is_return.flatten()[valid.flatten()])
    pinned = torch.zeros(1, sum(each.shape[1] for each in tokens), dtype=torch.bool)
    pinned[:, : pinned.shape[1] - tokens[-1].shape[1]] = True
    masked = agent.config.returns == "masked"
    layout = Layout(
        torch.arange(pinned.shape[1])[None],
        pinned=pinned,
        private=torch.cat(private)[None] if masked else None,
        timesteps=torch.cat(timesteps)[None] if masked else None,
    )
    hidden: torch.Tensor = agent.eval().transformer(torch.cat(tokens, dim=1), layout)[0]
    return hidden


def random_prompt(task: TaskSpec, steps: int, rng: np.random.Generator) -> Prompt:
    texts = {"mission": "put the ball next to the box"} if "mission" in task.observation else {}
    return Prompt(random_observation(task, (steps,), rng), texts, random_values(task.action, (steps,), rng))


def steps_read(mode: str, kept: float, before: int, limit: int, swapped: bool) -> int:
    """Timesteps in the context, the newest included, when ``before`` were in it at the step before."""
    if mode == "recompute" or (mode == "rolling" and swapped):
        return min(before + 1, limit)
    if mode == "reprefill":
        return before + 1 if before < limit else max(1, int(limit * kept))
    return before + 1


SETTINGS = [
    ("recompute", {}),
    ("recompute", {"positions": "xl"}),
    ("reprefill", {}),
    ("reprefill", {"positions": "xl"}),
    ("reprefill", {"observation_embedding": "per_element"}),
    ("recompute", {"observation_embedding": "per_element"}),
    ("rolling", {"attention_window": 5}),
    ("recompute", {"returns": "masked"}),
    ("reprefill", {"kept": 0.75}),
    ("reprefill", {"returns": "masked"}),
    ("reprefill", {"returns": "visible"}),
    ("reprefill", {"returns": "masked", "observation_embedding": "per_element"}),
    ("rolling", {"returns": "masked", "attention_window": 5}),
    ("rolling", {"attention_window": 5, "positions": "xl"}),
]


@pytest.mark.parametrize(("hide", "prompt_steps"), [(False, 0), (True, 1)], ids=["shown", "hidden, with a prompt"])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize(("mode", "settings"), SETTINGS, ids=str)
def test_acting_equals_one_forward_over_its_context(
    mode: str, settings: dict, task: TaskSpec, hide: bool, prompt_steps: int
) -> None:
    """Over several contexts: resets of single slots, other actions executed than chosen, and a swap of weights."""
    settings = {"embedding": settings.get("observation_embedding", "fused")} | {
        key: value for key, value in settings.items() if key != "observation_embedding"
    }
    kept = settings.pop("kept", 0.5)
    agent, other = small_agent(**settings), flat_weights(small_agent(seed=9, **settings))
    asking = "none" if "returns" not in settings else "tilted" if hide else "target"
    decoding = DecodingConfig(
        context=mode,
        kept=kept,
        past_actions="hidden" if hide else "shown",
        returns=asking,
        return_target=0.9,
        kappa=3.0,
    )
    rng = np.random.default_rng(0)
    prompt = random_prompt(task, prompt_steps, rng) if prompt_steps else None
    policy = Policy(agent, task, SLOTS, decoding, seed=1, prompt=prompt)
    history: list[list[dict]] = [[] for _ in range(SLOTS)]
    actions: list[list[np.ndarray]] = [[] for _ in range(SLOTS)]
    returns: list[list[int]] = [[] for _ in range(SLOTS)]
    texts, read = list(MISSIONS), [0] * SLOTS
    for step in range(5 * task.context_steps):
        is_first = np.array([step == 0, step in (0, 4), step in (0, 2, 3)])
        for slot in np.flatnonzero(is_first):
            history[slot], actions[slot], returns[slot], read[slot] = [], [], [], 0
            texts[slot] = MISSIONS[(step + slot) % len(MISSIONS)]
        if step == 6:
            policy.load_weights(2, other)
        observation = random_observation(task, (SLOTS,), rng)
        given = dict(observation) | ({"mission": list(texts)} if "mission" in task.observation else {})
        chosen = policy.act(given, is_first)
        for slot in range(SLOTS):
            history[slot].append({key: value[slot] for key, value in observation.items()})
            actions[slot].append(chosen.action[slot])
            returns[slot].append(int(policy.context.inputs(None, 1).returns[slot, 0]))
            assert (returns[slot][-1] == -1) == (asking == "none")
            limit = task.context_steps - prompt_steps
            read[slot] = newest = steps_read(mode, kept, read[slot], limit, swapped=step == 6)
            observed = {key: np.stack([each[key] for each in history[slot][-newest:]]) for key in observation}
            context = Prompt(observed, {"mission": texts[slot]}, np.stack(actions[slot][-newest:]))
            parts = [context] if prompt is None else [prompt, context]
            logits, _ = full_forward(agent, task, parts, hide, returns[slot][-newest:])
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


@pytest.mark.parametrize("mode", ["recompute", "reprefill"])
def test_action_values_read_off_the_cache_are_those_of_one_forward(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the context, and after a swap of weights."""
    agent, other = small_agent(value_bins=11), flat_weights(small_agent(seed=9, value_bins=11))
    policy = Policy(agent, GRID, 1, DecodingConfig(context=mode), seed=1)
    rng, read, observed, acted = np.random.default_rng(0), [], [], []
    newest = 0

    def worth(hidden: torch.Tensor) -> torch.Tensor:
        values = agent.values_of(GRID)
        return values.expected(values(hidden))

    plain = policy._acting.logits

    def logits(hidden: torch.Tensor, legal: IdRange) -> torch.Tensor:
        read.append(worth(hidden[0]))
        return plain(hidden, legal)

    monkeypatch.setattr(policy._acting, "logits", logits)
    for step in range(3 * GRID.context_steps):
        if step == 4:
            policy.load_weights(2, other)
        observation = random_observation(GRID, (1,), rng)
        chosen = policy.act(observation | {"mission": [MISSIONS[0]]}, np.array([step == 0]))
        observed.append(observation)
        acted.append(chosen.action[0])
        newest = steps_read(mode, 0.5, newest, GRID.context_steps, swapped=step == 4)
        window = {key: np.stack([each[key][0] for each in observed[-newest:]]) for key in observation}
        part = Prompt(window, {"mission": MISSIONS[0]}, np.stack(acted[-newest:]))
        hidden = full_hidden(agent, GRID, [part], hide=False, returns=None)
        torch.testing.assert_close(read[-1], worth(hidden[-2]), atol=1e-4, rtol=0)
    assert len(read) == 3 * GRID.context_steps and float(torch.stack(read).std()) > 1e-4


@pytest.mark.parametrize("task", [GRID, CONTROL], ids=lambda task: task.name)
def test_the_value_of_the_chosen_action_is_in_points(task: TaskSpec) -> None:
    task = dataclasses.replace(task, value_range=(-5.0, 15.0))
    torch.manual_seed(0)
    agent = Agent(AgentConfig(width=32, layers=2, heads=2, value_bins=11), [task])
    policy, rng = Policy(agent, task, 1, DecodingConfig(), seed=1), np.random.default_rng(0)
    observation = random_observation(task, (1,), rng)
    texts = {"mission": MISSIONS[0]} if "mission" in task.observation else {}
    chosen = policy.act(observation | {key: [text] for key, text in texts.items()}, np.array([True])).action
    window = {key: array[:1] for key, array in observation.items()}
    hidden = full_hidden(agent, task, [Prompt(window, texts, chosen)], hide=False, returns=None)
    state, head = hidden[-task.action_tokens - 1], agent.values_of(task)
    if task.action.kind == "discrete":
        worth = head.expected(head(state))[int(chosen[0])]
    else:
        bins = encode_action(torch.from_numpy(chosen), task.action, agent.vocabulary)
        legal = agent.vocabulary.legal_actions(task.action)
        worth = head.expected(head.of_taken(state, bins[0] - legal.start, legal.count))
    assert policy.action_value() == pytest.approx([-5.0 + 20.0 * float(worth)], abs=1e-3)
    plain = Agent(AgentConfig(width=32, layers=2, heads=2), [task])
    without = Policy(plain, task, 1, DecodingConfig())
    without.act(observation | {key: [text] for key, text in texts.items()}, np.array([True]))
    assert np.isnan(without.action_value()).all()


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
    [
        ({"discrete": "mean"}, "decoding.discrete"),
        ({"temperature": 0.0}, "greedy"),
        ({"top_p": 0.0}, "top_p"),
        ({"kept": 1.0}, "kept"),
    ],
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


def test_a_prompt_that_comes_later_is_read_as_by_a_policy_that_begins_with_it() -> None:
    rng = np.random.default_rng(0)
    agent, prompt = small_agent(), random_prompt(CONTROL, 1, rng)
    greedy = DecodingConfig(continuous="greedy")
    later, fresh = Policy(agent, CONTROL, 2, greedy), Policy(agent, CONTROL, 2, greedy, prompt=prompt)
    for step in range(7):
        observation = random_observation(CONTROL, (2,), rng)
        if step == 3:
            later.read_first(prompt)
        ours = later.act(observation, np.array([step == 0, step == 5])).action
        if step >= 3:
            theirs = fresh.act(observation, np.array([step == 3, step in (3, 5)])).action
            assert np.array_equal(ours, theirs)


def test_the_return_asked_for_is_the_target_minus_what_was_earned() -> None:
    """Not off by one: the first step asks for the target, the step after a reward for the rest."""
    policy = Policy(small_agent(returns="masked"), CONTROL, 2, DecodingConfig(returns="target", return_target=900.0))
    rng, asked = np.random.default_rng(0), []
    for step in range(5):
        policy.act(random_observation(CONTROL, (2,), rng), np.array([step in (0, 3), step == 0]))
        bins = policy.context.inputs(None, 1).returns[:, 0]
        asked.append(return_centres(CONTROL, 128)[bins].tolist())
        assert policy.asked_return().tolist() == pytest.approx(asked[-1])
        policy.rewarded(np.array([100.0, 300.0]))
    expected = [(900, 900), (800, 600), (700, 300), (900, 0), (800, 0)]
    for given, wanted in zip(asked, expected):
        assert given == pytest.approx(wanted, abs=1000 / 128 / 2 + 1e-3)


def test_the_return_of_a_horizon_is_asked_for_at_each_step_anew() -> None:
    task = dataclasses.replace(CONTROL, return_horizon=10)
    agent = Agent(AgentConfig(width=32, layers=1, heads=2, returns="masked"), [task])
    policy = Policy(agent, task, 1, DecodingConfig(returns="target", return_target=500.0))
    rng = np.random.default_rng(0)
    for step in range(3):
        policy.act(random_observation(task, (1,), rng), np.array([step == 0]))
        assert policy.asked_return() == pytest.approx(500.0, abs=1000 / 128)
        policy.rewarded(np.array([100.0]))


def test_a_tilted_return_is_the_prediction_times_an_exponential_of_it() -> None:
    slots = 4000
    agent = small_agent(returns="masked")
    rng = np.random.default_rng(0)
    one = random_observation(CONTROL, (1,), rng)
    context = Prompt(one, {}, np.zeros((1, 2), np.float32))
    _, scores = full_forward(agent, CONTROL, [context], False, [0])
    for kappa in (0.0, 5.0):
        policy = Policy(agent, CONTROL, slots, DecodingConfig(returns="tilted", kappa=kappa), seed=1)
        policy.act({key: np.repeat(value, slots, 0) for key, value in one.items()}, np.ones(slots, bool))
        drawn = torch.bincount(policy.context.inputs(None, 1).returns[:, 0], minlength=128) / slots
        centres = (torch.arange(128) + 0.5) / 128
        expected = scores.softmax(-1) * torch.exp(kappa * centres)
        expected = expected / expected.sum()
        assert (drawn - expected).abs().max() < 0.02
        assert (drawn * centres).sum().item() == pytest.approx((expected * centres).sum().item(), abs=0.02)


def test_the_next_return_cannot_be_read_off_the_last_one() -> None:
    """With ``masked``, no later timestep is touched by a return; with ``visible`` it is."""
    for kind, touched in (("masked", False), ("visible", True)):
        steps = random_prompt(CONTROL, 3, np.random.default_rng(0))
        # In deeper models a return is still felt through the actions that were chosen in its sight.
        one_layer = Agent(AgentConfig(width=32, layers=1, heads=2, returns=kind), TASKS)
        alone = [full_forward(one_layer, CONTROL, [steps], False, [first, 5, 7]) for first in (3, 90)]
        assert all(torch.equal(*pair) is not touched for pair in zip(*alone))


def test_asking_a_model_without_returns_is_refused() -> None:
    with pytest.raises(ValueError, match=r"agent\.returns"):
        Policy(small_agent(), CONTROL, 1, DecodingConfig(returns="tilted"))
    nameless = dataclasses.replace(CONTROL, return_range=None)
    with pytest.raises(ValueError, match="return_range"):
        Agent(AgentConfig(width=32, layers=1, heads=2, returns="masked"), [nameless])
