"""``clowder tasks``: what is configured, what is installed, and its spaces; or the catalogue, suite by suite."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.config import ActorConfig
    from actors.environments.make import TaskListing
    from agent.task import ArraySpec, TaskSpec

FULL_CONTEXT = 1024
"""Tokens of Gato's context."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument(
        "--config-dir", metavar="DIR", action="append", default=[], help="a folder of your own with actors/"
    )
    parser.add_argument("--names", action="store_true", help="names only: no environment is made")
    parser.add_argument(
        "--suite", action="append", default=[], help="list a suite of the catalogue, or all; may be repeated"
    )
    parser.add_argument("--task", action="append", default=[], help="list a task of the catalogue; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows of --suite and --task there")


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each actor config, or for each task of a suite."""
    from distributed.errors import ClowderError

    if arguments.suite or arguments.task:
        return _list_catalogue(arguments)
    if arguments.json:
        raise ClowderError("--json needs --suite or --task; clowder tasks --suite all --json FILE has the catalogue")
    from actors.catalogue import SUITES
    from actors.demonstrations.open_set import shipped_sets
    from actors.environments.make import list_tasks
    from actors.experts.make import EXPERTS
    from distributed.compose import actor_configs

    configs = actor_configs(arguments.config_dir)
    listings = list_tasks(configs, spaces=not arguments.names)
    widths = [max(len(text) for text in column) for column in zip(*((each.name, each.task) for each in listings))]
    for each in listings:
        line = f"{each.name:<{widths[0]}}  {each.task:<{widths[1]}}  {describe(each)}"
        demonstrations = configs[each.name].demonstrations
        print(line.rstrip() + (f"; demonstrations: {demonstrations}" if demonstrations else ""))
    print(f"\nshipped demonstration sets: {', '.join(shipped_sets()) or 'none'}")
    print(f"experts: {', '.join(EXPERTS)}")
    print(f"suites of the catalogue: {', '.join(SUITES)} (clowder tasks --suite NAME; actors=suite/NAME)")
    print("actors=[name,...] chooses actor configs for clowder train; one of your own is one YAML file (--config-dir)")
    return 0


def tasks_of(arguments: argparse.Namespace) -> list[str]:
    """Task names that ``--suite`` and ``--task`` choose, each once; everything the libraries have if neither does.

    Domains whose library is installed are asked themselves, so that a new version's tasks are found.
    """
    from actors.environments.failures import LibraryMissing

    if not arguments.suite and not arguments.task:
        return [name for domain in _domains() for name in _of_library(domain)]
    names: list[str] = []
    for suite in arguments.suite:
        from actors.catalogue import suite_tasks

        try:
            names += _of_library(suite) if suite in _domains() else suite_tasks(suite)
        except LibraryMissing:
            names += suite_tasks(suite)
    return list(dict.fromkeys([*names, *arguments.task]))


def _domains() -> list[str]:
    return ["atari", "babyai", "dm_control", "dm_control_pixels", "gymnasium", "metaworld"]


def _of_library(domain: str) -> list[str]:
    from actors.environments.make import task_names

    return task_names(domain)


def describe(listing: TaskListing) -> str:
    """Whether a task is installed, and its spaces: observation -> action."""
    if listing.problem is not None:
        return ("" if listing.installed else "NOT INSTALLED: ") + " ".join(listing.problem.split())
    if listing.spec is None:
        return "installed" if listing.installed else "NOT INSTALLED"
    return describe_spaces(listing.spec)


def describe_spaces(task: TaskSpec) -> str:
    """Observation -> action, in a few words."""
    observation = ", ".join(f"{key} {describe_array(spec)}" for key, spec in task.observation.items())
    return f"{observation or 'nothing'} -> {describe_array(task.action)}"


def describe_array(spec: ArraySpec) -> str:
    """An array in a few words."""
    shape = "x".join(map(str, spec.shape))
    if spec.kind == "discrete":
        return f"{shape + ' ' if shape else ''}of {spec.num_values}"
    if spec.kind == "text":
        return "text"
    return shape if spec.kind == "image" else f"{spec.kind} {shape}".strip()


def _list_catalogue(arguments: argparse.Namespace) -> int:
    from distributed.compose import actor_configs
    from distributed.errors import refusing

    with refusing(""):
        from actors.catalogue import suite_tasks

        names = [name for suite in arguments.suite for name in suite_tasks(suite)]
        rows = catalogue_rows(list(dict.fromkeys([*names, *arguments.task])), actor_configs(arguments.config_dir))
    if arguments.names:
        print("\n".join(f"{row['name']}  {row['task']}" for row in rows))
    else:
        _print_rows(rows)
    if arguments.json:
        from actors.demonstrations.whole_files import write_json

        write_json(arguments.json, rows)
        print(f"{arguments.json}: {len(rows)} tasks")
    return 0


def catalogue_rows(names: list[str], configs: dict[str, ActorConfig]) -> list[dict[str, Any]]:
    """One row a task, plain data; no environment is made.

    ``tokens`` are those of a timestep with the longest text of a few resets, ``steps`` how many timesteps fit 1,024 of
    them. Raises UnknownTask.
    """
    from actors.catalogue import actor_config, human_score, short_name
    from actors.environments.failures import UnknownTask
    from actors.reference import references
    from distributed.suites import hand_written

    by_task = hand_written({name: vars(config) for name, config in configs.items()})
    rows = []
    count = token_counter()
    for task_name in names:
        if task_name not in references():
            raise UnknownTask(task_name, references())
        reference = references()[task_name]
        name = by_task.get(task_name, short_name(task_name))
        config = configs[name] if name in configs else actor_config(task_name)
        per_element, fused = count(reference.task, reference.texts)
        random, expert = reference.random, reference.expert
        rows.append(
            {
                "name": name,
                "task": task_name,
                "spaces": describe_spaces(reference.task),
                "max_episode_steps": reference.task.max_episode_steps,
                "tokens": {"per_element": per_element, "fused": fused},
                "steps": {"per_element": FULL_CONTEXT // per_element, "fused": FULL_CONTEXT // fused},
                "random": None if random is None else vars(random),
                "expert": config.expert,
                "expert_score": None if expert is None else vars(expert),
                "human": human_score(task_name),
                "normalised": {"0": config.random_return, "1": config.reference_return},
                "versions": reference.versions,
            }
        )
    return rows


def token_counter() -> Any:
    """A function of (task, texts) to the tokens of a timestep: per element, and fused with the default settings."""
    from agent.config import AgentConfig
    from agent.embedding import FusedEmbedding, PerElementEmbedding
    from agent.tokenizer import TextTokenizer

    config, tokenizer = AgentConfig(), TextTokenizer.default()
    fused, per_element = FusedEmbedding(config), PerElementEmbedding(config)

    def count(task: TaskSpec, texts: dict[str, str]) -> tuple[int, int]:
        separator_and_action = 1 + task.action_tokens
        longest = sum(spec.max_bytes for spec in task.observation.values() if spec.kind == "text")
        said = sum(max(1, len(tokenizer.encode(text))) for text in texts.values())
        return (
            per_element.positions(task) - longest + said + separator_and_action,
            fused.positions(task) + separator_and_action,
        )

    return count


def _print_rows(rows: list[dict[str, Any]]) -> None:
    head = ("name", "task", "spaces", "tokens", "fused", "steps", "fused", "random", "n", "expert", "score", "human")
    lines = [head]
    for row in rows:
        random, score = row["random"], row["expert_score"]
        error = "" if random is None or random["standard_error"] is None else f" +- {random['standard_error']:.2g}"
        lines.append(
            (
                row["name"],
                row["task"],
                row["spaces"],
                str(row["tokens"]["per_element"]),
                str(row["tokens"]["fused"]),
                str(row["steps"]["per_element"]),
                str(row["steps"]["fused"]),
                "-" if random is None else f"{random['mean']:.4g}{error}",
                "-" if random is None else str(random["episodes"]),
                row["expert"] or "-",
                "-" if score is None else f"{score['value']:.4g}",
                "-" if row["human"] is None else f"{row['human']:g}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())
    print(
        f"\n{len(rows)} tasks. tokens: of one timestep, per element (Gato) and fused; steps: that fit {FULL_CONTEXT:,}."
    )
