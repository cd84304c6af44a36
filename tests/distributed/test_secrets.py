"""A secret of the user's environment is in nothing that a run leaves, whatever says it."""

import pytest

from actors.environments.failures import EnvironmentFailed
from distributed.cli import main
from distributed.compose import compose
from distributed.errors import ClowderError
from distributed.metrics import MetricsWriter
from distributed.run_folder import RunFolder

SECRET = "correct-horse-battery-staple"
LEAKY = """
import os
import gymnasium

class Leaky(gymnasium.Wrapper):
    def __init__(self):
        super().__init__(gymnasium.make("CartPole-v1"))
        self.steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps > 3:  # no episode ends so early
            raise RuntimeError(f"no answer to a request with {os.environ['MY_SERVICE_TOKEN']}")
        return super().step(action)
"""


def test_an_environment_that_says_a_secret_when_it_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MY_SERVICE_TOKEN", SECRET)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "leaky_environment.py").write_text(LEAKY)
    (tmp_path / "mine" / "actors").mkdir(parents=True)
    (tmp_path / "mine" / "actors" / "leaky.yaml").write_text(
        "leaky:\n  task: mine/leaky\n  entry_point: leaky_environment:Leaky\n  online_share: 1.0\n"
    )
    words = ["--config-dir", str(tmp_path / "mine"), "actors=[leaky]", "cluster=serial", "--name", "leaky"]
    words += [f"logging.folder={tmp_path}/runs", "logging.console=lines"]
    with pytest.raises(EnvironmentFailed, match=SECRET):
        main(["train", *words])
    run = RunFolder.open(tmp_path / "runs" / "leaky")
    assert "no answer to a request with <redacted>" in run.log.read_text()
    run.write_resumed(run.read_config(), ["clowder", "train", f"--token={SECRET}"], [f"a={SECRET}"])
    assert '"--token=<redacted>"' in run.info.read_text()
    written = [path for path in run.path.rglob("*") if path.is_file()]
    assert {"config.yaml", "run.json", "status.json", "train.log"} <= {path.name for path in written}
    assert any(path.name.startswith("events.out") for path in written)
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err and "no answer to a request with <redacted>" in said.out


def test_a_text_in_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_SERVICE_TOKEN", SECRET)
    writer = MetricsWriter(tmp_path, tmp_path / "metrics.jsonl")
    writer.text("config", f"url: http://host/{SECRET}", 0)
    writer.close()
    (events,) = tmp_path.glob("events.out*")
    assert b"http://host/<redacted>" in events.read_bytes() and SECRET.encode() not in events.read_bytes()


@pytest.mark.parametrize(
    "word",
    [
        f"+actors.cartpole_v1.arguments.url=http://host/{SECRET}",
        "+actors.cartpole_v1.arguments.url=${oc.env:MY_SERVICE_TOKEN}",
        "+actors.cartpole_v1.arguments.api_key=a12345",
        f"actors.cartpole_v1.expert={SECRET}",
        "actors.cartpole_v1.demonstrations='https://me:pa55word@host/set'",
    ],
)
def test_a_configuration_with_a_secret_is_refused(word, monkeypatch):
    monkeypatch.setenv("MY_SERVICE_TOKEN", SECRET)
    with pytest.raises(ClowderError, match="looks like a secret") as caught:
        compose(["actors=[cartpole_v1]", word])
    assert SECRET not in str(caught.value)
