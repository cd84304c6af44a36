"""Composition of the configuration: what is merged, and that every mistake is one line that names the key."""

import dataclasses

import pytest

from distributed.amend import RESUMABLE, amend, check_entry_points, check_network
from distributed.compose import SHIPPED, actor_configs, compose, known_keys, options, typed
from distributed.config import to_dict
from distributed.errors import ClowderError, ConfigError
from distributed.preflight import check_shares

ACTOR = """
mine:
  task: gymnasium/CartPole-v1
  num_actors: 2
  arguments: {max_steps: 50}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "actors").mkdir()
    (tmp_path / "experiment").mkdir()
    (tmp_path / "actors" / "mine.yaml").write_text(ACTOR)
    return tmp_path


def test_actor_configs_are_merged_by_name_with_overrides(folder):
    words = ["actors=[cartpole_v1]", "actors.cartpole_v1.envs_per_actor=3", "model=small", "seed=7", "learner.steps=9"]
    config = compose(words)
    assert list(config.actors) == ["cartpole_v1"]
    assert config.actors["cartpole_v1"].envs_per_actor == 3
    assert (config.seed, config.last_step, config.agent.width) == (7, 9, 256)
    mine = compose(["actors=[mine]", "+actors.mine.arguments.x=1", "actors.mine.arguments.y=b"], [folder])
    assert mine.actors["mine"].arguments == {"max_steps": 50, "x": 1, "y": "b"}
    assert mine.actors["mine"].num_actors == 2


def test_an_experiment_of_the_users_own_folder(folder):
    (folder / "experiment" / "try.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /actors: [mine]\nstop:\n  wall_minutes: 2\n"
    )
    config = compose(["experiment=try", "stop.environment_steps=10"], [folder])
    assert list(config.actors) == ["mine"]
    assert (config.stop.wall_minutes, config.stop.environment_steps) == (2.0, 10)


@pytest.mark.parametrize("group", ["experiment", "model", "learner", "replay", "cluster"])
def test_every_shipped_option_composes(group):
    for name in options(group):
        actors = [] if group == "experiment" else ["actors=[cartpole_v1]"]
        assert compose([f"{group}={name}", *actors]).actors


def test_every_shipped_actor_config_is_valid():
    configs = actor_configs()
    assert {"cartpole_swingup", "babyai_goto_local", "boxing"} <= set(configs)
    second = {"cartpole_swingup_grid", "cartpole_balance_grid"}  # another form of a task that is there
    together = {name: config for name, config in configs.items() if name not in second}
    assert compose([f"actors=[{','.join(together)}]"]).actors == together
    for name in second:
        assert compose([f"actors=[{name}]"]).actors[name] == configs[name]


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"online_share": 0.0}, True),
        ({"online_share": 0.0, "online_share_end": 0.5}, True),
        ({"online_share": 0.5, "online_share_end": 0.0}, True),
        ({"num_actors": 0}, True),
        ({"num_actors": 0, "demonstrations": "x", "online_share": 1.0}, True),
        ({"num_actors": 0, "demonstrations": "x"}, False),
        ({"demonstrations": "x", "online_share": 0.0, "online_share_end": 1.0}, False),
        ({"online_share": 0.1}, False),
    ],
)
def test_a_task_without_anything_to_learn_from_is_refused_before_a_run(changes, refused):
    config = compose(["actors=[cartpole_v1]"])
    actor = dataclasses.replace(config.actors["cartpole_v1"], **changes)
    config = dataclasses.replace(config, actors={"cartpole_v1": actor})
    if not refused:
        return check_shares(config, "cartpole_v1")
    with pytest.raises(ConfigError, match=r"actors\.cartpole_v1: nothing would be learned from"):
        check_shares(config, "cartpole_v1")


def test_plain_data_round_trip():
    config = compose(["experiment=quickstart"])
    assert typed(to_dict(config)) == config
    assert "actors.boxing.num_actors" in known_keys(config)


def test_an_open_dictionary_is_given_whole_or_by_its_keys(folder):
    for word in ("arguments={action_grid: 5}", "arguments.action_grid=5"):
        arguments = compose(["actors=[mine]", f"actors.mine.{word}"], [folder]).actors["mine"].arguments
        assert arguments == {"max_steps": 50, "action_grid": 5}
    with pytest.raises(ConfigError, match="steps"):
        compose(["actors=[mine]", "learner.steps={many: 5}"], [folder])
    ladder = compose(["actors=[mine]", "actors.mine.ladder={temperature: [0.5, 2], top_p: [1, 0.5]}"], [folder])
    assert ladder.actors["mine"].ladder == {"temperature": [0.5, 2], "top_p": [1, 0.5]}


UNFILTERED = "actors.mine.objectives={own: imitation}"
BAD = [
    (
        ["experiment=cartpole", "learner.loss_normalisation=task"],
        ["learner.loss_normalisation must be row, not task"],
    ),
    (
        ["experiment=cartpole", "actors.cartpole_v1.action_temperature=0"],
        ["actors.cartpole_v1.action_temperature must be above 0"],
    ),
    (["actors=[mine]", "learner.stepz=1"], ["learner.stepz", "steps"]),
    (["actors=[mine]", "learning_rate=1"], ["learner.learning_rate"]),
    (["actors=[mine]", "+learner.foo=1"], ["learner.foo", "no such key"]),
    (["actors=[mine]", "learner.steps=many"], ["learner.steps", "many"]),
    (["actors=[mine]", "learner.steps=-1"], ["learner.steps", "above 0"]),
    (["actors=[mine]", "actors.mine.num_actor=1"], ["actors.mine.num_actor", "num_actors"]),
    (["actors=[mine]", "actors.other.num_actors=1"], ["actors.mine.num_actors"]),
    (["actors=[mine]", "actors.mine.num_actors=-1"], ["actors.mine.num_actors", "at least 0"]),
    (["actors=[mine]", "actors.mine.context_steps=99"], ["context_steps", "replay.window_length"]),
    (["actors=[mine]", "actors.mine.ends_counted=false"], ["actors.mine.ends_counted", "return_horizon"]),
    (["actors=[mine]", "actors.mine.imitation_share=2"], ["actors.mine.imitation_share", "learner.imitation_share"]),
    (["actors=[mine]", "actors.mine.task=cartpole"], ["actors.mine.task", "domain/name"]),
    (["actors=[mine]", "learner.min_replay_size=10001"], ["min_replay_size", "replay.good_capacity (10000)"]),
    (["actors=[mine]", "actors.mine.num_actors=0"], ["nothing could be learned from"]),
    (["actors=[boxng]"], ["actors/boxng.yaml", "did you mean boxing"]),
    (["experiment=quikstart"], ["did you mean quickstart"]),
    (["model=smal"], ["did you mean small"]),
    (["actors=[mine]", "cluster.mode=serail"], ["cluster.mode", "serial", "serail"]),
    (["actors=[mine]", "actors.mine.acting_returns=tilted"], ["actors.mine.acting_returns", "agent.returns=masked"]),
    (["actors=[mine]", "learner.entropy_floor=0.1"], ["learner.entropy_floor", "must be 0 with imitation"]),
    (["actors=[mine]", "actors.mine.entropy_floor=0.1"], ["actors.mine.entropy_floor", "must be 0 with imitation"]),
    (
        ["actors=[mine]", "actors.mine.acting_prompt=best", "learner.prompt_share=0"],
        ["actors.mine.acting_prompt", "learner.prompt_share"],
    ),
    (["actors=[mine]", "actors.mine.ladder={kappa: [0, 20]}"], ["actors.mine", "kappa needs acting_returns=tilted"]),
    (["actors=[mine]", "learner.objective=return_conditioned"], ["return_conditioned", "agent.returns=masked"]),
    (["actors=[mine]", "actors.mine.objectives={online: imitation}"], ["objectives", "demonstrations and own"]),
    (["actors=[mine]", "actors.mine.objectives={own: return_conditioned}"], ["objectives.own", "knows, imitation"]),
    (
        ["actors=[mine]", "learner.objective=return_conditioned", "agent.returns=masked", UNFILTERED],
        ["objectives.own=imitation", "what went wrong too"],
    ),
    (["actors=[mine]", "evaluation.every_steps=5"], ["evaluation.every_steps", "cluster.mode=serial"]),
    (["actors=[mine]", "cluster.serial_steps=0"], ["cluster.serial_steps", "at least 1"]),
    (["actors=[mine]", "replay.window_length=17"], ["replay.window_length", "17"]),
    (["actors=[mine]", "logging.console=loud"], ["logging.console", "lines"]),
    (["actors=[mine]", "agent.width=7"], ["agent.width", "7"]),
    (["actors=[mine]", "evaluation.decoding.discrete=best"], ["evaluation.decoding.discrete", "greedy"]),
    (["actors=[mine]", "stop.learner_steps=99999"], ["stop.learner_steps", "learner.steps"]),
    (["actors=[mine]", "replay.host=nowhere"], ["replay.host", "nowhere"]),
    (["actors=[mine]", "replay.host=0.0.0.0"], ["replay.host=0.0.0.0", "replay.allow_public=true", "iptables"]),
    (["actors=[mine]", "checkpoint.keep=0"], ["checkpoint.keep", "above 0"]),
    (["actors=[mine]", "checkpoint.best=-1"], ["checkpoint.best", "negative"]),
    (["actors=[mine]", "stop.wall_minutes=-1"], ["stop.wall_minutes"]),
    (["actors=[mine]", "seed=1,2"], ["seed=1,2", "takes one"]),
    (["actors=[mine"], ["actors=[mine", "key=value"]),
    (["quickstart"], ["quickstart", "key=value"]),
    (["actors=[mine]", "hydra.run.dir=x"], ["--config-dir"]),
    ([], ["no tasks", "experiment=quickstart"]),
    (["actors=[mine,twin]"], ["both play gymnasium/CartPole-v1"]),
    (["actors=[typo]"], ["actors.typo.num_actor", "num_actors"]),
    (["actors=[wrong]"], ["actors.wrong.envs_per_actor", "lots"]),
    (["actors=[taskless]"], ["actors.taskless.task", "not set"]),
    (["actors=[torn]"], ["torn"]),
]


@pytest.mark.parametrize(("words", "expected"), BAD, ids=[" ".join(words) or "nothing" for words, _ in BAD])
def test_a_mistake_is_one_line_that_names_it(folder, words, expected):
    (folder / "actors" / "twin.yaml").write_text("twin:\n  task: gymnasium/CartPole-v1\n")
    (folder / "actors" / "typo.yaml").write_text("typo:\n  task: gymnasium/CartPole-v1\n  num_actor: 2\n")
    (folder / "actors" / "wrong.yaml").write_text("wrong:\n  task: gymnasium/CartPole-v1\n  envs_per_actor: lots\n")
    (folder / "actors" / "taskless.yaml").write_text("taskless:\n  num_actors: 1\n")
    (folder / "actors" / "torn.yaml").write_text("torn: {task: gymnasium/CartPole-v1\n")
    with pytest.raises(ClowderError) as caught:
        compose(words, [folder])
    for text in expected:
        assert text in str(caught.value)
    assert "full_key" not in str(caught.value)


def test_folders_of_the_user_are_checked(folder, tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        compose(["actors=[mine]"], [tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="none of the subfolders"):
        compose(["actors=[mine]"], [tmp_path / "empty"])
    (folder / "actors" / "boxing.yaml").write_text("boxing:\n  task: atari/boxing\n")
    with pytest.raises(ConfigError, match="give it another"):
        compose(["actors=[mine]"], [folder])


@pytest.mark.parametrize("text", ["other:\n  task: a/b\n", "- mine\n", "mine: 3\n", "mine: {task: a/b\n"])
def test_the_form_of_an_actor_config_is_checked(folder, text):
    (folder / "actors" / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        actor_configs([folder])


def test_a_resumed_run_may_change_stops_cluster_counts_and_logging():
    config = compose(["experiment=quickstart"])
    words = [
        "stop.learner_steps=77",
        "cluster=serial",
        "cluster.stop_deadline_seconds=9",
        "actors.boxing.num_actors=2",
        "actors.boxing.envs_per_actor=4",
        "logging.console=off",
    ]
    changed, keys = amend(config, words, RESUMABLE, "when a run is resumed")
    assert changed.last_step == 77
    assert (changed.cluster.mode, changed.cluster.stop_deadline_seconds) == ("serial", 9.0)
    assert (changed.actors["boxing"].num_actors, changed.actors["boxing"].envs_per_actor) == (2, 4)
    assert "actors.boxing.num_actors=2" in keys and config.actors["boxing"].num_actors == 1


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("learner.learning_rate=1", "learner.learning_rate cannot be changed when a run is resumed"),
        ("experiment=quickstart", "experiment cannot be changed"),
        ("model=small", "model cannot be changed"),
        ("seed=3", "seed cannot be changed"),
        ("actors.boxing.task=atari/pong", "actors.boxing.task cannot be changed"),
        ("stop.learner_step=3", "learner_steps"),
        ("stop.learner_steps=soon", "stop.learner_steps"),
        ("cluster=mars", "cluster/mars.yaml"),
        ("~stop.learner_steps", "no such key"),
    ],
)
def test_a_resumed_run_refuses_other_keys_by_name(word, expected):
    with pytest.raises(ConfigError) as caught:
        amend(compose(["experiment=quickstart"]), [word], RESUMABLE, "when a run is resumed")
    assert expected in str(caught.value)


def test_code_named_only_by_a_run_folder_is_refused(folder, tmp_path):
    (folder / "actors" / "coded.yaml").write_text("coded:\n  task: gymnasium/Mine\n  entry_point: my_module:make\n")
    config = compose(["actors=[coded]"], [folder])
    check_entry_points(config, tmp_path, [folder])
    with pytest.raises(ConfigError, match="my_module:make"):
        check_entry_points(config, tmp_path, [])
    config.actors["coded"].entry_point = "os:system"
    with pytest.raises(ConfigError, match="os:system"):
        check_entry_points(config, tmp_path, [folder])
    config = compose(["experiment=quickstart"])
    check_entry_points(config, tmp_path, [])
    config.actors["boxing"].task = "gymnasium/some_module:Some-v0"
    with pytest.raises(ConfigError, match="some_module:Some-v0"):
        check_entry_points(config, tmp_path, [])


def test_a_run_folder_cannot_join_a_cluster_nor_open_replay_by_itself(folder, tmp_path):
    words = {
        "cluster.address=10.0.0.1:6379": "to join that Ray cluster",
        "replay.allow_public=true": "to open the replay",
    }
    for word, what in words.items():
        config = compose(["actors=[mine]", "replay.host=10.0.0.2", "replay.allow_public=true", *words], [folder])
        others = [each for each in words if each != word]
        with pytest.raises(ConfigError, match=f"asks {what}.*say so in this command: {word}"):
            check_network(config, tmp_path, others)
    check_network(config, tmp_path, list(words))
    check_network(compose(["actors=[mine]", "cluster=auto"], [folder]), tmp_path, [])
    resumed, changed = amend(config, ["replay.host=127.0.0.1", "replay.allow_public=false"], RESUMABLE, "")
    assert resumed.replay.host == "127.0.0.1" and len(changed) == 2


def test_shipped_folder_is_the_package():
    assert (SHIPPED / "config.yaml").is_file()
