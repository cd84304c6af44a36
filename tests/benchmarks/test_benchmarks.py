"""Short runs of the benchmarks' own code, so that the commands in the documents work."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.config import ActorConfig
from actors.explorer.explorer import ExplorerSettings
from agent.agent import Agent
from agent.config import AgentConfig
from agent.policy import Policy
from benchmarks import checkpoints, embeddings, environment_actor, explorer, learner
from benchmarks.actor_parts import make_player
from benchmarks.matmul_rate import DecoderShape, MatmulRate
from benchmarks.plain_decoder import PlainDecoder, PlainUpdate
from distributed.report import anywhere, write_report
from distributed.result import Result, TaskResult
from replay.config import ReplayConfig
from replay.server import start_replay_server

TINY = AgentConfig(width=32, layers=1, heads=2, observation_embedding="per_element")
CARTPOLE = ActorConfig(
    task="gymnasium/CartPole-v1", envs_per_actor=2, context_steps=2, random_return=20.0, reference_return=500.0
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_an_update_of_the_plain_decoder_trains_every_parameter() -> None:
    torch.manual_seed(0)
    model = PlainDecoder(width=32, layers=2, heads=2, hidden=64, vocabulary=50, length=16, ids=10)
    update = PlainUpdate(model, rows=2, length=16, targets=4)
    first = float(update.step())
    assert np.isfinite(first) and abs(first - np.log(10)) < 0.5
    before = [parameter.clone() for parameter in model.parameters()]
    update.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters())), "every parameter is trained"


def test_the_plain_decoder_is_causal() -> None:
    model = PlainDecoder(width=32, layers=2, heads=2, hidden=64, vocabulary=50, length=16, ids=10).eval()
    tokens = torch.randint(50, (1, 16))
    changed = tokens.clone()
    changed[0, 8] = (changed[0, 8] + 1) % 50
    every = torch.arange(16)
    a, b = model(tokens, every), model(changed, every)
    assert torch.allclose(a[:, :8], b[:, :8], atol=1e-5) and not torch.allclose(a[:, 8:], b[:, 8:], atol=1e-5)


def test_checkpoints(tmp_path: Path) -> None:
    figures = checkpoints.measure(TINY, 2, tmp_path)
    assert 0 < figures["pause_ms"] <= figures["longest_pause_ms"] and figures["write_seconds"] > 0
    assert figures["cpu_seconds"] > 0 and figures["megabytes"] > 0.1


def test_both_models_of_the_learner_benchmark_have_the_same_blocks() -> None:
    config = AgentConfig(width=64, layers=3, heads=4, observation_embedding="per_element")
    agent = Agent(config, [learner.benchmark_task(64)])
    plain = PlainDecoder(width=64, layers=3, heads=4, hidden=128, vocabulary=9, length=8, ids=5)
    own = sorted(tuple(parameter.shape) for parameter in agent.transformer.parameters())
    other = [p for module in (plain.blocks, plain.norm) for p in module.parameters()]
    assert own == sorted(tuple(parameter.shape) for parameter in other)


def test_work_of_an_update() -> None:
    shape = DecoderShape(width=8, layers=2, hidden=16, rows=3, length=10, targets=6, ids=5)
    expected = 6 * 1000 * 30 + 6 * 2 * 10 * 8 * 30 + 6 * 8 * 5 * 6
    assert shape.update_flops(1000, segment_length=10) == expected
    assert shape.products == [(30, 8, 24), (30, 8, 8), (30, 8, 32), (30, 16, 8), (6, 8, 5)]
    rate = MatmulRate(shape)
    rate.measure(seconds=0.002)
    assert rate.rate() > 0


@pytest.mark.parametrize("context_steps", [64, 16])
def test_learner_benchmark(context_steps: int) -> None:
    figures = learner.measure(rounds=1, rows=1, context_steps=context_steps, agent_config=TINY, updates=2, stock=False)
    assert figures["targets"] == 64 and figures["tokens_per_row"] == 1024
    for name in ("step_rate_over_plain", "learner_share_of_matmul_rate", "plain_over_learner_cpu_seconds"):
        assert figures[name] > 0
    assert 0 <= figures["data_wait_fraction"] < 1
    json.dumps(figures)


def test_environment_actor_benchmark() -> None:
    config = AgentConfig(width=32, layers=1, heads=2)
    environment, policy = make_player(CARTPOLE, config)
    assert isinstance(policy, Policy)
    replay = ReplayConfig()
    with start_replay_server([environment.task], replay) as server:
        figures = environment_actor.measure_speed(CARTPOLE, config, replay, server.address, rounds=2, seconds=0.1)
        assert figures["actor_over_bare"] > 0 and figures["windows_written"] > 0
        assert sum(figures["actor_time"][part] for part in ("environment", "policy", "writer")) == pytest.approx(1)
        memory = environment_actor.measure_memory(CARTPOLE, config, replay, server.address, steps=10)
    environment.close()
    assert 50 < memory["rss_megabytes"] < 2000 and memory["private_megabytes"] < memory["rss_megabytes"]


def test_a_report_has_its_command_and_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["learner.py", "--threads", "2"])
    write_report("benchmarks.learner", {"figure": 1.5}, tmp_path / "deep" / "learner.json")
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "deep" / "learner.json").read_text())
    assert report["command"] == "python -m benchmarks.learner --threads 2" and report["figure"] == 1.5
    assert report["machine"]["cores"] >= 1 and report["machine"]["torch"]


@pytest.mark.parametrize("module", [environment_actor, learner])
def test_help(module, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(sys, "argv", ["benchmark", "--help"])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 0 and "--rounds" in capsys.readouterr().out


def test_a_task_without_an_actor_config_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", "--task", "atari/nonsense"])
    with pytest.raises(SystemExit):
        environment_actor.main()
    assert "no actor config for atari/nonsense; there are" in capsys.readouterr().err


def finished_run(folder: Path, score: float) -> None:
    """A run folder as the embeddings benchmark reads it: three points and a result of one task."""
    folder.mkdir(parents=True)
    points = [
        {"counts/learner_minutes": minutes, "learner/loss/a/b": value}
        for minutes, value in ((0.1, 0.0), (0.2, 0.2), (0.3, 0.5))
    ]
    (folder / "metrics.jsonl").write_text(
        "".join(
            json.dumps({"learner_steps": 1, "environment_steps": 1, "wall_seconds": 1.0, "values": point}) + "\n"
            for point in points
        )
    )
    task = TaskResult(20, 1.0, (0.9, 1.1), 0.5, score)
    Result(0, 1, "greedy", {"a/b": task}, 10, 20, 30.0, 0).write(folder / "result.json")


def test_embeddings_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for seed, score in enumerate((0.25, 0.75)):
        finished_run(tmp_path / "runs" / f"embeddings-fused-seed{seed}", score)
        finished_run(tmp_path / "runs" / f"embeddings-per_element-seed{seed}", score / 2)
    assert embeddings.curve(tmp_path / "runs" / "embeddings-fused-seed0", "a/b") == {0: pytest.approx(0.1), 0.25: 0.5}
    out = tmp_path / "embeddings.json"
    words = ["embeddings", "--seeds", "0", "1", "--runs", str(tmp_path / "runs"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    embeddings.main()
    report = json.loads(out.read_text())
    assert report["fused"]["mean"] == {"a/b": 0.5} and report["per_element"]["mean"] == {"a/b": 0.25}
    assert "| a/b | 0.25, 0.75; 0.50 | 0.12, 0.38; 0.25 |" in capsys.readouterr().out
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_explorer_spends_its_time_in_the_emulator() -> None:
    figures = explorer.measure(ExplorerSettings("atari/montezuma_revenge"), 400, 4_000)
    assert figures["frames"] >= 4_000 and figures["runs"] > 0
    assert 0.5 < figures["share_in_act"] <= figures["share_in_emulator"] < 1.0


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("/a/machine/runs", "runs"),
        ("runs/here", "runs/here"),
        ("actors.boxing.demonstrations=/a/machine/sets/weak", "actors.boxing.demonstrations=weak"),
        ("paths=[/a/b,/c/d/e]", "paths=[b,e]"),
        ("learner.steps=5", "learner.steps=5"),
    ],
)
def test_a_reports_command_holds_no_path_of_the_machine(word: str, shown: str) -> None:
    assert anywhere(word) == shown
