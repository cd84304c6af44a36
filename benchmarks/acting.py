"""Acting speed: a control step with the cache, without it, and that of a stock GPT-2 of the same shape with its own.

    python -m benchmarks.acting [--model gato-79m] [--context 900] [--threads 2] [--rounds 10] [--out FILE]

One environment. A control step reads an observation and gives an action: for 5 observation tokens and 1 action one
forward over 7 new tokens (the action before, the observation, the separator), and one more for every further element of
an action. GPT-2 (needs the extra ``bench``) is given the same tokens, with scores at the last of them only: in the same
forwards (``stock``), and with every element of an action in a forward of its own as it is chosen (``stock_in_turn``).
All take turns in one process, so that a noisy machine disturbs them alike; figures are medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.agent import Agent
from agent.config import AgentConfig, DecodingConfig
from agent.policy import Policy
from agent.task import ArraySpec, TaskSpec
from distributed.compose import compose
from distributed.report import write_report

SHAPES = ((5, 1), (20, 6))
"""Tokens of an observation and of an action."""


def control_task(observed: int, elements: int, steps: int) -> TaskSpec:
    """A task of so many numbers seen and chosen."""
    return TaskSpec(
        "benchmark/control",
        {"state": ArraySpec("continuous", (observed,))},
        ArraySpec("continuous", (elements,), -1.0, 1.0),
        context_steps=steps,
    )


class OurStep:
    """A control step of a `Policy` whose context holds ``context`` tokens."""

    def __init__(self, config: AgentConfig, observed: int, elements: int, context: int, decoding: DecodingConfig):
        steps = context // (observed + 1 + elements)
        # A context with the cache may grow while it is measured; one that is computed anew has its full length.
        room = steps if decoding.context == "recompute" else 2 * steps
        task = control_task(observed, elements, room)
        torch.manual_seed(0)
        self._policy = Policy(Agent(config, [task]), task, 1, decoding)
        self._generator = np.random.default_rng(0)
        self._first = np.ones(1, bool)
        self._shape = (1, observed)
        if decoding.context == "recompute":
            # A full context at once, of zeros: to fill it step by step would take minutes.
            self._policy.context.lengths[:] = steps
            self._first = np.zeros(1, bool)
        else:
            for _ in range(steps):
                self.step()

    def step(self) -> None:
        """See and act."""
        observation = self._generator.normal(size=self._shape).astype(np.float32)
        self._policy.act({"state": observation}, self._first)
        self._first = np.zeros(1, bool)


class StockStep:
    """The same with a GPT-2 of `transformers`: its blocks, its cache."""

    def __init__(
        self, config: AgentConfig, observed: int, elements: int, context: int, int8: bool, in_turn: bool
    ) -> None:
        from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

        self._vocabulary = config.text_ids + config.continuous_bins
        torch.manual_seed(0)
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=self._vocabulary,
                n_positions=4 * context,
                n_embd=config.width,
                n_layer=config.layers,
                n_head=config.heads,
            )
        ).eval()
        self._model: Any = quantised(with_linears(model)) if int8 else model
        self._cache = DynamicCache()
        self._forwards = [observed + 1, *[1] * elements] if in_turn else [observed + 2, *[1] * (elements - 1)]
        self._run(context)

    def step(self) -> None:
        """Read an observation and choose the elements of an action."""
        for tokens in self._forwards:
            self._run(tokens)

    @torch.inference_mode()
    def _run(self, tokens: int) -> None:
        ids = torch.randint(self._vocabulary, (1, tokens))
        self._model(ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)


def with_linears(model: torch.nn.Module) -> torch.nn.Module:
    """GPT-2's own transposed layers as `nn.Linear`, which quantisation knows."""
    from transformers.pytorch_utils import Conv1D

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Conv1D):
                linear = torch.nn.Linear(*child.weight.shape)
                with torch.no_grad():
                    linear.weight.copy_(child.weight.T)
                    linear.bias.copy_(child.bias)
                setattr(module, name, linear)
    return model


def quantised(model: torch.nn.Module) -> torch.nn.Module:
    """Int8 weights of all linear layers, as `agent.quantisation` does."""
    from agent.quantisation import int8_linears

    return int8_linears(model)


def measure(contestants: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, in turns."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(-1, rounds):  # the first turn is warm-up
        for name, step in contestants.items():
            began = time.perf_counter()
            step()
            if turn >= 0:
                found[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description="Acting speed")
    parser.add_argument("--model", default="gato-79m", help="model preset")
    parser.add_argument("--context", type=int, default=900, help="tokens that are read already")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = compose([f"model={options.model}", "actors=[cartpole_swingup]"]).agent
    shapes: dict[str, Any] = {}
    for observed, elements in SHAPES:
        of = (config, observed, elements, options.context)
        contestants: dict[str, Callable[[], None]] = {
            "cached": OurStep(*of, DecodingConfig()).step,
            "cached_int8": OurStep(*of, DecodingConfig(weights="int8")).step,
            "stock": StockStep(*of, int8=False, in_turn=False).step,
            "stock_in_turn": StockStep(*of, int8=False, in_turn=True).step,
            "stock_int8": StockStep(*of, int8=True, in_turn=False).step,
        }
        found = measure(contestants, options.rounds)
        del contestants
        found |= measure(
            {"recomputed": OurStep(*of, DecodingConfig(context="recompute")).step}, max(2, options.rounds // 4)
        )
        shapes[f"{observed} observation tokens, {elements} action tokens"] = {
            "milliseconds": found,
            "recomputed_over_cached": found["recomputed"] / found["cached"],
            "cached_over_stock": found["cached"] / found["stock"],
            "cached_over_stock_in_turn": found["cached"] / found["stock_in_turn"],
            "cached_int8_over_stock_int8": found["cached_int8"] / found["stock_int8"],
        }
    figures = {
        "model": options.model,
        "context_tokens": options.context,
        "threads": options.threads,
        "rounds": options.rounds,
        "shapes": shapes,
    }
    write_report("benchmarks.acting", figures, options.out)


if __name__ == "__main__":
    main()
