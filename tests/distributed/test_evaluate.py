"""``clowder evaluate`` and ``play`` on a run whose checkpoint was never trained."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from actors.config import ActorConfig
from actors.demonstrations.record import pack_action_set
from agent.agent import Agent
from distributed.cli import main
from distributed.compose import compose
from distributed.config import to_dict
from distributed.evaluation import Round, evaluate_task
from distributed.plan import make_plan
from distributed.run_expert import expert_of
from distributed.run_folder import RunFolder
from distributed.trained_run import TrainedRun
from learner.batch_source import TaskSources
from learner.checkpoint import take_snapshot, write_checkpoint
from learner.learner import Learner
from tests.learner.windows import ListStream

TASK = "babyai/GoToLocal"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["actors=[babyai_goto_local]", "agent.width=32", "agent.layers=1", "agent.heads=2", "seed=5"]
    config = compose(words)
    plan = make_plan(config)
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "untrained", to_dict(config), [])
    nothing = {TASK: TaskSources(plan.specs[0], 1.0, (0.0, 0.0), {"demonstrations": ListStream([])})}
    learner = Learner(Agent(config.agent, plan.specs), nothing, config.learner, seed=0)
    write_checkpoint(folder.checkpoints, take_snapshot(learner, {"environment_steps": 7, "wall_seconds": 1.5}))
    learner.close()
    return folder.path


def evaluate(run: Path, *words: str) -> dict:
    out = run / "scores.json"
    assert main(["evaluate", str(run), "--episodes", "3", "--json", str(out), *words]) == 0
    return json.loads(out.read_text())


def test_scores_have_the_form_of_a_result(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = evaluate(run)
    assert scores["schema"] == 1 and scores["seed"] == 5 and scores["environment_steps"] == 7
    task = scores["tasks"][TASK]
    assert task["episodes"] == 3 and 0 <= task["mean_return"] <= 1
    low, high = task["ci95_mean_return"]
    assert low <= task["mean_return"] <= high
    assert TASK in capsys.readouterr().out


def test_a_checkpoint_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(run, "--checkpoint", "0")["learner_steps"] == 0
    assert main(["evaluate", str(run), "--checkpoint", "12"]) != 0
    assert "has no checkpoint 12; those that are kept are of steps: 0" in capsys.readouterr().err


def test_the_same_seeds_and_decoding_give_the_same_returns(run: Path) -> None:
    words = ["--seed", "11", "evaluation.decoding.discrete=greedy"]
    assert evaluate(run, *words)["tasks"] == evaluate(run, *words)["tasks"]


def test_actions_are_sampled_with_the_seed_of_the_run(run: Path) -> None:
    trained = TrainedRun.load(str(run), [], [])
    (actor,) = trained.config.actors.values()
    decoding = trained.config.evaluation.decoding

    def returns(seed: int) -> list[float]:
        played = evaluate_task(trained.agent, 0, actor, decoding, episodes=12, first_seed=11, seconds=60, seed=seed)
        return played.returns

    assert returns(0) != returns(5)
    assert evaluate(run, "--seed", "11", "--episodes", "12")["tasks"][TASK]["returns"] == returns(5)


def test_a_video_that_cannot_be_written_costs_no_scores(
    run: Path, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = TrainedRun.load(str(run), [], [])

    def played(video: Path | None) -> Round:
        (actor,) = trained.config.actors.values()
        decoding = trained.config.evaluation.decoding
        return evaluate_task(trained.agent, 3, actor, decoding, episodes=2, first_seed=5, seconds=60, video=video)

    whole = played(small_disk / "whole.mp4")
    assert whole.video == str(small_disk / "whole.mp4") and Path(whole.video).stat().st_size and not whole.no_video
    (tmp_path / "file").write_text("")
    beside_a_file = played(tmp_path / "file" / "video.mp4")
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    full = played(small_disk / "full.mp4")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/bin/false")
    without_encoder = played(tmp_path / "video.mp4")
    for failed in (beside_a_file, full, without_encoder):
        assert failed.returns == whole.returns and len(failed.returns) == 2
        assert failed.video is None and "Error" in failed.no_video, failed.no_video


def test_a_prompt_is_read(run: Path) -> None:
    scores = evaluate(run, "--prompt", "own")
    assert "prompt=own" in scores["decoding"] and scores["tasks"][TASK]["episodes"] == 3


def test_a_run_is_an_expert_and_its_episodes_prompt_it(run: Path, tmp_path: Path) -> None:
    config = ActorConfig(task=TASK)
    expert = expert_of(f"run:{run}", config)
    assert expert.name == f"run:{run.name}@0" and expert.sees == "observations"
    for seed, noise in ((3, 0.0), (4, 0.7)):
        one, other = expert.play(seed, noise), expert.play(seed, noise)
        assert np.array_equal(one.action, other.action) and np.array_equal(one.label, other.label)
        assert one.noisy == (noise > 0) and np.array_equal(one.action, one.label) == (noise == 0)
    pack_action_set(tmp_path / "played", config, expert.name, [expert.play(seed) for seed in range(2)], None)
    assert "prompt=" in evaluate(run, "--prompt", str(tmp_path / "played"))["decoding"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--prompt", "boxing"], "atari/boxing"),
        (["--prompt", "boxxing"], "did you mean boxing"),
        (["--task", "babyai/GoTo"], "did you mean babyai/GoToLocal"),
        (["evaluation.decoding.context=rolling"], "agent.attention_window"),
        (["evaluation.decoding.discrete=mean"], "evaluation.decoding.discrete"),
        (["learner.steps=3"], "learner.steps"),
    ],
)
def test_what_cannot_be_played_is_refused(
    run: Path, words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), "--episodes", "1", *words]) == 2
    line = capsys.readouterr().err
    assert reason in line and line.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["boxing", "--expert", "run:{run}"], "was not trained on atari/boxing"),
        ([TASK, "--expert", "run:no-such-run"], "there is no run no-such-run"),
        ([TASK, "--expert", "babyai-bod"], "did you mean babyai-bot"),
        ([TASK, "--expert", "babyai-bot", "--processes", "0"], "--processes must be at least 1"),
        ([TASK, "--expert", "babyai-bot", "--episode-deadline", "0"], "episode_deadline must be above 0"),
    ],
)
def test_what_cannot_be_recorded_is_refused(
    run: Path, words: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(run=run) for word in words]
    assert main(["record", *words, "--episodes", "2", "--out", str(tmp_path / "set")]) == 2
    line = capsys.readouterr().err
    assert reason in line and line.count("\n") == 1
    assert not (tmp_path / "set").exists()
