"""What a run does about processes that are killed, that stop answering, and that are asked for or sent away."""

import os
import re
import signal
import time

import pytest

from distributed.run_folder import RunFolder
from tests.clowder_process import SMALL, TASK, clowder, descendants, find, lives, output, train, wait_for

QUICK = ["cluster.answer_deadline_seconds=4", "cluster.restarts=9", "checkpoint.every_seconds=2"]


class Watched:
    """One run under way, and what it says of itself."""

    def __init__(self, process, folder):
        self.process, self.folder = process, folder
        wait_for((folder / "runs/shot/status.json").exists, process, folder)
        self.run = RunFolder.open(folder / "runs" / "shot")

    def metrics(self):
        return self.run.read_status()["metrics"]

    def until(self, what, seconds=120):
        return wait_for(what, self.process, self.folder, seconds)

    def learns_on(self):
        """Wait until updates and environment steps have gone on from now."""
        before = self.metrics()
        for name in ("learner_steps", "environment_steps"):
            self.until(lambda name=name: self.metrics()[name] > before[name] + 5)

    def said(self, pattern, seconds=120):
        return self.until(lambda: self.run.log.exists() and re.search(pattern, self.run.log.read_text()), seconds)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_what_does_not_answer_is_replaced_and_the_fleet_can_grow_and_shrink(cartpole_set, tmp_path):
    words = [*SMALL, *QUICK, f"actors.cartpole_v1.demonstrations={cartpole_set}", "learner.steps=1000000"]
    with clowder("train", *words, "--name", "shot", cwd=tmp_path) as process:
        watched = Watched(process, tmp_path)
        watched.until(lambda: watched.metrics().get("environment_steps"))
        for title, name in (
            ("EnvironmentActorProcess", "environment_actor/cartpole_v1-0"),
            ("replay.server_process", "the replay server"),
            ("ParameterStoreProcess", "the parameter store"),
            ("LearnerProcess", "learner/0"),
        ):
            os.kill(find(process, title), signal.SIGSTOP)
            watched.said(f"{name} .*answer")
            watched.said(f"{name} is back")
            watched.learns_on()
        taken = watched.metrics()["environment_steps"]

        with clowder("fleet", "shot", "actors.cartpole_v1.num_actors=3", cwd=tmp_path, log="fleet.txt") as asked:
            assert asked.wait(30) == 0, output(tmp_path, "fleet.txt")
        watched.until(lambda: watched.metrics()["fleet/alive"] == 4)
        with clowder("fleet", "shot", "actors.cartpole_v1.num_actors=1", cwd=tmp_path, log="fleet.txt") as asked:
            assert asked.wait(30) == 0, output(tmp_path, "fleet.txt")
        watched.until(lambda: watched.metrics()["fleet/wanted"] == 2 and watched.metrics()["fleet/alive"] == 2)
        watched.learns_on()
        assert watched.metrics()["environment_steps"] > taken
        with clowder("fleet", "shot", "learner.steps=5", cwd=tmp_path, log="fleet.txt") as asked:
            assert asked.wait(30) == 2
        assert "cannot be changed while a run goes on" in output(tmp_path, "fleet.txt")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_coordinator_that_stood_still_replaces_nothing(cartpole_set, tmp_path):
    words = [*SMALL, *QUICK, f"actors.cartpole_v1.demonstrations={cartpole_set}", "learner.steps=1000000"]
    with clowder("train", *words, "--name", "shot", cwd=tmp_path) as process:
        watched = Watched(process, tmp_path)
        watched.until(lambda: watched.metrics().get("environment_steps"))
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(6)  # longer than cluster.answer_deadline_seconds
        os.kill(process.pid, signal.SIGCONT)
        watched.learns_on()
        assert watched.metrics()["fleet/restarts"] == 0 and "starts again" not in watched.run.log.read_text()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_killed_coordinator_leaves_no_process_and_its_run_can_be_resumed(cartpole_set, tmp_path):
    words = [*SMALL, *QUICK, f"actors.cartpole_v1.demonstrations={cartpole_set}", "learner.steps=1000000"]
    with clowder("train", *words, "--name", "shot", cwd=tmp_path) as process:
        watched = Watched(process, tmp_path)
        watched.until(lambda: watched.metrics().get("environment_steps") and list(watched.run.checkpoints.glob("0*")))
        started = descendants(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        end = time.monotonic() + 60
        while left := [each for each in started if lives(each)]:
            assert time.monotonic() < end, left
            time.sleep(0.2)
    assert watched.run.read_status()["phase"] == "died"
    steps = watched.metrics()["learner_steps"] + 20
    train("--resume", watched.run.path, f"stop.learner_steps={steps:.0f}", cwd=tmp_path)
    assert TASK in output(tmp_path)
    assert watched.run.read_status()["phase"] == "finished"


@pytest.mark.long
@pytest.mark.timeout(300)
def test_an_actor_that_dies_too_often_is_missed_but_not_waited_for(cartpole_set, tmp_path):
    words = [
        *SMALL, "cluster.restarts=0", f"actors.cartpole_v1.demonstrations={cartpole_set}", "learner.steps=1000000",
        "actors.cartpole_v1.num_actors=2",
    ]  # fmt: skip
    with clowder("train", *words, "--name", "shot", cwd=tmp_path) as process:
        watched = Watched(process, tmp_path)
        watched.until(lambda: watched.metrics().get("fleet/alive") == 3)
        os.kill(find(process, "EnvironmentActorProcess"), signal.SIGKILL)
        watched.said("The run goes on without it")
        watched.until(lambda: watched.metrics()["fleet/alive"] == 2 and watched.metrics()["fleet/wanted"] == 3)
        watched.learns_on()
        os.kill(find(process, "EnvironmentActorProcess"), signal.SIGKILL)  # the last one of its task
        assert process.wait(60) == 1
    assert "died 1 times" in output(tmp_path)
