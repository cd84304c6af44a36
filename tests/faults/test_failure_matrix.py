"""More rows of the failure matrix in whole runs: replayers, evaluators, a server again and again, environments that
hang, a full disk."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from actors.environments.make import task_spec
from distributed.compose import compose
from distributed.stop_request import INTERRUPTED
from learner.checkpoint import latest_checkpoint, whole_checkpoints
from replay.config import ReplayConfig
from replay.sampler import WindowSampler
from tests.clowder_process import SMALL, TASK, clowder, find, output
from tests.faults.test_supervision import QUICK, Watched

ENDLESS = "learner.steps=1000000"


def served_episodes(pid: int, wanted: int, seconds: float) -> set[str]:
    """Ids of demonstrations of Boxing that a replay server hands out, until there are so many of them."""
    (port,) = {each.laddr.port for each in psutil.Process(pid).net_connections("inet") if each.status == "LISTEN"}
    found: set[str] = set()
    task, end = task_spec(compose(["actors=[boxing]"]).actors["boxing"]), time.monotonic() + seconds
    with closing(WindowSampler(f"127.0.0.1:{port}", task, "demonstrations", ReplayConfig())) as sampler:
        while len(found) < wanted and time.monotonic() < end:
            if (window := sampler.get(1.0)) is not None:
                found.add(window.metadata.episode_id)
    return found


@pytest.mark.long
@pytest.mark.timeout(500)
def test_replayers_and_evaluators_that_are_killed_or_stopped_come_back_and_no_demonstration_is_missing(
    tmp_path: Path,
) -> None:
    """Boxing's 30 demonstrations are simulated anew, which takes a replayer some seconds."""
    words = [
        *SMALL[2:], *QUICK, ENDLESS, "actors=[boxing]", "actors.boxing.num_actors=0", "actors.boxing.online_share=0",
        "learner.prompt_share=0", "replay.ends=false", "evaluation.every_seconds=1", "evaluation.episodes=1",
    ]  # fmt: skip
    with clowder("train", *words, "--name", "shot", cwd=tmp_path) as process:
        watched = Watched(process, tmp_path)

        def back(name: str, times: int) -> bool:
            return watched.run.log.read_text().count(f"{name} is back after") == times

        for times, sent in enumerate((signal.SIGKILL, signal.SIGSTOP)):
            os.kill(watched.until(lambda: find(process, "ReplayerProcess")), sent)
            watched.until(lambda times=times: back("replayer/boxing", times + 1))
        watched.until(lambda: find(process, "ReplayerProcess") is None)
        assert len(served_episodes(find(process, "replay.server_process"), 30, 60)) == 30
        for times, sent in enumerate((signal.SIGKILL, signal.SIGSTOP)):
            os.kill(find(process, "EvaluatorProcess"), sent)
            watched.until(lambda times=times: back("evaluator/0", times + 1))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == INTERRUPTED, output(tmp_path)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_replay_server_that_dies_too_often_ends_the_run_and_what_was_learned_stays(
    cartpole_set: Path, tmp_path: Path
) -> None:
    words = [*SMALL, ENDLESS, f"actors.cartpole_v1.demonstrations={cartpole_set}", "cluster.restarts=1"]
    with clowder("train", *words, "checkpoint.every_seconds=600", "--name", "shot", cwd=tmp_path) as process:
        watched = Watched(process, tmp_path)
        watched.until(lambda: watched.metrics().get("learner_steps", 0) > 20)
        os.kill(find(process, "replay.server_process"), signal.SIGKILL)
        watched.said("the replay server is back")
        watched.learns_on()
        learned = watched.metrics()["learner_steps"]
        os.kill(find(process, "replay.server_process"), signal.SIGKILL)
        assert process.wait(60) == 1, output(tmp_path)
    assert "the replay server died 2 times" in output(tmp_path).splitlines()[-1]
    saved = latest_checkpoint(watched.run.checkpoints)
    assert saved is not None and saved.step >= learned
    assert watched.run.read_status()["phase"] == "failed"


HANGING = """
import gymnasium, time

class Hanging(gymnasium.Wrapper):
    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 30:
            time.sleep(1000)
        return self.env.step(action)

def make(**_):
    return Hanging(gymnasium.make("CartPole-v1"))
"""


@pytest.mark.long
@pytest.mark.timeout(300)
def test_an_environment_that_hangs_is_given_up_with_its_process(tmp_path: Path) -> None:
    (tmp_path / "mine" / "actors").mkdir(parents=True)
    (tmp_path / "hanging_environment.py").write_text(HANGING)
    (tmp_path / "mine" / "actors" / "hanging.yaml").write_text(
        "hanging:\n  task: mine/hanging\n  entry_point: hanging_environment:make\n  envs_per_actor: 2\n"
        "  random_return: 20.0\n  reference_return: 500.0\n  online_share: 1.0\n"
    )
    words = [*SMALL[2:], ENDLESS, "actors=[hanging]", "cluster.restarts=1", "cluster.stall_deadline_seconds=9"]
    words += ["--config-dir", tmp_path / "mine", "--name", "shot"]
    with clowder("train", *words, cwd=tmp_path, environment={"PYTHONPATH": str(tmp_path)}) as process:
        watched = Watched(process, tmp_path)
        watched.said(r"environment_actor/hanging-0 died and starts again .*no progress for (9|1\d) s in phase acting")
        watched.said("environment_actor/hanging-0 is back after")
        assert process.wait(120) == 1, output(tmp_path)
    assert "hanging-0 died 2 times" in output(tmp_path).splitlines()[-1]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_fleet_whose_disk_is_full_learns_on_and_what_was_saved_stays(
    cartpole_set: Path, small_disk: Path, tmp_path: Path
) -> None:
    words = [*SMALL, ENDLESS, f"actors.cartpole_v1.demonstrations={cartpole_set}", f"logging.folder={small_disk}"]
    words += ["checkpoint.every_seconds=1", "--name", "shot"]
    with clowder("train", *words, cwd=tmp_path) as process:
        (tmp_path / "runs").symlink_to(small_disk)
        watched = Watched(process, tmp_path)
        watched.until(lambda: whole_checkpoints(watched.run.checkpoints))
        filler = small_disk / "filler"
        # Room for lines of a log, and for no checkpoint.
        filler.write_bytes(bytes(max(0, shutil.disk_usage(small_disk).free - 65_536)))
        watched.said("a checkpoint was not written, and training goes on")
        saved = latest_checkpoint(watched.run.checkpoints)
        assert saved is not None
        filler.unlink()
        watched.learns_on()
        watched.until(lambda: watched.metrics()["learner/checkpoint_failures"] >= 1)
        watched.until(lambda: latest_checkpoint(watched.run.checkpoints).step > saved.step)  # it is tried again
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == INTERRUPTED, output(tmp_path)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_counts_of_a_fleet_whose_actors_are_killed_agree_with_reverbs_own(cartpole_set: Path, tmp_path: Path) -> None:
    words = [*SMALL, *QUICK, ENDLESS, f"actors.cartpole_v1.demonstrations={cartpole_set}", "checkpoint.replay=true"]
    with clowder("train", *words, "--name", "shot", cwd=tmp_path) as process:
        watched = Watched(process, tmp_path)
        watched.until(lambda: watched.metrics().get("environment_steps"))
        for times in (1, 2):
            watched.learns_on()
            os.kill(find(process, "EnvironmentActorProcess"), signal.SIGKILL)
            watched.until(lambda times=times: watched.run.log.read_text().count("cartpole_v1-0 is back") == times)
        watched.learns_on()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == INTERRUPTED, output(tmp_path)
    saved = latest_checkpoint(watched.run.checkpoints)
    assert saved is not None and saved.tables is not None
    actors = saved.extra["counters"]["actors"]
    assert [each["incarnation"] for each in actors] == [2]  # the counts of all three are folded into the newest
    counted = sum(each["counts"]["windows"] for each in actors)
    inserted = saved.tables[f"online/{TASK}"]["inserts"]
    # What a killed one did since its last report is not counted: at most some seconds of it.
    a_second = counted / saved.extra["wall_seconds"]
    assert counted <= inserted <= counted + 2 * 5.0 * a_second
    assert sum(each["counts"]["environment_steps"] for each in actors) == saved.extra["environment_steps"]
    learned = saved.state()["counters"]
    assert sum(learned["windows_learned"].values()) == 8 * saved.step
