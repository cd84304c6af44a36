"""Linear layers for acting on a CPU, their weights laid out as the library's kernels (oneDNN) read them.

A step of acting reads all weights for a handful of tokens. Laid out for that, they are read in two thirds of the time,
and results differ by rounding only. The layout is a copy: the transformer's weights are in memory twice.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from agent.agent import Agent

ROWS = 8
"""Tokens of a step of acting, about; the library chooses the layout by it. Any number of them may come."""


class PackedLinear(nn.Module):
    """A linear layer without bias as it was when this was made. For inference."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        assert layer.bias is None
        self._weight: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 [..., in] to [..., out]."""
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, None, "none", [], "")
        return result


def can_pack(agent: Agent) -> bool:
    """Whether the agent's weights are where the library reads them, and it has these kernels (PyTorch's own compiler
    calls them; they are no part of its public interface)."""
    return (
        agent.device.type == "cpu"
        and agent.tokens.weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def packed_agent(agent: Agent) -> Agent:
    """An agent that shares everything with ``agent`` but the linear layers of its transformer, which are copies."""
    acting = copy.copy(agent)
    acting._modules = {**agent._modules, "transformer": _packed(agent.transformer)}
    return acting


def _packed(module: nn.Module) -> nn.Module:
    if type(module) is nn.Linear:
        return PackedLinear(module)
    result = copy.copy(module)
    result._compiled_call_impl = None  # of the original, which may be compiled for training
    result._modules = {name: child and _packed(child) for name, child in module._modules.items()}
    return result
