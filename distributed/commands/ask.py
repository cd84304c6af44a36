"""``clowder ask``: have a run's agent answer a question on a picture, or say what it shows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed.commands.run_arguments import add_run

if TYPE_CHECKING:
    import numpy as np

    from agent.agent import Agent
    from agent.task import ArraySpec, TaskSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    add_run(parser)
    parser.add_argument("question", nargs="?", help="leave it out for a caption, or for a passage of a document")
    parser.add_argument("--image", type=Path, metavar="FILE", help="a PNG or JPEG; it is scaled to the task's size")
    parser.add_argument("--task", help="task name or short name, where several of the run would fit")
    parser.add_argument("--sample", action="store_true", help="sample the answer rather than take the likeliest tokens")
    parser.add_argument("--temperature", type=float, default=1.0, help="of --sample (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of --sample (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Print what the agent says."""
    import numpy as np
    import torch

    from agent.config import DecodingConfig
    from agent.task import text_of
    from agent.text_policy import TextPolicy
    from distributed.errors import ClowderError, refusing
    from distributed.trained_run import TrainedRun
    from distributed.versions import check_packages

    check_packages()
    torch.set_num_threads(1)
    trained = TrainedRun.load(arguments.run, [], arguments.config_dir, arguments.checkpoint)
    if arguments.question is not None and not arguments.question.strip():
        raise ClowderError("the question is empty; leave it out for a caption")
    only = None if arguments.task is None else trained.config.actors[trained.short_name(arguments.task)].task
    task = fitting_task(trained.agent, arguments.image is not None, arguments.question is not None, only)
    observation: dict[str, Any] = {}
    for key, spec in task.observation.items():
        if spec.kind == "image":
            observation[key] = read_picture(arguments.image, spec)[None]
        else:
            observation[key] = [arguments.question]
    decoding = DecodingConfig(text="sample" if arguments.sample else "greedy", temperature=arguments.temperature)
    with refusing(task.name):
        policy = TextPolicy(trained.agent, task, 1, decoding, arguments.seed)
        print(text_of(policy.act(observation, np.ones(1, bool)).action[0]))
    return 0


def fitting_task(agent: Agent, image: bool, question: bool, only: str | None) -> TaskSpec:
    """The text task that observes just what is given; ClowderError where there is none, or more than one."""
    from distributed.errors import ClowderError

    texts = {name: task for name, task in agent.tasks.items() if task.says_text and only in (None, name)}
    if not texts:
        which = "this run was trained on no text task" if only is None else f"{only} is no text task"
        raise ClowderError(f"{which}; train one with babyai_questions, easy_vqa or a text task of your own")
    given = sorted(["image"] * image + ["text"] * question)
    found = [task for task in texts.values() if sorted(spec.kind for spec in task.observation.values()) == given]
    if len(found) == 1:
        return found[0]
    if found:
        raise ClowderError(f"{', '.join(task.name for task in found)} would all fit; choose one with --task")
    needs = "; ".join(f"{name} takes {describe(task)}" for name, task in texts.items())
    raise ClowderError(f"no text task takes just {describe_given(image, question)}: {needs}")


def describe(task: TaskSpec) -> str:
    """What a task observes, in words."""
    kinds = [spec.kind for spec in task.observation.values()]
    return describe_given("image" in kinds, "text" in kinds)


def describe_given(image: bool, question: bool) -> str:
    """The same of what was given."""
    return " and ".join(["--image"] * image + ["a question"] * question) or "nothing"


def read_picture(path: Path, spec: ArraySpec) -> np.ndarray:
    """A picture file as uint8 [height, width, channels] of the task's size; ClowderError where it is none."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    from distributed.errors import ClowderError

    height, width, channels = spec.shape
    try:
        with Image.open(path, formats=["PNG", "JPEG"]) as opened:
            picture = opened.convert("RGB" if channels == 3 else "L").resize((width, height))
    except UnidentifiedImageError:
        raise ClowderError(f"--image {path} is no PNG or JPEG") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ClowderError(f"--image {path} cannot be read ({error})") from None
    return np.array(picture).reshape(spec.shape)  # a copy, which torch may write to
