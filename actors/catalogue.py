"""The catalogue: every task of the domains, the suites that name them, and an actor config for each.

Nothing here is written by hand a task: names, spaces and returns come from the table that `actors.reference` measures
from the libraries (`clowder reference`), so that listing and composing need no environment library. Configs in
``configs/actors/`` win for the tasks that they describe.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable

from actors.config import ActorConfig
from actors.environments.failures import UnknownTask
from actors.experts.settings import settings_file
from actors.reference import Reference, atari_scores, references

CONTEXT_STEPS = {"babyai": 8}
"""Timesteps that an agent reads, by domain; `OTHER_CONTEXT_STEPS` elsewhere. As in the hand-written configs."""
OTHER_CONTEXT_STEPS = 4
EXPERTS = {"babyai": "babyai-bot", "atari": "atari-planner", "metaworld": "metaworld-scripted"}
"""What ``clowder record`` takes unless told otherwise, by domain. DM Control: see `expert_of`."""
DM_CONTROL_BEST = 1000.0
"""Rewards of the DM Control Suite are in [0, 1] and episodes have 1,000 steps (Tassa et al. 2018)."""

ATARI_HELD_OUT = "boxing"
"""Gato holds it out of its training (Reed et al. 2022, section 5.2)."""
DQN_2015_LACKS = ("berzerk", "defender", "phoenix", "pitfall", "skiing", "solaris", "surround", "yars_revenge")
"""Games of Atari57 that are not among the 49 of Mnih et al. 2015."""
ATARI51_OF_THOSE = ("berzerk", "defender", "phoenix")
"""Gato counts 51 games and prints no list of them that we could read. Known: Boxing is held out, and Defender is
among its results. So our 51 are the 49 games of Mnih et al. 2015 without Boxing, with Defender and the first two others
of Atari57 in the alphabet. The paper's own list may differ in a few games."""
HARD_EXPLORATION = ("freeway", "gravitar", "montezuma_revenge", "pitfall", "private_eye", "solaris", "venture")
"""Sparse rewards, hard exploration: the taxonomy of Bellemare et al. 2016 ("Unifying count-based exploration and
intrinsic motivation"), table 1."""
CLASSIC = re.compile(r"gymnasium/(Acrobot|CartPole|MountainCar|MountainCarContinuous|Pendulum)-v\d+")


def _of(domain: str) -> list[str]:
    return [name for name in references() if name.startswith(f"{domain}/")]


def _games(games: Iterable[str]) -> list[str]:
    return [f"atari/{game}" for game in sorted(games)]


def _atari51() -> list[str]:
    left_out = {ATARI_HELD_OUT, *DQN_2015_LACKS} - {*ATARI51_OF_THOSE}
    return _games(atari_scores().keys() - left_out)


SUITES: dict[str, Callable[[], list[str]]] = {
    "atari": lambda: _of("atari"),
    "atari51": _atari51,
    "atari57": lambda: _games(atari_scores()),
    "atari_hard_exploration": lambda: _games(HARD_EXPLORATION),
    "babyai": lambda: _of("babyai"),
    "dm_control": lambda: _of("dm_control"),
    "dm_control_pixels": lambda: _of("dm_control_pixels"),
    "gymnasium_classic": lambda: [name for name in _of("gymnasium") if CLASSIC.fullmatch(name)],
    "gymnasium_mujoco": lambda: [name for name in _of("gymnasium") if not CLASSIC.fullmatch(name)],
    "metaworld": lambda: _of("metaworld"),
}
"""Task names by suite."""


def suite_tasks(suite: str) -> list[str]:
    """Task names of a suite, or of ``all``; UnknownTask with the nearest names."""
    if suite == "all":
        return list(references())
    if suite not in SUITES:
        raise UnknownTask(suite, [*SUITES, "all"], what="suite")
    return SUITES[suite]()


def short_name(task_name: str) -> str:
    """Name of a task's generated actor config: ``atari_alien``, ``dm_control_cartpole_swingup``; stable for ever."""
    return re.sub(r"[^a-z0-9]+", "_", task_name.lower())


@functools.cache
def generated_names() -> dict[str, str]:
    """Task names by the short name of their generated actor config."""
    return {short_name(task): task for task in references()}


def actor_config(task_name: str) -> ActorConfig:
    """The generated actor config of a task of the catalogue; UnknownTask with the nearest names."""
    table = references()
    if task_name not in table:
        raise UnknownTask(task_name, table)
    reference = table[task_name]
    domain = task_name.partition("/")[0]
    random, best = random_return(reference), reference_return(reference)
    return ActorConfig(
        task=task_name,
        context_steps=CONTEXT_STEPS.get(domain, OTHER_CONTEXT_STEPS),
        random_return=random,
        reference_return=None if best == random else best,
        expert=expert_of(task_name),
    )


def expert_of(task_name: str) -> str | None:
    """Name of the expert that plays a task; None where there is none."""
    domain = task_name.partition("/")[0]
    if domain == "dm_control" and task_name in settings_file("dm_control_mpc"):
        return "dm-control-mpc"
    return EXPERTS.get(domain)


def random_return(reference: Reference) -> float | None:
    """0 of the normalised score: for Atari as published, where it was (so is the human score, its 1); else measured."""
    domain, _, name = reference.task.name.partition("/")
    if domain == "atari" and name in atari_scores():
        return atari_scores()[name][0]
    return None if reference.random is None else reference.random.mean


def reference_return(reference: Reference) -> float | None:
    """1 of the normalised score: a human's for Atari, the best there is for DM Control, else that of an expert's set.

    None where nobody knows it: then there is no normalised score, and no other number stands in for it.
    """
    domain, _, name = reference.task.name.partition("/")
    if domain == "atari" and name in atari_scores():
        return atari_scores()[name][1]
    if domain in ("dm_control", "dm_control_pixels") and reference.task.max_episode_steps == 1000:
        return DM_CONTROL_BEST
    return None if reference.expert is None else reference.expert.value


def human_score(task_name: str) -> float | None:
    """A human tester's score at an Atari game, as published."""
    domain, _, name = task_name.partition("/")
    return atari_scores()[name][1] if domain == "atari" and name in atari_scores() else None
