"""The final evaluation: processes that are killed or stopped in it, and videos that cannot be written."""

import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from actors.evaluator import Foretold
from distributed import final_evaluation
from distributed.compose import compose
from distributed.config import to_dict
from distributed.evaluation import Round
from distributed.metrics import MetricsWriter
from distributed.plan import make_plan
from distributed.progress import Progress
from distributed.ray_cluster import leave, start_private
from distributed.run_folder import RunFolder

NAMES = ("cartpole_v1", "babyai_goto_local", "babyai_pickup_loc")
"""As `longest_first` has them."""


class Player:
    """Stands for `EvaluatorProcess`: a process that ends as a file of the checkpoint says, or has a score for the task.

    The file ``<task>`` holds one word for each try; ``<task>.tries`` has a line for each that began.
    """

    def __init__(self, plan, nice):
        self.plan = plan

    def evaluate(self, name, checkpoint, version, seconds, video):
        tries = checkpoint / f"{name}.tries"
        with tries.open("a") as file:
            file.write(f"{os.getpid()}\n")
        words = (checkpoint / name).read_text().split()
        word = words[len(tries.read_text().split()) - 1]
        if word != "plays":
            os.kill(os.getpid(), {"dies": signal.SIGKILL, "stops": signal.SIGSTOP}[word])
        task = self.plan.tasks[name].name
        return Round(task=task, version=version, returns=[1.0], foretold=Foretold(), unfinished=0, seconds=0.0)


class Evaluation:
    """One evaluation of a checkpoint of which only the version is read."""

    def __init__(self, folder, *words):
        self.plan = make_plan(compose([f"actors=[{','.join(NAMES)}]", "evaluation.videos=false", *words]))
        self.run = RunFolder.create(folder / "run", to_dict(self.plan.config), [])
        self.checkpoint = folder / "checkpoint"
        self.checkpoint.mkdir()
        (self.checkpoint / "state.json").write_text(json.dumps({"counters": {"version": 7}}))
        self.metrics = MetricsWriter(self.run.tensorboard, self.run.metrics)

    def result(self, *words):
        for name, word in zip(NAMES, words):
            (self.checkpoint / name).write_text(word)
            (self.checkpoint / f"{name}.tries").unlink(missing_ok=True)
        found = final_evaluation.evaluate_in_processes(
            self.plan, Progress(self.plan), self.checkpoint, self.run, self.metrics, SimpleNamespace(requested=False)
        )
        short = {task.name: name for name, task in self.plan.tasks.items()}
        return {short[task] for task in found.tasks}, {short[task]: why for task, why in found.failed.items()}

    def tries(self, name):
        path = self.checkpoint / f"{name}.tries"
        return path.read_text().split() if path.exists() else []


@pytest.fixture(scope="module")
def ray_of_ours():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's processes need not find the tests
    try:
        start_private(num_cpus=4, object_store_megabytes=80)
        yield
    finally:
        leave()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_process_that_is_killed_is_replaced_and_its_task_is_played_again(ray_of_ours, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(final_evaluation, "EvaluatorProcess", Player)
    evaluation = Evaluation(tmp_path, "evaluation.num_evaluators=1")
    first, second, third = NAMES

    played, failed = evaluation.result("dies plays", "plays", "plays")
    assert played == set(NAMES) and failed == {}
    one, other = evaluation.tries(first)
    assert one != other and evaluation.tries(second) == evaluation.tries(third) == [other]
    assert f"the process that evaluated {first} died" in caplog.text

    # Killed in each try: the others are played before the second, and it is named.
    played, failed = evaluation.result("dies dies", "plays", "plays")
    assert played == {second, third} and list(failed) == [first]
    assert failed[first].startswith("its process died twice; the last time: ")

    # One process in the place of the one that there was; what is left then has none.
    played, failed = evaluation.result("dies plays", "dies plays", "plays")
    assert played == set() and set(failed) == set(NAMES)
    assert "none was left to evaluate it again" in failed[first] and "none was left" in failed[second]
    assert failed[third] == "no process was left to evaluate it"


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_process_that_is_stopped_is_waited_for_to_the_deadline(ray_of_ours, tmp_path, monkeypatch):
    monkeypatch.setattr(final_evaluation, "EvaluatorProcess", Player)
    monkeypatch.setattr(final_evaluation, "GRACE_SECONDS", 1.0)
    evaluation = Evaluation(tmp_path, "evaluation.num_evaluators=2", "evaluation.final_minutes=0.75")
    began = time.monotonic()
    played, failed = evaluation.result("stops", "plays", "plays")
    assert 45.0 < time.monotonic() - began < 60.0
    assert played == set(NAMES[1:]) and failed == {NAMES[0]: "it did not end in time"}
    assert len(evaluation.tries(NAMES[0])) == 1


def test_a_video_that_was_not_written_is_said_and_costs_no_scores(tmp_path, caplog):
    evaluation = Evaluation(tmp_path)
    task = evaluation.plan.tasks[NAMES[0]].name
    missing = Round(task, 7, [2.0, 4.0], Foretold(), 0, 1.0, no_video="OSError: No space left on device")
    torn = Path(tmp_path / "torn.mp4")
    torn.write_bytes(b"")
    other = Round(evaluation.plan.tasks[NAMES[1]].name, 7, [1.0], Foretold(), 0, 1.0, video=str(torn))
    with caplog.at_level(logging.WARNING):
        result = final_evaluation.make_result(
            evaluation.plan, Progress(evaluation.plan), 7, [missing, other], evaluation.metrics
        )
    assert result.tasks[task].mean_return == 3.0 and len(result.tasks) == 2
    assert f"{task}: the video was not written, the scores are kept: OSError: No space left" in caplog.text
    assert f"{other.task}: the video is not shown in TensorBoard" in caplog.text
