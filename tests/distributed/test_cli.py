"""The command line: quick help, one clear line for what is refused, and the commands that need no training."""

import contextlib
import json
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from distributed.cli import COMMANDS, main
from distributed.compose import compose
from distributed.config import to_dict
from distributed.run_folder import RunFolder

HEAVY = ("torch", "ray", "reverb", "tensorflow", "numpy", "hydra", "gymnasium", "rich", "psutil")


def run_cli(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "distributed.cli", *words], capture_output=True, text=True, timeout=100
    )


def refused(capsys, *words: str) -> str:
    """The one line on stderr of a command that must be refused."""
    assert main(words) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_imports_nothing_heavy(words):
    code = textwrap.dedent(f"""
        import sys
        from distributed.cli import main
        try:
            main({words!r})
        except SystemExit as end:
            assert end.code == 0
        print(sorted(set({HEAVY!r}) & set(sys.modules)))
    """)
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
    assert "usage:" in done.stdout
    assert time.monotonic() - began < 10  # 0.2 s where nothing else runs


def test_unknown_commands_and_flags(capsys):
    assert "did you mean train" in refused(capsys, "trian")
    with pytest.raises(SystemExit) as end:
        main(["train", "--sed", "3"])
    assert end.value.code == 2
    assert capsys.readouterr().err.strip() == "clowder train: unrecognized arguments: --sed; see clowder train --help"


def test_commands_of_higher_floors_come_from_entry_points(tmp_path, monkeypatch, capsys):
    (tmp_path / "upstairs_command.py").write_text(
        '"""study what scales"""\n'
        "def add_arguments(parser): parser.add_argument('--size', type=int)\n"
        "def run(arguments): print('size', arguments.size); return 0\n"
    )
    folder = tmp_path / "upstairs-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: upstairs\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[clowder.commands]\nstudy = upstairs_command\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["study", "--size", "4"]) == 0
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "size 4" in printed and "study" in printed


@pytest.fixture
def own(tmp_path):
    (tmp_path / "actors").mkdir()

    def write(name: str, text: str) -> None:
        (tmp_path / "actors" / f"{name}.yaml").write_text(f"{name}:\n" + textwrap.indent(textwrap.dedent(text), "  "))

    write("wrong_id", "task: gymnasium/CartPol-v1")
    write("wrong_domain", "task: atarii/pong")
    write("wrong_set", "task: gymnasium/CartPole-v1\ndemonstrations: no_such_set")
    write("wrong_argument", "task: gymnasium/CartPole-v1\narguments: {no_such_argument: 3}")
    write("unreadable", "task: gymnasium/Unreadable\nentry_point: unreadable_environment:make")
    write("absent", "task: gymnasium/Absent\nentry_point: no_such_module_anywhere:make")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["actors=[cartpole_v1]", "learner.stepz=1"], ["learner.stepz", "steps"]),
        (["actors=[wrong_id]"], ["actors.wrong_id", "CartPole-v1"]),
        (["actors=[wrong_domain]"], ["actors.wrong_domain", "atari"]),
        (["actors=[wrong_set]"], ["actors.wrong_set", "no_such_set", "clowder record"]),
        (["actors=[wrong_argument]"], ["actors.wrong_argument", "no_such_argument"]),
        (["actors=[absent]"], ["actors.absent", "no_such_module_anywhere"]),
        (["actors=[cartpole_v1]", "replay.max_gigabytes=0.001"], ["replay.max_gigabytes", "replay.online_capacity"]),
        (["actors=[cartpole_v1]", "model=base"], ["cluster.object_store_megabytes=", "four copies"]),
        (["actors=[cartpole_v1]", "learner.tokens_per_row=4"], ["actors.cartpole_v1", "learner.tokens_per_row"]),
        (["actors=[boxing]", "actors.boxing.demonstrations=babyai-goto-local"], ["actors.boxing", "babyai/GoToLocal"]),
        (["actors=[cartpole_v1]", "--name", "a/b"], ["a/b"]),
        (["--resume", "no_such_run"], ["no_such_run"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_train_refuses_before_anything_starts(own, capsys, tmp_path, words, expected):
    line = refused(capsys, "train", *words, "--config-dir", str(own), f"logging.folder={tmp_path}/runs"
                   if "--resume" not in words else "logging.every_seconds=1")  # fmt: skip
    for text in expected:
        assert text in line
    assert not (tmp_path / "runs").exists()


def test_a_space_that_cannot_be_tokenised_is_refused(own, capsys, monkeypatch):
    (own / "unreadable_environment.py").write_text(
        textwrap.dedent("""
        import gymnasium
        class Unreadable(gymnasium.Env):
            observation_space = gymnasium.spaces.Graph(gymnasium.spaces.Discrete(2), None)
            action_space = gymnasium.spaces.Discrete(2)
        def make(**_):
            return Unreadable()
    """)
    )
    monkeypatch.syspath_prepend(str(own))
    line = refused(capsys, "train", "actors=[unreadable]", "--config-dir", str(own), "--dry-run")
    assert "Graph" in line and "gymnasium/Unreadable" in line


def test_a_port_in_use_is_refused(capsys, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = f"replay.port={taken.getsockname()[1]}"
        line = refused(capsys, "train", "actors=[cartpole_v1]", port, f"logging.folder={tmp_path / 'runs'}")
    assert port in line and "replay.port=0" in line
    assert not (tmp_path / "runs").exists()


def test_dry_run_tells_what_a_run_takes_and_makes_nothing(capsys, tmp_path):
    words = ["train", "actors=[cartpole_v1]", "stop.wall_minutes=3", f"logging.folder={tmp_path / 'runs'}", "--dry-run"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    for text in ("environment actor", "replay server", "online/gymnasium/CartPole-v1", "parameters", "3 minutes", "MB"):
        assert text in printed
    assert not (tmp_path / "runs").exists()


def test_a_run_folder_that_exists_and_what_resume_may_not_change(capsys, tmp_path):
    config = compose(["actors=[cartpole_v1]"])
    made = RunFolder.create(tmp_path / "runs" / "mine", to_dict(config), [])
    folder = f"logging.folder={tmp_path / 'runs'}"
    assert "--resume" in refused(capsys, "train", "actors=[cartpole_v1]", folder, "--name", "mine")
    resume = ["train", "--resume", str(made.path)]
    assert "learner.learning_rate cannot be changed" in refused(capsys, *resume, "learner.learning_rate=1")
    assert "--seed cannot be changed" in refused(capsys, *resume, "--seed", "3")
    with made.claim():
        assert "in use by process" in refused(capsys, *resume)
    assert main(["status", str(made.path)]) == 0
    assert "not started" in capsys.readouterr().out
    assert "not running" in refused(capsys, "stop", str(made.path))
    assert "no whole checkpoint" in refused(capsys, "evaluate", str(made.path))
    assert "mp4" in refused(capsys, "play", str(made.path), "--task", "cartpole_v1", "--video", "a.avi")


def test_tasks_lists_names_and_spaces(own, capsys):
    for name in ("absent", "unreadable", "wrong_argument", "wrong_set"):
        (own / "actors" / f"{name}.yaml").unlink()
    assert main(["tasks", "--config-dir", str(own), "--names"]) == 0
    assert "dm_control/cartpole-swingup" in capsys.readouterr().out


def test_record_refuses(capsys, tmp_path):
    record = ["record", "cartpole_v1", "--episodes", "1", "--out", str(tmp_path / "set")]
    assert "--expert" in refused(capsys, *record)
    assert "did you mean cartpole-mpc" in refused(capsys, *record, "--expert", "cartpole-mpk")
    assert "did you mean boxing" in refused(capsys, "record", "boxng", *record[2:])


def test_exit_codes_of_the_real_command():
    done = run_cli("train", "experiment=quikstart")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("clowder train: ") and done.stderr.count("\n") == 1
    assert json.loads(json.dumps(done.stderr)).count("quickstart") >= 1


def test_a_disk_without_room_is_one_line(small_disk, capsys):
    with (small_disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert main(["train", "actors=[cartpole_v1]", f"logging.folder={small_disk}", "--name", "full"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "No space left on device" in said
