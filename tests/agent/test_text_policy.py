"""Texts as actions: their bytes, their tokens, and the policy that says and scores them."""

import io
import math

import numpy as np
import pytest
import sentencepiece
import torch
from hypothesis import given
from hypothesis import strategies as st

from agent.agent import Agent
from agent.config import AgentConfig, DecodingConfig
from agent.inputs import encode_said
from agent.policy import Policy, make_policy
from agent.task import ArraySpec, TaskSpec, text_bytes, text_of
from agent.text_policy import TextPolicy
from agent.tokenizer import TextTokenizer
from learner.batch import make_batch
from learner.config import LearnerConfig
from learner.crop import Crop, collate
from learner.objectives.imitation import imitation
from tests.agent.tasks import CONTROL, PASSAGE, QUESTION, TEXT_TASKS
from tests.learner.windows import random_window


def agent_of(embedding: str = "fused", **changes: object) -> Agent:
    torch.manual_seed(3)
    settings = {"width": 32, "layers": 2, "heads": 2, "observation_embedding": embedding} | changes
    return Agent(AgentConfig(**settings), [CONTROL, *TEXT_TASKS])  # type: ignore[arg-type]


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12))
def test_texts_go_through_bytes_unchanged(text: str) -> None:
    data = text_bytes(text, 64)
    assert data.dtype == np.uint8 and data.shape == (64,)
    assert text_of(data) == text


@pytest.mark.parametrize("text", ["", "seven77", "a\0b"])
def test_texts_that_do_not_fit_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="1 to 6 bytes"):
        text_bytes(text, 6)


def test_said_texts_end_with_an_id_that_no_text_holds() -> None:
    tokenizer = TextTokenizer.default()
    said = np.stack([text_bytes(text, 48)[None] for text in ("go to the red ball", "ß¬?")])
    ids = encode_said(said, tokenizer)
    assert ids.shape == (2, 1, ids.shape[2]) and ids.dtype == np.int64
    for row, text in zip(ids[:, 0], ("go to the red ball", "ß¬?")):
        real = row[row >= 0].tolist()
        assert real[-1] == tokenizer.end and real[:-1] == tokenizer.encode(text)
        assert tokenizer.end not in real[:-1] and tokenizer.decode(real[:-1]) == text


def model(**options: object) -> TextTokenizer:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the red ball", "a green key", "the blue box"] * 9), model_writer=out, vocab_size=40,
        hard_vocab_limit=False, minloglevel=2, **options,
    )  # fmt: skip
    return TextTokenizer(out.getvalue())


def test_the_end_of_a_text_is_the_models_own_where_it_has_one() -> None:
    assert model(eos_id=2).end == 2
    without = model(eos_id=-1, bos_id=-1)
    with pytest.raises(ValueError, match="byte fallback"):
        _ = without.end
    with pytest.raises(ValueError, match="byte fallback"):
        Agent(AgentConfig(width=32, heads=2, layers=1), [QUESTION], without)
    Agent(AgentConfig(width=32, heads=2, layers=1), [CONTROL], without)  # says no texts


@pytest.mark.parametrize("embedding", ["fused", "per_element"])
@pytest.mark.parametrize("task", TEXT_TASKS, ids=lambda task: task.name)
def test_scores_are_the_losses_of_training(embedding: str, task: TaskSpec) -> None:
    """Nats of `TextPolicy.score` against those of a packed batch, with two tasks in its rows."""
    agent, rng = agent_of(embedding), np.random.default_rng(1)
    windows = [random_window(task, 1, rng) for _ in range(5)]
    group = collate(task, [Crop(w, 0, 1) for w in windows], agent.text, rng, past_action_dropout=1.0)
    other = collate(CONTROL, [Crop(random_window(CONTROL, 3, rng), 0, 3)], agent.text, rng, past_action_dropout=1.0)
    batch = make_batch(agent.eval(), [other, group], row_length=200)
    _, record = imitation(agent, batch, LearnerConfig())
    policy = TextPolicy(agent, task, 5)
    observation: dict = {key: np.stack([w.observation[key][0] for w in windows]) for key in windows[0].observation}
    observation |= {key: [w.metadata.texts[key] for w in windows] for key in windows[0].metadata.texts}
    nats, tokens = policy.score(observation, np.stack([w.action[0] for w in windows]))
    torch.testing.assert_close(record["window_loss"][1:].float(), torch.from_numpy(nats), atol=1e-4, rtol=1e-4)
    targets = next(each for each in batch.targets if each.task == task.name)
    assert targets.kind == "text" and len(targets.id) == tokens.sum()
    assert targets.legal.count == agent.text.size
    assert record["loss/text"] == pytest.approx(nats.sum() / tokens.sum(), rel=1e-4)


@pytest.mark.parametrize("embedding", ["fused", "per_element"])
def test_answers_do_not_hang_on_who_else_is_asked(embedding: str) -> None:
    agent, rng = agent_of(embedding), np.random.default_rng(2)
    pictures = rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    questions = ["why?", "what color is the ball, and what is beside it?", "is it?", "how many?"]
    together = TextPolicy(agent, QUESTION, 4).act({"picture": pictures, "question": questions}, np.ones(4, bool))
    for slot in range(4):
        alone = TextPolicy(agent, QUESTION, 1).act(
            {"picture": pictures[slot : slot + 1], "question": [questions[slot]]}, np.ones(1, bool)
        )
        np.testing.assert_array_equal(alone.action[0], together.action[slot])


def test_sampled_texts_have_their_log_probabilities_and_a_seed() -> None:
    agent = agent_of()
    decoding = DecodingConfig(text="sample", temperature=0.7)
    first, second, other = (
        TextPolicy(agent, PASSAGE, 3, decoding, seed).act({}, np.ones(3, bool)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.action, second.action)
    assert (first.action != other.action).any()
    assert first.log_prob.shape == (3, 48)
    known = ~np.isnan(first.log_prob)
    assert known.any(1).all() and (first.log_prob[known] <= 0).all()
    # Real tokens come first, and nothing follows the end.
    assert (known[:, 1:] <= known[:, :-1]).all()


def test_texts_are_cut_at_whole_characters() -> None:
    agent = agent_of()
    policy = TextPolicy(agent, PASSAGE, 1)
    ids = agent.text.encode("é" * 40)
    assert text_of(policy._bytes([*ids, agent.text.end, -1])) == "é" * 24


def test_the_policy_of_a_task_is_chosen_by_its_actions() -> None:
    agent = agent_of()
    assert isinstance(make_policy(agent, CONTROL, 2), Policy)
    assert isinstance(make_policy(agent, QUESTION, 2), TextPolicy)
    with pytest.raises(ValueError, match="no room for a prompt"):
        make_policy(agent, QUESTION, 2, prompt=object())  # type: ignore[arg-type]


def test_questions_of_a_megabyte_are_refused() -> None:
    policy = TextPolicy(agent_of(), QUESTION, 1)
    picture = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match="at most 512 are read"):
        policy.act({"picture": picture, "question": ["why " * 2**18]}, np.ones(1, bool))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"action": ArraySpec("text", max_bytes=8)}, "shape"),
        ({"context_steps": 4}, "context_steps and max_episode_steps are 1"),
        ({"observation": {"x": ArraySpec("text", (8,), max_bytes=8)}}, "observed"),
    ],
)
def test_text_tasks_that_make_no_sense_are_refused(changes: dict, reason: str) -> None:
    fields = {"name": "a/b", "observation": {}, "action": ArraySpec("text", (8,), max_bytes=8), "context_steps": 1}
    with pytest.raises(ValueError, match=reason):
        TaskSpec(**fields | {"max_episode_steps": 1} | changes)


def test_a_text_task_is_json() -> None:
    assert TaskSpec.from_json(QUESTION.to_json()) == QUESTION and math.isnan(PASSAGE.random_return)


def test_texts_are_said_with_eight_bit_weights_too() -> None:
    agent = agent_of()
    said = TextPolicy(agent, PASSAGE, 2, DecodingConfig(weights="int8")).act({}, np.ones(2, bool)).action
    assert said.shape == (2, 48)
