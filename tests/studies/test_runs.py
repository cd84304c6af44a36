"""What a study finds in the folder of its runs is what it asks for, or is refused."""

import dataclasses
import subprocess
from pathlib import Path

import pytest

from distributed.compose import compose
from distributed.errors import RunFolderError
from distributed.result import Result, task_result
from distributed.run_folder import RunFolder
from studies.runs import cpu_seconds, evaluated, final_result, trained
from tests.agent.tasks import CONTROL

WORDS = ["experiment=cartpole", "seed=3"]


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A folder as a finished run leaves it; its result is not looked at."""
    folder = tmp_path / "cartpole-seed3"
    config = compose([*WORDS, f"name={folder.name}", f"logging.folder={tmp_path}"])
    RunFolder.create(folder, dataclasses.asdict(config), []).result.write_text("{}")
    return folder


def test_a_finished_run_is_not_trained_again(finished: Path) -> None:
    before = sorted(finished.rglob("*"))
    assert trained(finished, WORDS) == finished
    moved = finished.parent / "elsewhere" / finished.name
    moved.parent.mkdir()
    finished.rename(moved)
    assert trained(moved, WORDS) == moved
    assert len(list(moved.rglob("*"))) == len(before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["learner.steps=7"],
            "learner.steps=3500, and the study asks for 7 now; move it away",
        ),
        (["actors.cartpole_v1.ladder={top_p: [1, 0.5]}"], r"actors.cartpole_v1.ladder=\{\}, and the study asks for"),
        (
            ["actors=[cartpole_v1,boxing]"],
            r"actors=\['cartpole_v1'\], and the study asks for \['cartpole_v1', 'boxing'\] now",
        ),
    ],
)
def test_a_run_of_other_settings_is_refused(finished: Path, words: list[str], message: str) -> None:
    with pytest.raises(RunFolderError, match=message):
        trained(finished, [*WORDS, *words])


@pytest.mark.long
def test_a_run_that_was_begun_goes_on_and_a_cut_evaluation_is_not_kept(tmp_path: Path) -> None:
    """The folder is as a run leaves it that was ended before its first checkpoint."""
    folder = tmp_path / "cartpole-seed3"
    words = [*WORDS, "learner.steps=20", "evaluation.every_steps=0", "evaluation.final_episodes=1"]
    config = compose([*words, f"name={folder.name}", f"logging.folder={tmp_path}"])
    RunFolder.create(folder, dataclasses.asdict(config), [])
    with pytest.raises(RunFolderError, match=r"learner.steps=20, and the study asks for 7 now"):
        trained(folder, [*words, "learner.steps=7"])
    trained(folder, words, deadline=120)
    assert final_result(folder).learner_steps == 20
    assert cpu_seconds(folder) is None  # of all of it, it is not known
    with pytest.raises(subprocess.CalledProcessError):
        evaluated(folder, "again", ["--episodes", "2", "--deadline", "0.001"])
    assert not (folder / "again.json").exists()
    assert evaluated(folder, "again", ["--episodes", "2"]).tasks["gymnasium/CartPole-v1"].episodes == 2


def test_a_final_evaluation_that_was_cut_is_not_taken_for_whole(finished: Path) -> None:
    """Its whole one is made by `clowder evaluate`, once; here it was made before."""
    config = compose(WORDS)
    task, wanted = config.actors["cartpole_v1"].task, config.evaluation.final_episodes
    result = Result(3, 1, "sample", {}, 3500, 56_000, 60.0, 1000)
    for name, episodes in (("result", wanted - 1), ("evaluated-again", wanted)):
        scores = {task: task_result([1.0] * episodes, CONTROL, None, None)}
        dataclasses.replace(result, tasks=scores).write(finished / f"{name}.json")
    again = finished / "evaluated-again.json"
    assert final_result(finished).tasks[task].episodes == wanted
    again.rename(finished / "result.json")
    assert final_result(finished).tasks[task].episodes == wanted
    assert not again.exists()
