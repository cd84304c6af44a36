"""Text tasks: what is drawn, what is right, and what is held out."""

import collections
import dataclasses

import numpy as np
import pytest

from actors.config import ActorConfig
from actors.demonstrations.open_set import open_set
from actors.demonstrations.record import record
from actors.environments.make import make_environment, task_spec
from actors.environments.text import make_source
from actors.environments.text_sources.documents import shipped_texts
from actors.evaluator import random_return
from actors.seeds import ENVIRONMENT_SEEDS, REPORTING_SEEDS
from agent.task import text_bytes

QUESTIONS, CAPTIONS = "text/babyai-questions", "text/babyai-captions"
COLOURS = {
    "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "purple": (112, 39, 195), "yellow": (255, 255, 0),
    "grey": (100, 100, 100),
}  # fmt: skip


def config(task: str, **arguments: object) -> ActorConfig:
    return ActorConfig(task=task, context_steps=1, num_actors=0, arguments=arguments)


def shown(picture: np.ndarray, colour: str) -> bool:
    """Whether the inside of the room holds pixels of a colour; walls are grey, and the agent is red."""
    inside = picture[16:-16, 16:-16].astype(float)
    bright = np.linalg.norm(inside, axis=-1)
    likeness = inside @ np.array(COLOURS[colour], float) / np.maximum(bright, 1) / np.linalg.norm(COLOURS[colour])
    return bool(((likeness > 0.98) & (bright > 60)).any())  # thin lines are darker than their colour


def test_questions_are_answered_by_their_pictures() -> None:
    source = make_source(QUESTIONS, {})
    forms: collections.Counter[str] = collections.Counter()
    answers: collections.Counter[str] = collections.Counter()
    for seed in range(400):
        pair = source.pair(seed)
        question, answer = pair.observation["question"], pair.said
        picture = pair.observation["picture"]
        assert picture.shape == (80, 80, 3) and picture.dtype == np.uint8
        answers[answer] += 1
        words = question.rstrip("?").split()
        forms[" ".join(words[:2])] += 1
        if question.startswith("what color"):
            assert shown(picture, answer)
        elif question.startswith("what is the"):
            assert shown(picture, words[3]) and answer in ("key", "ball", "box")
        elif question.startswith("is there") and answer == "yes":
            assert shown(picture, words[3])
        elif question.startswith("how many"):
            assert 0 <= int(answer) <= 2
    assert min(forms.values()) > 60 and len(forms) == 4
    assert answers.most_common(1)[0][1] < 0.25 * 400


def test_captions_and_questions_of_a_seed_are_of_one_room() -> None:
    captions, questions = make_source(CAPTIONS, {}), make_source(QUESTIONS, {})
    for seed in range(60):
        caption, asked = captions.pair(seed), questions.pair(seed)
        np.testing.assert_array_equal(caption.observation["picture"], asked.observation["picture"])
        things = caption.said.split(", ")
        assert things == sorted(things)
        question, answer = asked.observation["question"], asked.said
        words = question.rstrip("?").split()
        if words[0] == "how":
            kind = {"keys": "key", "balls": "ball", "boxes": "box"}[words[2]]
            assert int(answer) == sum(thing.endswith(kind) for thing in things)
        elif words[0] == "is":
            assert (f"{words[3]} {words[4]}" in things) == (answer == "yes")
        elif words[1] == "color":
            assert f"{answer} {words[-1]}" in things
        else:
            assert f"{words[3]} {answer}" in things


def test_the_reward_is_for_exactly_the_right_text() -> None:
    environment = make_environment(config(QUESTIONS), 3)
    observation = environment.reset([0, 1, 2], [5, 6, 7])
    assert [type(question) for question in observation["question"]] == [str] * 3
    truth = environment.environment.truth()  # type: ignore[attr-defined]
    size = environment.task.action.max_bytes
    step = environment.step(np.stack([text_bytes(text, size) for text in (truth[0], truth[1].upper(), "zebra")]))
    assert step.reward.tolist() == [1.0, 1.0, 0.0] and step.success is not None
    assert step.success.tolist() == [True, True, False] and step.terminated.all()
    assert environment.render(0).shape == (384, 320, 3)
    assert random_return(environment, 50, 0) == 0.0


def test_a_seed_says_everything() -> None:
    for name, arguments in ((QUESTIONS, {}), (CAPTIONS, {}), ("text/sonnets", {"files": ["sonnets"]})):
        first, second = make_source(name, arguments), make_source(name, arguments)
        second.pair(99)
        one, other = first.pair(12), second.pair(12)
        assert one.said == other.said and first.pair(13).said != one.said
        for key, value in one.observation.items():
            np.testing.assert_array_equal(value, other.observation[key])


def test_held_out_passages_are_never_learned() -> None:
    source = make_source("text/sonnets", {"files": ["sonnets"], "passage_bytes": 200})
    whole = " ".join(shipped_texts()["sonnets"].read_text().split())
    end = 0.9 * len(whole)
    for first, kept in ((0, False), (REPORTING_SEEDS, True), (ENVIRONMENT_SEEDS, False)):
        for seed in range(first, first + 50):
            said = source.pair(seed).said
            assert said in whole and 100 < len(said.encode()) <= 200
            start = whole.index(said)
            assert (start > end - 300) if kept else (start + len(said) < end + 300)


def test_easy_vqa_keeps_its_test_split_apart() -> None:
    easy_vqa = pytest.importorskip("easy_vqa")
    source = make_source("text/easy-vqa", {})
    pair = source.pair(0)
    assert pair.observation["picture"].shape == (64, 64, 3) and pair.said in easy_vqa.get_answers()
    test = {question: None for question in easy_vqa.get_test_questions()[0]}
    assert source.pair(REPORTING_SEEDS).observation["question"] in test
    assert task_spec(config("text/easy-vqa")).action.max_bytes == len("rectangle")


@pytest.mark.parametrize("form", ["actions", "minari"])
def test_a_set_of_truths_comes_back(tmp_path, form) -> None:
    actor = config("text/sonnets", files=["sonnets"], passage_bytes=64)
    report = record(actor, "text-truth", 6, tmp_path / "set", form=form, random_seconds=0.0)
    assert report.episodes == 6 and report.random_return == 0.0
    opened = open_set(tmp_path / "set", actor)
    source = make_source(actor.task, actor.arguments)
    for index in range(6):
        episode = opened.episode(index)
        assert episode.length == 1 and episode.episode_return == 1.0
        np.testing.assert_array_equal(episode.label[0], text_bytes(source.pair(index).said, 64))
    opened.close()
    with pytest.raises(ValueError, match="passage_bytes"):
        open_set(tmp_path / "set", config("text/sonnets", files=["sonnets"], passage_bytes=128))


def test_what_cannot_be_used_is_refused(tmp_path) -> None:
    bad = tmp_path / "latin.txt"
    bad.write_bytes("Größe ".encode("latin-1") * 500)
    short = tmp_path / "short.txt"
    short.write_text("a few words")
    for task, arguments, reason in (
        ("text/babyai-question", {}, "did you mean text/babyai-question"),
        ("text/anything", {"files": []}, "list of text files"),
        ("text/anything", {"files": "sonnets"}, "list of text files"),
        ("text/anything", {"files": ["sonnet"]}, "shipped texts: sonnets"),
        ("text/anything", {"files": [str(bad)]}, "not UTF-8"),
        ("text/anything", {"files": [str(short)]}, "too short"),
        ("text/anything", {"files": ["sonnets"], "passage_bytes": 4}, "passage_bytes must be between"),
        (QUESTIONS, {"colour": 3}, "colour"),
        (QUESTIONS, {"level": "GoToLocalX"}, "did you mean"),
    ):
        with pytest.raises(ValueError, match=reason):
            make_environment(config(task, **arguments), 1)
    with pytest.raises(ValueError, match="takes no noise"):
        record(config(QUESTIONS), "text-truth", 2, tmp_path / "noisy", form="actions", noise_levels=[0.3])
    with pytest.raises(ValueError, match="context_steps"):
        make_environment(dataclasses.replace(config(QUESTIONS), context_steps=4), 1)
