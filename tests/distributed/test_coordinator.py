"""Whole runs of `clowder train` in real processes: to the end, resumed, shot at, and interrupted."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from distributed.metrics import read_rows
from distributed.result import Result
from distributed.run_folder import RunFolder
from learner.checkpoint import open_checkpoint
from tests.clowder_process import SMALL, TASK, clowder, descendants, find, output, train, wait_for


def check_documented(names):
    """Every scalar of a run is in docs/metrics.md."""
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    patterns = [re.sub("<[a-z]+>", ".+", name) for name in re.findall(r"`([a-z_]+/[a-z_0-9/<>]+)`", page)]
    missing = [name for name in names if not any(re.fullmatch(pattern, name) for pattern in patterns)]
    assert not missing, missing


@pytest.mark.timeout(400)
def test_a_run_to_its_end_and_resumed_shot_at_and_interrupted(cartpole_set, tmp_path):
    """Killed processes come back; Ctrl-C leaves a checkpoint and no process."""
    words = [
        *SMALL, f"actors.cartpole_v1.demonstrations={cartpole_set}", "learner.steps=1000000",
        "checkpoint.replay=true", "evaluation.every_seconds=2", "evaluation.episodes=1",
        "cluster.nice=0",  # beside other tests on two slow cores, no evaluator was built in time under this learner
    ]  # fmt: skip
    train(*words, "stop.environment_steps=400", "--name", "whole", cwd=tmp_path)
    run = RunFolder.open(tmp_path / "runs" / "whole")
    first = Result.read(run.result)
    assert first.learner_steps > 0 and first.environment_steps >= 400
    assert first.tasks[TASK].episodes == 2 and first.failed == {}
    assert run.curves.stat().st_size > 0 and (run.videos / "gymnasium-CartPole-v1.mp4").stat().st_size > 0
    assert TASK in output(tmp_path)
    assert "start-up, seconds since ray.init" in run.log.read_text()
    values = {name for row in read_rows(run.metrics) for name in row["values"]}
    expected = ("learner/loss", "system/time_to_first_update_s", "fleet/alive", f"replay/size/demonstrations/{TASK}")
    assert set(expected) <= values
    check_documented(values)
    saved = open_checkpoint(run.checkpoints / f"{first.learner_steps:09}")
    assert saved.extra["environment_steps"] == first.environment_steps
    (counted,) = (each["counts"] for each in saved.extra["counters"]["actors"])
    assert counted["windows"] == saved.tables[f"online/{TASK}"]["inserts"] > 0
    assert counted["good_windows"] == saved.tables[f"good/{TASK}"]["inserts"]

    with clowder(
        "train", "--resume", run.path, "stop.environment_steps=0", "checkpoint.every_seconds=1", cwd=tmp_path
    ) as process:

        def metrics():
            return run.read_status()["metrics"]

        def all_alive_again(restarts):
            now = metrics()
            return now.get("fleet/restarts", 0) >= restarts and now["fleet/alive"] == now["fleet/wanted"] >= 2 and now

        wait_for(lambda: run.read_status()["phase"] == "training", process, tmp_path)
        wait_for(lambda: metrics().get("learner_steps", 0) > first.learner_steps, process, tmp_path)
        assert f"replay begins with the contents of {saved.folder}" in run.log.read_text()
        wait_for(lambda: f"evaluation/return/{TASK}" in metrics(), process, tmp_path)
        before = metrics()
        assert before["environment_steps"] >= first.environment_steps
        assert before["learner/version"] > first.policy_version
        rows = read_rows(run.metrics)  # a learner that is killed goes back to its checkpoint
        steps, taken = ([row[name] for row in rows] for name in ("learner_steps", "environment_steps"))
        assert steps == sorted(steps) and taken == sorted(taken)
        os.kill(find(process, "EnvironmentActorProcess"), signal.SIGKILL)
        after = wait_for(lambda: all_alive_again(1), process, tmp_path)
        assert after["environment_steps"] >= before["environment_steps"]

        wait_for(lambda: metrics()["environment_steps"] > after["environment_steps"], process, tmp_path)
        os.kill(find(process, "replay.server_process"), signal.SIGKILL)
        os.kill(find(process, "LearnerProcess"), signal.SIGKILL)
        wait_for(lambda: all_alive_again(3), process, tmp_path)
        learned = metrics()["learner_steps"]
        wait_for(lambda: metrics()["learner_steps"] > learned + 5, process, tmp_path)
        assert metrics()["learner/version"] > before["learner/version"]

        started = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        asked = time.monotonic()
        assert process.wait(30) == 130, output(tmp_path)
        assert time.monotonic() - asked < 15
    assert "--resume" in output(tmp_path)
    contents = run.log.read_text().count("replay begins with the contents of")
    assert contents >= 2  # in the place of the one that was killed too
    status = run.read_status()
    assert status["phase"] == "interrupted"
    assert (run.checkpoints / f"{status['metrics']['learner_steps']:09.0f}" / "MANIFEST.json").exists()
    left = [each for each in started if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert not left, left


BROKEN = """
import gymnasium, numpy as np

class Broken(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    steps = 0

    def reset(self, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.full(2, np.nan if self.steps == 5 else 0.0, np.float32), 0.0, False, False, {}

def make(**settings):
    return Broken()
"""


@pytest.mark.long
@pytest.mark.timeout(240)
def test_an_environment_that_keeps_failing_ends_the_run_with_its_own_words(tmp_path):
    (tmp_path / "mine" / "actors").mkdir(parents=True)
    (tmp_path / "broken_environment.py").write_text(BROKEN)
    (tmp_path / "mine" / "actors" / "broken.yaml").write_text(
        "broken:\n  task: mine/broken\n  entry_point: broken_environment:make\n  envs_per_actor: 2\n"
        "  random_return: 0.0\n  reference_return: 1.0\n"
    )
    words = [*SMALL[2:], "actors=[broken]", "cluster.restarts=0", "--config-dir", tmp_path / "mine", "--name", "broken"]
    with clowder("train", *words, cwd=tmp_path, environment={"PYTHONPATH": str(tmp_path)}) as process:
        assert process.wait(180) == 1, output(tmp_path)
    said = output(tmp_path).strip().splitlines()[-1]
    assert "environment_actor/broken-0 died" in said and "mine/broken" in said and "step 5" in said, said
    assert RunFolder.open(tmp_path / "runs" / "broken").read_status()["phase"] == "failed"


FRAGILE = """
import gymnasium

class Fragile(gymnasium.Wrapper):
    def reset(self, *, seed=None, options=None):
        if seed is not None and 1_000_000 <= seed < 2_000_000:
            raise RuntimeError("no reporting seeds here")
        return self.env.reset(seed=seed, options=options)

def make(**_):
    return Fragile(gymnasium.make("CartPole-v1"))
"""


@pytest.mark.long
@pytest.mark.timeout(300)
def test_an_evaluation_that_fails_leaves_the_results_of_the_others(cartpole_set, tmp_path):
    """An environment that fails on the seeds of the final evaluation: exit code 1, its reason, the other task's row."""
    (tmp_path / "fragile_environment.py").write_text(FRAGILE)
    (tmp_path / "own" / "actors").mkdir(parents=True)
    (tmp_path / "own" / "actors" / "fragile.yaml").write_text(
        "fragile:\n  task: gymnasium/Fragile\n  entry_point: fragile_environment:make\n  online_share: 1.0\n"
        "  random_return: 0.0\n  reference_return: 500.0\n"
    )
    words = [
        *SMALL, "actors=[cartpole_v1,fragile]", f"actors.cartpole_v1.demonstrations={cartpole_set}",
        "stop.learner_steps=10", "evaluation.num_evaluators=1", "--config-dir", tmp_path / "own", "--name", "half",
    ]  # fmt: skip
    with clowder("train", *words, cwd=tmp_path, environment={"PYTHONPATH": str(tmp_path)}) as process:
        assert process.wait(180) == 1, output(tmp_path)
    result = Result.read(RunFolder.open(tmp_path / "runs" / "half").result)
    assert list(result.tasks) == [TASK] and result.tasks[TASK].episodes == 2
    assert "no reporting seeds here" in result.failed["gymnasium/Fragile"]
    assert "the evaluation of gymnasium/Fragile failed" in output(tmp_path)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The address of a Ray cluster of one machine that somebody else started with a token, which is in our environment;
    ended by its own process id."""
    (tmp_path / "token").write_text("5" * 64)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=8"]
    words += ["--include-dashboard=false", "--disable-usage-stats", f"--object-store-memory={80 * 2**20}"]
    with (tmp_path / "ray.txt").open("w") as log:
        ray = subprocess.Popen(
            [Path(sys.executable).parent / "ray", *words], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        end = time.monotonic() + 60
        while "Ray runtime started" not in (tmp_path / "ray.txt").read_text():
            assert ray.poll() is None and time.monotonic() < end, (tmp_path / "ray.txt").read_text()
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        started = descendants(ray.pid)
        ray.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            ray.wait(15)
        for each in [*started, *([psutil.Process(ray.pid)] if ray.poll() is None else [])]:
            with contextlib.suppress(psutil.Error):
                each.kill()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_run_on_a_cluster_that_is_there_already(cartpole_set, cluster, tmp_path, monkeypatch):
    words = [*SMALL, f"actors.cartpole_v1.demonstrations={cartpole_set}", "cluster.address=auto"]
    train(*words, "stop.learner_steps=20", "--name", "joined", cwd=tmp_path, seconds=120)
    result = Result.read(RunFolder.open(tmp_path / "runs" / "joined").result)
    assert result.learner_steps == 20 and result.tasks[TASK].episodes == 2
    with clowder("train", *words[:-1], "cluster.address=127.0.0.1:1", "--name", "absent", cwd=tmp_path) as process:
        assert process.wait(90) == 2
    assert "no Ray cluster answers there" in output(tmp_path)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "another"))
    (tmp_path / "another").write_text("6" * 64)
    with clowder("train", *words, "--name", "refused", cwd=tmp_path) as process:
        assert process.wait(60) == 2, output(tmp_path)
    assert "refuses the token of this process; set RAY_AUTH_MODE=token" in output(tmp_path)
