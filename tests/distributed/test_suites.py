"""Suites in a run's configuration, ``clowder tasks --suite`` and ``clowder reference``."""

import json

import pytest

from actors.catalogue import actor_config, suite_tasks
from actors.reference import read_table
from distributed.cli import main
from distributed.compose import compose, find_actor
from distributed.errors import ConfigError


@pytest.mark.parametrize(
    ("word", "count", "some"),
    [
        ("actors=suite/gymnasium_classic", 5, {"gymnasium_acrobot_v1", "cartpole_v1"}),
        ("actors=[suite/atari_hard_exploration,boxing]", 8, {"atari_venture", "montezuma_revenge", "boxing"}),
        ("actors=[suite/gymnasium_mujoco,suite/gymnasium_classic]", 16, {"gymnasium_ant_v5"}),
        ("actors=[atari/alien,babyai_goto_local,dm_control/cartpole-swingup]", 3, {"atari_alien", "cartpole_swingup"}),
        ("actors=[metaworld_assembly_v3]", 1, {"metaworld_assembly_v3"}),
    ],
)
def test_what_a_user_names_is_expanded(word, count, some):
    config = compose([word])
    assert len(config.actors) == count and some <= config.actors.keys()


def test_generated_and_hand_written_configs():
    config = compose(["actors=suite/atari_hard_exploration", "actors.atari_venture.envs_per_actor=2"])
    hand_written = compose(["actors=[montezuma_revenge]"]).actors["montezuma_revenge"]
    assert config.actors["montezuma_revenge"] == hand_written
    assert "atari_montezuma_revenge" not in config.actors
    assert config.actors["atari_venture"].envs_per_actor == 2
    assert compose(["actors=[atari_alien]"]).actors["atari_alien"] == actor_config("atari/alien")


def test_configs_and_experiments_of_the_users_own_folder(tmp_path):
    (tmp_path / "actors").mkdir()
    (tmp_path / "experiment").mkdir()
    (tmp_path / "actors" / "my_venture.yaml").write_text("my_venture:\n  task: atari/venture\n  context_steps: 7\n")
    (tmp_path / "experiment" / "hard.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /actors: [suite/atari_hard_exploration, babyai/GoTo]\n"
    )
    config = compose(["experiment=hard"], [tmp_path])
    assert config.actors["my_venture"].context_steps == 7 and "atari_venture" not in config.actors
    assert len(config.actors) == 8 and "babyai_goto" in config.actors


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("actors=suite/atari_51", "there is no such suite; did you mean suite/atari51"),
        ("actors=[suite/babyai,suite/dmcontrol]", "did you mean suite/dm_control"),
        ("actors=[atari/aliens]", "did you mean atari/alien"),
        ("actors=[atari_aliens]", "did you mean atari_alien"),
    ],
)
def test_unknown_ones_are_refused_with_the_nearest(word, message):
    with pytest.raises(ConfigError, match=message):
        compose([word])


def test_a_command_takes_a_task_of_the_catalogue():
    assert find_actor("boxing") == find_actor("atari/boxing")
    assert find_actor("atari/alien") == find_actor("atari_alien") == ("atari_alien", actor_config("atari/alien"))
    assert find_actor("text/babyai-questions")[0] == "babyai_questions"
    with pytest.raises(ConfigError, match="no actor config for atari/aliens; did you mean atari/alien"):
        find_actor("atari/aliens")
    with pytest.raises(ConfigError, match="no actor config for suite/atari51"):
        find_actor("suite/atari51")


def test_tasks_command_lists_a_suite(tmp_path, capsys):
    path = tmp_path / "rows.json"
    assert main(["tasks", "--suite", "atari51", "--suite", "metaworld", "--json", str(path)]) == 0
    rows = {row["task"]: row for row in json.loads(path.read_text())}
    assert len(rows) == 101 == len({*suite_tasks("atari51"), *suite_tasks("metaworld")})
    alien, assembly = rows["atari/alien"], rows["metaworld/assembly-v3"]
    # 4 x 5 patches, a separator, an action; and 39 numbers, a separator, 4 actions (Reed et al. 2022, section 2.1).
    assert alien["tokens"]["per_element"] == 22 and assembly["tokens"]["per_element"] == 44
    assert alien["steps"]["per_element"] == 46 and assembly["steps"]["per_element"] == 23
    assert alien["human"] == 7127.7 and assembly["human"] is None
    assert "image 64x80x3 -> of 18" in alien["spaces"] and alien["name"] == "atari_alien"
    assert "101 tasks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tasks", "--suite", "atari_51"], "did you mean atari51"),
        (["tasks", "--task", "atari/aliens"], "did you mean atari/alien"),
        (["tasks", "--json", "x.json"], "--json needs --suite or --task"),
        (["reference", "--suite", "atari_51"], "did you mean atari51"),
        (["reference", "--episodes", "0"], "--episodes must be at least 1"),
        (["reference", "--set", "cartpole-swing", "--out", "new.json"], "did you mean cartpole-swingup"),
        (["reference", "--set", "boxing", "--out", "new.json"], "measure it with --task atari/boxing"),
    ],
)
def test_refusals_are_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_reference_command_is_resumed_and_rerun(tmp_path, capsys):
    path = tmp_path / "table.json"
    words = ["reference", "--task", "gymnasium/CartPole-v1", "--task", "dm_control/cartpole-swingup"]
    words += ["--episodes", "2", "--seconds", "0", "--out", str(path)]
    assert main(words) == 0
    first = read_table(path)
    assert len(first) == 2 and all(each.random is not None for each in first.values())
    capsys.readouterr()
    one = [*words[:3], "--episodes", "1", "--out", str(path)]
    assert main(one) == 0
    assert capsys.readouterr().out == f"{path}: 2 tasks\n", "what is there is not measured again"
    assert main([*one, "--again"]) == 0
    assert "gymnasium/CartPole-v1: " in capsys.readouterr().out
    assert main(["reference", "--set", "cartpole-swingup", "--out", str(path)]) == 0
    noted = read_table(path)["dm_control/cartpole-swingup"]
    assert noted.expert is not None and noted.expert.expert == "cartpole-mpc"
    assert noted.random == first["dm_control/cartpole-swingup"].random


def test_a_task_that_cannot_be_measured_is_named_and_the_others_go_on(tmp_path, capsys):
    path = tmp_path / "table.json"
    words = ["reference", "--task", "gymnasium/None-v0", "--task", "gymnasium/CartPole-v1", "--episodes", "1"]
    assert main([*words, "--out", str(path)]) == 1
    assert "gymnasium/None-v0: NOT MEASURED" in capsys.readouterr().out and len(read_table(path)) == 1
