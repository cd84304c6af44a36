from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

import configs
from actors.config import ActorConfig, check_actor_config
from actors.environments import make
from actors.environments.failures import LibraryMissing, SpaceNotSupported, UnknownTask

ACTORS = sorted((Path(next(iter(configs.__path__))) / "actors").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield


def read(path: Path) -> ActorConfig:
    data = yaml.safe_load(path.read_text())
    assert list(data) == [path.stem], f"{path}: one top-level key, the name of the file"
    merged = OmegaConf.merge(OmegaConf.structured(ActorConfig), data[path.stem])
    config = OmegaConf.to_object(merged)
    assert isinstance(config, ActorConfig)
    return config


@pytest.mark.parametrize("path", ACTORS, ids=lambda path: path.stem)
def test_every_shipped_config_makes_its_task(path: Path) -> None:
    config = read(path)
    check_actor_config(config, path.stem)
    environment = make.make_environment(config, 2)
    task = environment.task
    assert task.name == config.task and task.context_steps == config.context_steps
    assert task.random_return == config.random_return and task.reference_return == config.reference_return
    observation = environment.reset([0, 1], [3, 4])
    assert observation.keys() == task.observation.keys()
    for _ in range(2):
        step = environment.step(np.zeros((2, *task.action.shape), task.action.dtype))
        assert np.isfinite(step.reward).all() and step.done.all() == task.says_text
        if task.says_text:  # an episode is one step
            environment.reset([0, 1], [5, 6])
    environment.close()


def test_what_belongs_to_the_run_goes_into_the_task() -> None:
    config = ActorConfig(
        task="gymnasium/CartPole-v1", context_steps=3, return_horizon=7, random_return=22.0, return_range=[0, 500]
    )
    task = make.task_spec(config)
    assert (task.context_steps, task.return_horizon, task.random_return) == (3, 7, 22.0)
    assert task.return_range == (0.0, 500.0) and np.isnan(task.reference_return)


def test_shipped_configs_are_of_domains_that_exist() -> None:
    assert len(ACTORS) >= 12
    assert {read(path).task.partition("/")[0] for path in ACTORS} <= set(make.ADAPTERS)


@pytest.mark.parametrize(("domain", "least"), [("atari", 100), ("babyai", 90), ("dm_control", 51), ("gymnasium", 16)])
def test_task_names_come_from_the_library(domain: str, least: int) -> None:
    names = make.task_names(domain)
    assert len(names) >= least and all(name.startswith(f"{domain}/") for name in names)


def test_task_names_of_an_unknown_domain() -> None:
    with pytest.raises(UnknownTask, match="did you mean atari"):
        make.task_names("attari")


@pytest.mark.parametrize(
    ("config", "kind", "message"),
    [
        (ActorConfig(task="atarii/boxing"), UnknownTask, "did you mean atari?"),
        (ActorConfig(task="babyai/GoToLokal"), UnknownTask, "did you mean babyai/GoToLocal"),
        (ActorConfig(task="dm_control/cartpole-swing"), ValueError, "dm_control/cartpole-swingup"),
        (ActorConfig(task="atari/boxin"), ValueError, "atari/boxing"),
        (ActorConfig(task="gymnasium/Cartpole-v1"), UnknownTask, "gymnasium/CartPole-v1"),
        (ActorConfig(task="boxing"), ValueError, "domain/name"),
        (ActorConfig(task="a/b", entry_point="os.system"), ValueError, "module:function"),
        (ActorConfig(task="babyai/GoToLocal", arguments={"context_steps": 4}), ValueError, "beside `arguments`"),
        (ActorConfig(task="babyai/GoToLocal", online_share=1.5), ValueError, "online_share must be between 0 and 1"),
        (ActorConfig(task="babyai/GoToLocal", context_steps=0), ValueError, "context_steps must be at least 1"),
        (ActorConfig(task="babyai/GoToLocal", weight=0.0), ValueError, "weight must be a positive number"),
        (ActorConfig(task="babyai/GoToLocal", return_range=[1.0, 0.0]), ValueError, "return_range must be two finite"),
        (ActorConfig(task="babyai/GoToLocal", return_range=[1.0]), ValueError, "return_range must be two finite"),
        (ActorConfig(task="t/spaces", entry_point="unsupported:make"), SpaceNotSupported, "not bounded"),
    ],
)
def test_refusals_name_the_fix(
    config: ActorConfig, kind: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unsupported.py").write_text(
        "import numpy as np\nfrom gymnasium import spaces\nfrom misbehaving import Spaces\n"
        "def make():\n    return Spaces(spaces.Discrete(3), spaces.Box(-np.inf, np.inf, (2,)))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(kind, match=message):
        make.make_environment(config, 1)


def test_a_missing_library_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = make.Adapter("actors.environments.absent", "library_that_is_not_there", "the-package")
    monkeypatch.setitem(make.ADAPTERS, "absent", adapter)
    config = ActorConfig(task="absent/task")
    with pytest.raises(LibraryMissing, match=r"pip install -c constraints\.txt the-package"):
        make.make_environment(config, 1)
    (listing,) = make.list_tasks({"absent": config})
    assert not listing.installed and listing.problem is not None and listing.spec is None


def test_listing() -> None:
    listings = make.list_tasks(
        {
            "cartpole": ActorConfig(task="gymnasium/CartPole-v1"),
            "broken": ActorConfig(task="gymnasium/CartPole-v9"),
            "mine": ActorConfig(task="mine/counting", entry_point="misbehaving:counting"),
            "nowhere": ActorConfig(task="nowhere/x"),
        }
    )
    by_name = {listing.name: listing for listing in listings}
    assert [listing.name for listing in listings] == ["broken", "cartpole", "mine", "nowhere"]
    assert by_name["cartpole"].installed and by_name["cartpole"].problem is None
    assert by_name["cartpole"].spec is not None and by_name["cartpole"].spec.action.num_values == 2
    assert by_name["broken"].installed and "CartPole-v1" in str(by_name["broken"].problem)
    assert by_name["mine"].spec is not None and set(by_name["mine"].spec.observation) == {"state", "count", "goal"}
    assert not by_name["nowhere"].installed and "unknown domain" in str(by_name["nowhere"].problem)
    (quick,) = make.list_tasks({"cartpole": ActorConfig(task="gymnasium/CartPole-v1")}, spaces=False)
    assert quick.installed and quick.spec is None


def test_nothing_heavy_is_imported_before_a_task_is_asked_for() -> None:
    code = (
        "import sys; import actors.environments.make; "
        "print([name for name in ('gymnasium', 'ale_py', 'dm_control', 'minigrid', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
