"""Run folders and demonstration sets of somebody else: they may name code, and it is not even imported."""

import json
import shutil

import pytest

from distributed.cli import main
from distributed.compose import compose
from distributed.config import to_dict
from distributed.run_folder import RunFolder
from replay.sealed_json import read_sealed, seal

NAMING = {
    "entry point": {"task": "gymnasium/Mine", "entry_point": "foreign_code:make"},
    "id": {"task": "gymnasium/foreign_code:Mine-v0"},
    "id in arguments": {"task": "gymnasium/CartPole-v1", "arguments": {"id": "foreign_code:Mine-v0"}},
    "entry point in arguments": {"task": "gymnasium/CartPole-v1", "arguments": {"entry_point": "foreign_code:make"}},
}
"""Actor configs that name a module, in each way there is."""


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A file that is there once the foreign module was imported."""
    (tmp_path / "modules").mkdir()
    code = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
    (tmp_path / "modules" / "foreign_code.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    return tmp_path / "modules" / "ran"


def foreign_run(folder, changes):
    config = to_dict(compose(["actors=[cartpole_v1]"]))
    config["actors"]["cartpole_v1"] |= {"demonstrations": None} | changes
    return RunFolder.create(folder, config, ["clowder"])


def test_a_run_folder_cannot_read_the_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MY_THING", "of mine")
    run = foreign_run(tmp_path / "foreign", {"demonstrations": "${oc.env:MY_THING}"})
    for words in (["evaluate", str(run.path)], ["train", "--resume", str(run.path)]):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "interpolation" in said and "of mine" not in said, said
    assert "of mine" not in run.config.read_text()


@pytest.mark.parametrize("way", NAMING)
def test_a_run_folder_cannot_have_code_imported(way, tmp_path, ran, capsys):
    run = str(foreign_run(tmp_path / "foreign", NAMING[way]).path)
    record = ["record", "cartpole_v1", "--expert", f"run:{run}", "--episodes", "1", "--out", str(tmp_path / "set")]
    commands = {
        "evaluate": ["evaluate", run],
        "play": ["play", run, "--task", "cartpole_v1", "--video", str(tmp_path / "a.mp4")],
        "ask": ["ask", run, "what?"],
        "record": record,
        "resume": ["train", "--resume", run],
        "resume, looked at": ["train", "--resume", run, "--dry-run"],
    }
    if "arguments" in way:  # refused where the environment is made; the others do not come that far
        commands = {name: words for name, words in commands.items() if "resume" in name}
    for words in commands.values():
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "code is taken from your own" in said or "names a module" in said or "beside `arguments`" in said, said
    assert not ran.exists()


@pytest.mark.parametrize("way", NAMING)
def test_a_demonstration_set_cannot_have_code_imported(way, cartpole_set, tmp_path, ran, capsys):
    folder = tmp_path / "set"
    shutil.copytree(cartpole_set, folder)
    manifest = read_sealed(folder / "set.json")
    settings, naming = manifest["settings"], dict(NAMING[way])
    settings["task"]["name"] = naming.pop("task")
    settings |= naming
    (folder / "set.json").write_text(json.dumps(seal(manifest)))  # whoever can write it can seal it
    assert main(["sets", str(folder)]) == 0
    assert main(["sets", str(folder), "--check"]) == 2
    assert main(["train", "actors=[cartpole_v1]", f"actors.cartpole_v1.demonstrations={folder}", "--dry-run"]) == 2
    assert capsys.readouterr().err
    assert not ran.exists()


def test_a_resumed_run_asks_before_it_joins_a_cluster_or_leaves_its_folder(tmp_path, capsys):
    run = foreign_run(tmp_path / "foreign", {})
    config = run.read_config()
    config["cluster"]["address"] = "203.0.113.9:6379"
    run.config.write_text(json.dumps(config))
    assert main(["train", "--resume", str(run.path), "--dry-run"]) == 2
    assert "asks to join that Ray cluster" in capsys.readouterr().err
    (run.path / "train.log").symlink_to(tmp_path / "profile")
    assert main(["train", "--resume", str(run.path), "cluster.address=local", "--dry-run"]) == 2
    assert "train.log is a symbolic link" in capsys.readouterr().err
    (run.path / "train.log").unlink()
    assert main(["train", "--resume", str(run.path), "cluster.address=local", "--dry-run"]) == 0
