"""Weights and what is needed to rebuild the agent around them: a folder of safetensors and JSON, never code."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError
from torch import nn

from agent.agent import Agent
from agent.config import AgentConfig
from agent.task import TaskSpec
from agent.tokenizer import TextTokenizer

FORMAT_VERSION = 3
READABLE_FORMATS = (1, 2, 3)
"""Format 1 had no text model of its own: the shipped one is meant. Before format 3 a critic had one head for all
tasks."""
WEIGHTS_FILE, AGENT_FILE, TEXT_FILE = "agent.safetensors", "agent.json", "text.model"


def flat_weights(agent: nn.Module) -> dict[str, np.ndarray]:
    """Copy of all weights on the CPU, by name."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in agent.state_dict().items()}


def load_weights(agent: nn.Module, weights: dict[str, np.ndarray]) -> None:
    """Copy weights into the agent; other names or shapes raise ValueError, naming the first that differs."""
    own = agent.state_dict()
    if own.keys() != weights.keys():
        raise ValueError(f"weights of another model: {sorted(own.keys() ^ weights.keys())[0]} is on one side only")
    with torch.no_grad():
        for name, tensor in own.items():
            if tuple(tensor.shape) != weights[name].shape:
                raise ValueError(
                    f"weights of another model shape: {name} is {weights[name].shape}, the model has "
                    f"{tuple(tensor.shape)}"
                )
            # Ray hands out read-only arrays; copy_ only reads them.
            tensor.copy_(torch.from_numpy(np.require(weights[name], requirements="W")))


CRITIC = "action_values."
"""Beginning of the names of a critic's weights; the name of a head's task follows."""
OF_ACTIONS = (".actions", ".encoder.elements", ".encoder.symbols.weight")
"""Ends of the names of those of a head whose shapes are of its task's actions."""
SHARED_HEAD = "action_values.out.weight"
"""A critic had it before format 3."""
OPTIONAL = (CRITIC, "return_position")
"""Beginnings of the names of weights that an agent may have or not: of its critic and of return tokens."""
MAY_DIFFER = ("value_bins", "returns", "stochastic_depth", "attention", "text_model")
"""Settings of `AgentConfig` without which weights mean the same; text models are compared by what they are."""


def fitting_weights(agent: Agent, folder: Path) -> dict[str, np.ndarray]:
    """Weights of a folder that ``agent`` may begin with, whatever tasks they were trained on.

    All must be those of a model with its settings (but `MAY_DIFFER`), except `OPTIONAL` ones, which either may lack.
    A critic's head is left out where its task has another number of actions now.

    Raises:
        ValueError: they are of another model, or text means other tokens there; or as `read_weights`.
    """
    version, config, _ = _read_description(folder)
    for field in dataclasses.fields(AgentConfig):
        there, here = getattr(config, field.name), getattr(agent.config, field.name)
        if field.name not in MAY_DIFFER and there != here:
            raise ValueError(
                f"{folder} has weights of another model: agent.{field.name} is {there} there and {here} here; give "
                "this run the same agent.* and model"
            )
    weights, own = _weights_of_now(agent, folder, version), agent.state_dict()
    text = folder / TEXT_FILE
    if agent.text.model != (text.read_bytes() if text.is_file() else TextTokenizer.default().model):
        raise ValueError(f"{folder} has another text model; set agent.text_model to its {TEXT_FILE}")
    for name in [name for name in own if name.startswith(CRITIC) and name.endswith(OF_ACTIONS) and name in weights]:
        if own[name].shape != weights[name].shape:  # the task has other actions now: its head begins afresh
            head = ".".join(name.split(".")[:2]) + "."
            weights = {other: value for other, value in weights.items() if not other.startswith(head)}
    for name in sorted(own.keys() | weights.keys()):
        if name in own and name in weights:
            if tuple(own[name].shape) != weights[name].shape:
                raise ValueError(
                    f"{folder} has weights of another model shape: {name} is {weights[name].shape}, here it is "
                    f"{tuple(own[name].shape)}; give this run the same agent.* and model"
                )
        elif not name.startswith(OPTIONAL):
            raise ValueError(
                f"{folder} has weights of another model: {name} is on one side only; give this run the same agent.* "
                "and model"
            )
    return {name: weights[name] for name in own if name in weights}


def save_agent(folder: Path, agent: Agent, weights: dict[str, np.ndarray] | None = None) -> None:
    """Write weights, settings, tasks (with the returns that normalise them) and text model into an existing folder.

    ``weights`` are what `flat_weights` gave at an earlier moment; None for those of now.
    """
    safetensors.numpy.save_file(flat_weights(agent) if weights is None else weights, folder / WEIGHTS_FILE)
    description = {
        "format_version": FORMAT_VERSION,
        "agent": dataclasses.asdict(agent.config),
        "tasks": {name: task.to_json() for name, task in agent.tasks.items()},
    }
    (folder / TEXT_FILE).write_bytes(agent.text.model)
    (folder / AGENT_FILE).write_text(json.dumps(description, indent=1))


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """Weights of a folder; a missing or truncated file raises ValueError."""
    try:
        return safetensors.numpy.load_file(folder / WEIGHTS_FILE)
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no {WEIGHTS_FILE}; give a checkpoint's folder") from None
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS_FILE} is damaged or truncated ({error}); use another checkpoint") from None


def _weights_of_now(agent: Agent, folder: Path, version: int) -> dict[str, np.ndarray]:
    """Weights of a folder of any format, named as ``agent`` names its own."""
    weights = read_weights(folder)
    if version >= 3 or SHARED_HEAD not in weights:
        return weights
    # The one head had embeddings for more actions and elements than any task has: a task's are the first of them.
    shared = {name: weights.pop(name) for name in list(weights) if name.startswith(CRITIC)}
    for name, own in agent.state_dict().items():
        if name.startswith(CRITIC):
            part = name.removeprefix(CRITIC).partition(".")[2]
            former = shared.get(CRITIC + ("actions.weight" if part == "actions" else part))
            if former is not None and former.ndim:  # else they are refused as those of another model
                weights[name] = former[: len(own)].copy()
    return weights


def _read_description(folder: Path) -> tuple[int, AgentConfig, list[TaskSpec]]:
    """Format version, settings and tasks of a folder written by `save_agent`; ValueError where they cannot be used."""
    try:
        description = json.loads((folder / AGENT_FILE).read_text())
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no {AGENT_FILE}; give a checkpoint's folder") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / AGENT_FILE} is damaged ({error}); use another checkpoint") from None
    version = description.get("format_version") if isinstance(description, dict) else None
    if version not in READABLE_FORMATS:
        raise ValueError(f"{folder} has checkpoint format {version}, this Clowder reads {READABLE_FORMATS}")
    try:
        unknown = description["agent"].keys() - {field.name for field in dataclasses.fields(AgentConfig)}
        if unknown:
            raise ValueError(f"settings that this Clowder does not know ({sorted(unknown)}); use a newer one")
        config = AgentConfig(**description["agent"])
        config.validate()
        tasks = [TaskSpec.from_json(task) for task in description["tasks"].values()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / AGENT_FILE} cannot be used: {error}; use another checkpoint") from error
    return int(version), config, tasks


def load_agent(folder: Path) -> Agent:
    """Rebuild the agent of a folder written by `save_agent`; anything amiss raises ValueError with the reason."""
    folder = Path(folder)
    version, config, tasks = _read_description(folder)
    text = TextTokenizer.default()
    if version > 1:
        try:
            text = TextTokenizer((folder / TEXT_FILE).read_bytes())
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder / TEXT_FILE} is missing or damaged ({error}); use another checkpoint") from None
    try:
        agent = Agent(config, tasks, text)
    except (ArithmeticError, AttributeError, TypeError, RuntimeError) as error:  # such as a width that is a text
        raise ValueError(f"{folder / AGENT_FILE} describes no agent ({error}); use another checkpoint") from error
    load_weights(agent, _weights_of_now(agent, folder, version))
    return agent
