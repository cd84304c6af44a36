"""From an `ActorConfig` to its environments. Adapters are imported when a task of theirs is asked for."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Mapping

from actors.config import ActorConfig, check_actor_config
from actors.environments.checked import CheckedEnvironment
from actors.environments.failures import EnvironmentFailed, LibraryMissing, UnknownTask
from actors.environments.vector_environment import VectorEnvironment
from agent.task import LEARNER_SETTINGS, TaskSpec


@dataclasses.dataclass(frozen=True)
class Adapter:
    """Where the tasks of a domain come from: our module, the library it needs, and the package with that library."""

    module: str
    library: str
    package: str


ADAPTERS = {
    "atari": Adapter("actors.environments.atari", "ale_py", "ale-py"),
    "babyai": Adapter("actors.environments.babyai", "minigrid", "minigrid"),
    "dm_control": Adapter("actors.environments.dm_control", "dm_control", "dm-control"),
    "dm_control_pixels": Adapter("actors.environments.dm_control_pixels", "dm_control", "dm-control"),
    "metaworld": Adapter("actors.environments.metaworld", "metaworld", "metaworld"),
    "text": Adapter("actors.environments.text", "PIL", "pillow"),
    "gymnasium": Adapter("actors.environments.gymnasium_any", "gymnasium", "gymnasium"),
}
"""By domain, the part of a task name before the slash."""

OF_THE_RUN = (
    "context_steps",
    "return_horizon",
    "ends_counted",
    "random_return",
    "reference_return",
    "return_range",
    "value_range",
    *LEARNER_SETTINGS,
)
"""Fields of `TaskSpec` that no environment knows: the actor config says them."""


def adapter_of(config: ActorConfig) -> Adapter:
    """The adapter of a task; UnknownTask for a domain that there is not."""
    domain = "gymnasium" if config.entry_point else config.task.partition("/")[0]
    if domain not in ADAPTERS:
        raise UnknownTask(domain, ADAPTERS, what=f"domain (of task {config.task!r})")
    return ADAPTERS[domain]


def task_names(domain: str) -> list[str]:
    """Every task that a domain's library has, from the library itself; imports it.

    Raises:
        UnknownTask: no such domain.
        LibraryMissing: with the command that installs the library.
    """
    adapter = adapter_of(ActorConfig(task=f"{domain}/"))
    _check_installed(domain, adapter)
    return list(importlib.import_module(adapter.module).task_names())


def make_environment(config: ActorConfig, num_envs: int) -> CheckedEnvironment:
    """``num_envs`` copies of the task of ``config``, checked at every step.

    Raises:
        UnknownTask: no such domain or task, with the nearest names.
        LibraryMissing: with the command that installs the library.
        SpaceNotSupported: its observations or actions cannot be tokenised.
        ValueError: a setting that cannot work.
    """
    check_actor_config(config, config.task)
    if num_envs < 1:
        raise ValueError(f"{config.task}: num_envs must be at least 1, not {num_envs}")
    adapter = adapter_of(config)
    _check_installed(config.task, adapter)
    clash = sorted({*OF_THE_RUN, "entry_point"} & config.arguments.keys())
    if clash:
        raise ValueError(f"{config.task}: {', '.join(clash)} belongs beside `arguments`, not into it")
    own = {"entry_point": config.entry_point} if config.entry_point else {}
    made: VectorEnvironment = importlib.import_module(adapter.module).make(
        config.task, num_envs, **own, **config.arguments
    )
    asked = {name: getattr(config, name) for name in OF_THE_RUN}
    made.task = dataclasses.replace(made.task, **{name: each for name, each in asked.items() if each is not None})
    return CheckedEnvironment(made)


def _check_installed(what: str, adapter: Adapter) -> None:
    if importlib.util.find_spec(adapter.library) is None:
        raise LibraryMissing(
            f"{what} needs {adapter.package}, which is not installed; "
            f"install it with: pip install -c constraints.txt {adapter.package}"
        )


def task_spec(config: ActorConfig) -> TaskSpec:
    """The task of ``config``, from one environment that is closed again; raises what `make_environment` raises."""
    environment = make_environment(config, num_envs=1)
    environment.close()
    return environment.task


@dataclasses.dataclass(frozen=True)
class TaskListing:
    """One line of ``clowder tasks``.

    Attributes:
        name: short name of the actor config.
        task: task name.
        installed: whether the library of its adapter is there.
        problem: why it cannot be made; None where it can, or where that was not tried.
        spec: its spaces; None where there is a problem, or where they were not asked for.
    """

    name: str
    task: str
    installed: bool
    problem: str | None = None
    spec: TaskSpec | None = None


def list_tasks(configs: Mapping[str, ActorConfig], spaces: bool = True) -> list[TaskListing]:
    """What can be played, by short name. With ``spaces`` each environment is made once (about 0.2 s each)."""
    listings = []
    for name, config in sorted(configs.items()):
        installed = False
        try:
            installed = importlib.util.find_spec(adapter_of(config).library) is not None
            spec = task_spec(config) if spaces else None
            listings.append(TaskListing(name, config.task, installed, spec=spec))
        except (ValueError, TypeError, ImportError, EnvironmentFailed) as error:
            listings.append(TaskListing(name, config.task, installed=installed, problem=str(error)))
    return listings
