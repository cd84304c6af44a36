"""What learns on a GPU: as on a CPU, resumed or not. In a process that sees one; skipped where there is none."""

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.task import TaskSpec
from agent.weights import flat_weights
from tests.agent.tasks import CONTROL, GRID
from tests.agent.test_attention import check_flexible
from tests.learner.test_learner import make_learner, through_and_resumed

TASKS: tuple[TaskSpec, ...] = tuple(
    dataclasses.replace(task, value_range=(-10.0, 10.0), return_range=(-10.0, 10.0)) for task in (CONTROL, GRID)
)
OBJECTIVES: dict[str, dict[str, object]] = {
    "imitation": {},
    "return_conditioned": {"returns": "masked"},
    "advantage_filtered": {"value_bins": 51},
}


def losses(objective: str, device: str, **changes: object) -> list[float]:
    """Loss and norm of the gradient of each of three updates."""
    settings = {"objective": objective, "device": device, "autocast": "off"} | changes
    learner, found = make_learner(TASKS, agent=OBJECTIVES[objective], **settings), []
    for _ in range(3):
        learner.step()
        metrics = learner.metrics()
        found += [metrics["loss"], metrics["gradient_norm"]]
    assert learner.agent.device.type == device
    return found


def check_all(device: str) -> None:
    """Every objective on ``device`` beside the CPU; prints how many agreed."""
    agreed = 0
    for objective in OBJECTIVES:
        expected = losses(objective, "cpu")
        np.testing.assert_allclose(losses(objective, device), expected, rtol=1e-3, atol=1e-4, err_msg=objective)
        rounded = losses(objective, device, autocast="on")
        np.testing.assert_allclose(rounded, expected, rtol=0.1, atol=0.05, err_msg=f"{objective} in bf16")
        agreed += 1
    print(agreed)


def check_resume(device: str) -> None:
    """What a learner on ``device`` that was stopped and resumed has learned beside one that was not.

    A GPU adds in no fixed order, and AdamW makes a whole step of the least gradient: so the mean over weights counts.
    """
    for objective, agent in OBJECTIVES.items():
        settings = {"tasks": TASKS, "agent": agent, "objective": objective, "device": device, "autocast": "off"}
        with tempfile.TemporaryDirectory() as folder:
            through, resumed = through_and_resumed(Path(folder), **settings)
        before = flat_weights(make_learner(TASKS, agent=agent, objective=objective, device="cpu").agent)
        expected, found = flat_weights(through.agent), flat_weights(resumed.agent)
        learned = np.mean([np.abs(expected[name] - before[name]).mean() for name in expected])
        apart = np.mean([np.abs(expected[name] - found[name]).mean() for name in expected])
        assert apart < 0.01 * learned, f"{objective}: {apart} apart, {learned} learned"
        assert {state["exp_avg"].device.type for state in resumed.optimiser.state.values()} == {device}


def test_on_cuda_every_objective_learns_as_on_a_cpu() -> None:
    if shutil.which("nvidia-smi") is None:
        pytest.skip("no GPU here")
    code = "from tests.learner.test_cuda import check_cuda; check_cuda()"
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=110, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    if done.stdout.split()[-1] == "none":
        pytest.skip("PyTorch sees no GPU")
    assert int(done.stdout.split()[-1]) == len(OBJECTIVES)


def check_cuda() -> None:
    """`check_all` and the attention made for CUDA, or the word none."""
    if not torch.cuda.is_available():
        print("none")
        return
    check_flexible()
    check_resume("cuda")
    check_all("cuda")


def test_a_resumed_learner_of_every_objective_goes_on() -> None:
    check_resume("cpu")


def test_an_update_in_bf16_is_nearly_that_in_float32() -> None:
    check_all("cpu")
