"""The whole loop in one process: replay, actor, learner, evaluation."""

import itertools
import json
import shutil
import time

import numpy as np
import pytest

from actors.config import ActorConfig
from actors.demonstrations.open_set import open_set
from agent.weights import read_weights
from distributed.cli import main
from distributed.compose import compose
from distributed.config import to_dict
from distributed.console import Console
from distributed.coordinator import train
from distributed.metrics import read_rows
from distributed.plan import make_plan
from distributed.run_folder import RunFolder
from distributed.run_replay import replay_scalars
from distributed.serial import SerialRun
from distributed.stop_request import StopRequest
from learner.batch_source import NoData
from learner.checkpoint import latest_checkpoint
from replay.table_info import TableInfo


def config_of(cartpole_set, tmp_path, steps):
    return compose(
        [
            "actors=[cartpole_v1]", f"actors.cartpole_v1.demonstrations={cartpole_set}", "cluster=serial",
            "name=serial", f"logging.folder={tmp_path}", "logging.every_seconds=0.2", "logging.console=off",
            "actors.cartpole_v1.envs_per_actor=4", "agent.width=32", "agent.layers=1", "agent.heads=2",
            "learner.windows_per_batch=8", f"stop.learner_steps={steps}", "cluster.serial_steps=4",
            "evaluation.every_steps=20", "evaluation.episodes=2",
            "evaluation.final_episodes=3", "evaluation.video_steps=20", "learner.good_threshold=-1",
            "actors.cartpole_v1.num_replayers=2", "actors.cartpole_v1.demonstrations_top=3",
        ]
    )  # fmt: skip


def test_the_samples_per_insert_that_were_asked_are_shown_beside_those_that_were_reached():
    tables = {name: TableInfo(name, size=5, inserts=10, samples=25) for name in ("online/a/b", "demonstrations/a/b")}
    values = replay_scalars(tables, 4.0)
    asked = {name: value for name, value in values.items() if "asked" in name}
    assert asked == {"replay/samples_per_insert_asked/online/a/b": 4.0}
    assert values["replay/reuse/online/a/b"] == values["replay/reuse/demonstrations/a/b"] == 2.5
    assert not any("asked" in name for name in replay_scalars(tables, None))


def test_evaluating_by_the_clock_takes_no_more_than_half_of_a_run(cartpole_set, tmp_path):
    """Rounds are asked for every 0.01 s and take much longer."""
    config = config_of(cartpole_set, tmp_path, steps=2000)
    config.evaluation.every_steps, config.evaluation.every_seconds = 0, 0.01
    run = RunFolder.create(tmp_path / "serial", to_dict(config), ["test"])
    with Console(config) as console, StopRequest() as stop:
        serial = SerialRun(make_plan(config), run, console, stop)
        spent, monitor = [], serial._monitor

        def timed():
            began = time.monotonic()
            monitor()
            spent.append((began, time.monotonic()))

        serial._monitor = timed
        try:
            while len(spent) < 5:
                serial.turn()
        finally:
            serial.close()
    for (began, ended), (next_began, _) in itertools.pairwise(spent):
        assert next_began - ended >= 0.9 * (ended - began) > 0.009


def test_a_run_in_one_process_its_play_as_an_expert_and_its_resume(cartpole_set, tmp_path, capsys):
    config = config_of(cartpole_set, tmp_path, steps=40)
    run = RunFolder.create(tmp_path / "serial", to_dict(config), ["test"])
    result = train(config, run, resume=False)
    assert result.learner_steps == 40 and result.environment_steps > 0
    assert result.online_windows_learned > 0  # every episode counts as good here
    assert result.tasks["gymnasium/CartPole-v1"].episodes == 3
    assert (run.videos / "gymnasium-CartPole-v1.mp4").stat().st_size > 0
    values = {name for row in read_rows(run.metrics) for name in row["values"]}
    assert {"learner/loss", "return/gymnasium/CartPole-v1", "lag/versions_mean"} <= values
    inserted = [row["values"].get("replay/inserts/good/gymnasium/CartPole-v1", 0) for row in read_rows(run.metrics)]
    assert max(inserted) > 0
    evaluated = "evaluation/return/gymnasium/CartPole-v1"
    assert [row["learner_steps"] for row in read_rows(run.metrics) if evaluated in row["values"]] == [20, 40]
    assert latest_checkpoint(run.checkpoints).step == 40

    out = tmp_path / "its-play"
    assert main(["record", "cartpole_v1", "--expert", f"run:{run.path}", "--episodes", "3", "--out", str(out)]) == 0
    played = open_set(out, ActorConfig(task="gymnasium/CartPole-v1"))
    assert played.num_episodes == 3 and played.settings.expert == f"run:serial@{result.policy_version}"
    assert "observations" in (out / "README.md").read_text()
    assert main(["evaluate", str(run.path), "--episodes", "2", "--prompt", str(out)]) == 0
    assert f"prompt={out}" in capsys.readouterr().out.replace("\n", "")

    longer = config_of(cartpole_set, tmp_path, steps=50)
    again = train(longer, run, resume=True)
    assert again.learner_steps == 50
    assert again.environment_steps > result.environment_steps
    assert again.wall_seconds > result.wall_seconds
    assert again.policy_version > result.policy_version
    state = json.loads((run.checkpoints / "000000050" / "state.json").read_text())
    (actor,) = state["extra"]["counters"]["actors"]
    assert actor["incarnation"] == 1  # the resumed process is not taken for the one before


def test_a_run_starts_from_the_weights_of_another(cartpole_set, tmp_path, capsys):
    def train_cli(name, *words):
        base = [
            "actors=[cartpole_v1]", f"actors.cartpole_v1.demonstrations={cartpole_set}", "cluster=serial",
            f"logging.folder={tmp_path}", "logging.console=off", "agent.width=32", "agent.layers=1", "agent.heads=2",
            "learner.windows_per_batch=8", "actors.cartpole_v1.num_actors=0", "actors.cartpole_v1.online_share=0",
            "evaluation.every_seconds=0", "evaluation.final_episodes=1", "evaluation.videos=false",
        ]  # fmt: skip
        return main(["train", "--name", name, *base, *words])

    def weights(name):
        return read_weights(latest_checkpoint(tmp_path / name / "checkpoints").folder)

    assert train_cli("first", "stop.learner_steps=5") == 0
    # A model with a critic besides, and next to no learning of its own.
    still = ["learner.learning_rate=1e-12", "agent.value_bins=11", "stop.learner_steps=1"]
    assert train_cli("second", f"start_from={tmp_path / 'first'}", "seed=7", *still) == 0
    before, after = weights("first"), weights("second")
    assert all(np.allclose(after[name], array, atol=1e-6) for name, array in before.items())
    assert any(name.startswith("action_values") for name in after.keys() - before.keys())
    start = RunFolder.open(str(tmp_path / "second")).read_config()["start_from"]
    assert start == str(tmp_path / "first" / "checkpoints" / "000000005")

    capsys.readouterr()
    assert train_cli("third", f"start_from={start}", "agent.width=64") == 2
    assert "give this run the same agent.* and model" in " ".join(capsys.readouterr().err.split())
    assert train_cli("third", f"start_from={tmp_path / 'none'}") == 2
    assert "neither a checkpoint nor a run's folder" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "third").exists()

    shutil.rmtree(tmp_path / "first")  # a run that has a checkpoint of its own needs that no more
    assert main(["train", "--resume", str(tmp_path / "second"), "stop.learner_steps=2"]) == 0
    assert latest_checkpoint(tmp_path / "second" / "checkpoints").step == 2
    shutil.rmtree(tmp_path / "second" / "checkpoints")  # one that has none does
    capsys.readouterr()
    assert main(["train", "--resume", str(tmp_path / "second")]) == 2
    assert "start_from" in capsys.readouterr().err


def test_a_set_of_fewer_windows_than_are_waited_for_is_named(cartpole_set, tmp_path):
    config = config_of(cartpole_set, tmp_path, steps=40)
    config.learner.min_replay_size, config.learner.data_deadline = 5_000, 3.0
    run = RunFolder.create(tmp_path / "waits", to_dict(config), ["test"])
    with pytest.raises(NoData, match=r"demonstrations/gymnasium/CartPole-v1 \(which holds \d+\).*min_replay_size=5000"):
        train(config, run, resume=False)
