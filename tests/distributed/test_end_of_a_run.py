"""What `clowder train` says and leaves at its end, where the disk is full by then."""

import contextlib

import pytest

from distributed import coordinator
from distributed.cli import main
from distributed.result import Result, TaskResult
from distributed.run_folder import RunFolder

RESULT = Result(
    seed=0, policy_version=3, decoding="sampled", learner_steps=5, environment_steps=6, wall_seconds=1.0,
    online_windows_learned=0,
    tasks={"gymnasium/CartPole-v1": TaskResult(2, 33.0, (30.0, 36.0), 0.1, 0.2, returns=[30.0, 36.0])},
)  # fmt: skip


def trained(small_disk, monkeypatch, end):
    """`clowder train` whose training fills the disk while it evaluates, then does ``end``; returns its exit code."""

    def train(config, run, resume, plan):
        run.write_status("evaluating", {"learner_steps": 5.0})
        with (small_disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(2**16))
        return end()

    monkeypatch.setattr(coordinator, "train", train)
    return main(["train", "actors=[cartpole_v1]", f"logging.folder={small_disk}", "--name", "full"])


def test_a_result_that_cannot_be_written_is_shown_and_the_run_has_failed(small_disk, monkeypatch, capsys):
    assert trained(small_disk, monkeypatch, lambda: RESULT) == 1
    run, said = RunFolder.open("full", small_disk), capsys.readouterr()
    line = said.err.strip().splitlines()[-1]
    assert "could not be written" in line and "No space left on device" in line
    assert f"clowder train --resume {run.path}" in line
    assert "33" in said.out and "CartPole" in said.out  # the scores
    status = run.read_status()
    assert status["phase"] == "failed" and status["metrics"] == {"learner_steps": 5.0}
    assert not run.result.exists()


@pytest.mark.parametrize(("error", "code", "phase"), [(KeyboardInterrupt, 130, "interrupted"), (OSError, 1, "failed")])
def test_how_it_ended_is_said_on_a_full_disk(error, code, phase, small_disk, monkeypatch, capsys):
    def end():
        raise error(28, "No space left on device")

    assert trained(small_disk, monkeypatch, end) == code
    assert RunFolder.open("full", small_disk).read_status()["phase"] == phase
    assert "interrupted; go on with" in (said := capsys.readouterr().err) or "No space left on device" in said
