"""A text task through the whole system in one process, and ``clowder ask`` on what it left."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from actors.config import ActorConfig
from actors.demonstrations.record import record
from distributed.cli import main
from distributed.compose import compose
from distributed.config import to_dict
from distributed.coordinator import train
from distributed.metrics import read_rows
from distributed.run_folder import RunFolder

QUESTIONS, CAPTIONS, PASSAGES = "text/babyai-questions", "text/babyai-captions", "text/sonnets"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on questions and captions; one actor says answers of its own too."""
    folder = tmp_path_factory.mktemp("text")
    for task, short in ((QUESTIONS, "questions"), (CAPTIONS, "captions")):
        actor = ActorConfig(task=task, context_steps=1)
        record(actor, "text-truth", 40, folder / short, form="actions", random_seconds=0.0)
    config = compose(
        [
            "actors=[babyai_questions,babyai_captions]", "cluster=serial", "name=run", f"logging.folder={folder}",
            f"actors.babyai_questions.demonstrations={folder / 'questions'}",
            f"actors.babyai_captions.demonstrations={folder / 'captions'}",
            "actors.babyai_questions.num_actors=1", "actors.babyai_questions.envs_per_actor=2",
            "actors.babyai_questions.online_share=0.25", "learner.good_threshold=-1",
            "logging.every_seconds=0.2", "logging.console=off", "agent.width=32", "agent.layers=1", "agent.heads=2",
            "learner.windows_per_batch=8", "learner.tokens_per_row=64", "stop.learner_steps=30",
            "cluster.publish_seconds=0", "cluster.pull_seconds=0.1", "evaluation.every_seconds=0",
            "evaluation.final_episodes=7",
        ]
    )  # fmt: skip
    made = RunFolder.create(folder / "run", to_dict(config), ["test"])
    train(config, made, resume=False).write(made.result)
    return made


def test_questions_and_captions_are_learned_from_replay_and_scored(run, capsys):
    result = json.loads(run.result.read_text())
    assert result["online_windows_learned"] > 0 and result["environment_steps"] > 0
    for task in (QUESTIONS, CAPTIONS):
        scores = result["tasks"][task]
        assert scores["episodes"] == 7 and scores["mean_return"] == pytest.approx(scores["text"]["accuracy"])
        assert 1 < scores["text"]["perplexity"] < 512
        assert 0 <= scores["text"]["without_picture"] <= 1 and 1 / 7 <= scores["text"]["most_frequent_answer"] <= 1
        assert math.isfinite(scores["text"]["bits_per_byte"])
    assert not list(run.videos.glob("*.mp4"))
    values = {name for row in read_rows(run.metrics) for name in row["values"]}
    assert {"learner/loss/text", f"final/perplexity/{QUESTIONS}", f"final/without_picture/{CAPTIONS}"} <= values
    again = run.path / "again"
    assert main(["evaluate", str(run.path), "--episodes", "5", "--task", QUESTIONS, "--json", str(again)]) == 0
    out = capsys.readouterr().out
    assert "perplexity" in out and "without" in out
    assert json.loads(again.read_text())["tasks"][QUESTIONS]["text"]["perplexity"] > 1


def test_ask_answers_questions_and_captions_pictures_of_any_size(run, tmp_path, capsys):
    for name, size in (("a.png", (80, 80)), ("b.jpg", (33, 50))):
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        assert main(["ask", str(run.path), "--image", str(tmp_path / name), "what color is the ball?"]) == 0
        assert main(["ask", str(run.path), "--image", str(tmp_path / name), "--sample", "--seed", "3"]) == 0
        said = capsys.readouterr().out.splitlines()
        assert len(said) == 2 and len(said[0]) <= len("yellow")


def test_what_cannot_be_asked_is_refused(run, tmp_path, capsys):
    picture, broken = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(picture)
    broken.write_bytes(picture.read_bytes()[:60])
    text = tmp_path / "c.png"
    text.write_text("no picture")
    for words, reason in (
        (["what?"], "takes --image and a question"),
        (["--image", str(tmp_path / "none.png"), "what?"], "cannot be read"),
        (["--image", str(broken), "what?"], "cannot be read"),
        (["--image", str(text), "what?"], "no PNG or JPEG"),
        (["--image", str(picture), "  "], "the question is empty"),
        (["--image", str(picture), "why " * 2**12], "at most 512 are read"),
        (["--image", str(picture), "what?", "--task", "babyai_captions"], "takes --image"),
        (["--image", str(picture), "what?", "--task", "boxing"], "was not trained on boxing"),
    ):
        assert main(["ask", str(run.path), *words]) == 2, words
        line = capsys.readouterr().err
        assert reason in line and line.count("\n") == 1, line
    assert main(["play", str(run.path), "--task", QUESTIONS, "--video", str(tmp_path / "v.mp4")]) == 2
    assert "clowder ask" in capsys.readouterr().err
