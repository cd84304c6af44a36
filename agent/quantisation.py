"""Weights of eight bits for acting on a CPU, where reading the weights is most of the time."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn
from torch.ao.quantization import quantize_dynamic

from agent.agent import Agent


def int8_linears(model: nn.Module) -> nn.Module:
    """A copy of a model whose linear layers hold int8 weights, with a scale for each output, and round their inputs as
    they come (PyTorch's dynamic quantisation). CPU only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its successor in another package
        quantised: nn.Module = quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    return quantised


def int8_agent(agent: Agent) -> Agent:
    """An agent that shares everything with ``agent`` but its transformer, which is an int8 copy.

    Raises:
        ValueError: the agent is not on a CPU.
    """
    if agent.device.type != "cpu":
        raise ValueError(f"decoding.weights=int8 is for CPUs, the agent is on {agent.device}; use float32")
    acting = copy.copy(agent)
    acting._modules = {**agent._modules, "transformer": int8_linears(agent.transformer)}
    return acting
