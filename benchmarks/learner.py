"""Learner speed: its own update against a plain PyTorch decoder of the same shape, and against the machine.

    python -m benchmarks.learner [--model gato-79m --updates 1] [--stock] [--threads 1] [--rounds 10] [--out FILE]
    python -m benchmarks.learner --device cuda --model gato-364m --rows 16 [--attention flexible] [--compile]

The models, of about 5 million parameters or of a preset's shape, take turns in one process with rows of 1,024 tokens,
so that a noisy machine disturbs all alike; figures are medians over the turns, CPU seconds beside wall seconds. The
learner's time is all of `Learner.step`: waiting for windows, cropping, packing, forward, backward, clipping, AdamW. The
plain decoder is given its tokens, and so is, with ``--stock``, GPT-2 of the package `transformers` (extra ``bench``),
which computes scores of its whole vocabulary at every position. On CUDA all compute in bf16 autocast, as the learner
does there, the matrix products in bf16, and a turn ends when the device has done its work.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.agent import Agent
from agent.config import AgentConfig
from agent.task import ArraySpec, TaskSpec
from benchmarks.matmul_rate import DecoderShape, MatmulRate, settle
from benchmarks.plain_decoder import PlainDecoder, PlainUpdate
from distributed.compose import compose
from distributed.report import write_report
from learner.batch_source import TaskSources
from learner.config import LearnerConfig
from learner.learner import Learner, pick_device
from replay.window import Window, WindowMetadata

TOKENS_PER_ROW = 1024
OBSERVATION_ELEMENTS = 14
TOKENS_PER_STEP = OBSERVATION_ELEMENTS + 2
"""The separator and the one element of the action beside the observation."""
STEPS = TOKENS_PER_ROW // TOKENS_PER_STEP
UPDATES_IN_TURN = 8
"""By default. More than `LearnerConfig.prefetch_batches`, so that what is prepared in the other's turn is not all that
is used."""


def benchmark_task(context_steps: int) -> TaskSpec:
    """A task whose rows are filled to the last token: 16 tokens a step."""
    return TaskSpec(
        name="benchmark/numbers",
        observation={"state": ArraySpec("continuous", (OBSERVATION_ELEMENTS,))},
        action=ArraySpec("continuous", (1,), low=-1.0, high=1.0),
        context_steps=context_steps,
    )


class PreparedWindows:
    """A `WindowStream` that never makes the learner wait: 64 windows of random numbers, in turn."""

    def __init__(self, task: TaskSpec, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self._windows = [_random_window(task, generator, index) for index in range(64)]
        self._next = 0

    def get(self, timeout: float) -> Window | None:
        """The next window, at once."""
        self._next += 1
        return self._windows[self._next % len(self._windows)]

    def available(self) -> bool:
        """There always is one."""
        return True


def _random_window(task: TaskSpec, generator: np.random.Generator, index: int) -> Window:
    action = generator.uniform(-1, 1, (STEPS, 1)).astype(np.float32)
    return Window(
        observation={"state": generator.normal(size=(STEPS + 1, OBSERVATION_ELEMENTS)).astype(np.float32)},
        action=action,
        label=action,
        label_mask=np.ones(STEPS, bool),
        reward=np.zeros(STEPS, np.float32),
        terminated=np.zeros(STEPS, bool),
        truncated=np.zeros(STEPS, bool),
        is_first=np.zeros(STEPS, bool),
        policy_version=np.full(STEPS, -1, np.int64),
        log_prob=np.full((STEPS, 1), np.nan, np.float32),
        return_asked=np.zeros((STEPS, 3), np.float32),
        metadata=WindowMetadata(task.name, "demonstrations", f"benchmark.{index}"),
    )


class StockUpdate:
    """Updates of a GPT-2 of the same shape on random tokens, as its documentation trains it; in bf16 on CUDA."""

    def __init__(self, config: AgentConfig, rows: int, device: torch.device) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        self._vocabulary, self._rows, self._device = config.text_ids + config.continuous_bins, rows, device
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=self._vocabulary,
                n_positions=TOKENS_PER_ROW,
                n_embd=config.width,
                n_layer=config.layers,
                n_head=config.heads,
            )
        )
        self._model = model.to(device)  # type: ignore[arg-type]
        self._optimiser = torch.optim.AdamW(self._model.parameters(), lr=1e-4, weight_decay=0.1)

    def step(self) -> torch.Tensor:
        """The loss of one update, where it was computed."""
        tokens = torch.randint(self._vocabulary, (self._rows, TOKENS_PER_ROW), device=self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            loss: torch.Tensor = self._model(tokens, labels=tokens).loss
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimiser.step()
        return loss.detach()


def measure(
    rounds: int,
    rows: int,
    context_steps: int,
    agent_config: AgentConfig,
    updates: int,
    stock: bool,
    device: torch.device | None = None,
    compiled: bool = False,
) -> dict[str, Any]:
    """Turns of ``updates`` of each on ``device`` (None: the CPU), and a sample of the matrix products after all;
    medians. ``compiled`` is `LearnerConfig.compile`, the learner's alone."""
    device = device or torch.device("cpu")
    on_cuda = device.type == "cuda"
    task = benchmark_task(context_steps)
    agent = Agent(agent_config, [task])
    windows = rows * STEPS // context_steps
    learner = Learner(
        agent,
        {task.name: TaskSources(task, 1.0, (0.0, 0.0), {"demonstrations": PreparedWindows(task)})},
        LearnerConfig(
            windows_per_batch=windows,
            tokens_per_row=TOKENS_PER_ROW,
            steps=10_000,
            prompt_share=0.0,
            device=device.type,
            compile=compiled,
        ),
        seed=0,
    )
    shape = DecoderShape(
        width=agent_config.width,
        layers=agent_config.layers,
        hidden=agent_config.feedforward * agent_config.width // 2,
        rows=rows,
        length=TOKENS_PER_ROW,
        targets=rows * STEPS,
        ids=agent_config.continuous_bins,
    )
    plain = PlainUpdate(
        PlainDecoder(
            width=shape.width,
            layers=shape.layers,
            heads=agent_config.heads,
            hidden=shape.hidden,
            vocabulary=agent.vocabulary.size,
            length=TOKENS_PER_ROW,
            ids=shape.ids,
        ).to(device),
        rows,
        TOKENS_PER_ROW,
        STEPS,
        autocast=on_cuda,
    )
    products = MatmulRate(shape, device, torch.bfloat16 if on_cuda else torch.float32)
    gpt2 = StockUpdate(agent_config, rows, device) if stock else None
    learner_turns, plain_turns, stock_turns = [], [], []
    for turn in range(-1, rounds):  # the first turn is warm-up
        if turn == 0:
            learner.metrics()  # forget what was counted in the warm-up
        turns = [_turn(learner.step, updates, device), _turn(plain.step, updates, device)]
        if gpt2 is not None:
            stock_turns.append(_turn(gpt2.step, updates, device))
        products.measure()
        if turn >= 0:
            learner_turns.append(turns[0])
            plain_turns.append(turns[1])
    metrics = learner.metrics()
    learner.close()
    (own, own_cpu), (other, other_cpu) = _medians(learner_turns), _medians(plain_turns)
    gpt2_seconds, _ = _medians(stock_turns[1:]) if gpt2 is not None else (None, None)
    flops = shape.update_flops(agent.parameter_count(embeddings=False), context_steps * TOKENS_PER_STEP)
    plain_parameters = sum(parameter.numel() for parameter in plain.model.parameters())
    return {
        "rounds": rounds,
        "rows": rows,
        "tokens_per_row": TOKENS_PER_ROW,
        "context_steps": context_steps,
        "targets": shape.targets,
        "parameters": {
            "learner": agent.parameter_count(),
            "learner_transformer": agent.parameter_count(embeddings=False),
            "plain": plain_parameters,
        },
        "learner_seconds_per_step": own,
        "plain_seconds_per_step": other,
        "step_rate_over_plain": other / own,
        "stock_seconds_per_step": gpt2_seconds,
        "step_rate_over_stock": None if gpt2_seconds is None else gpt2_seconds / own,
        "learner_cpu_seconds_per_step": own_cpu,
        "plain_cpu_seconds_per_step": other_cpu,
        "plain_over_learner_cpu_seconds": other_cpu / own_cpu,
        "learner_tokens_per_second": rows * TOKENS_PER_ROW / own,
        "data_wait_fraction": metrics["data_wait_fraction"],
        "peak_gigabytes": torch.cuda.max_memory_allocated(device) / 1e9 if on_cuda else None,
        "update_gigaflops": flops / 1e9,
        "matmul_gigaflops_per_second": products.rate() / 1e9,
        "learner_share_of_matmul_rate": flops / own / products.rate(),
        "plain_share_of_matmul_rate": flops / other / products.rate(),
    }


def _turn(step: Callable[[], object], updates: int, device: torch.device) -> tuple[float, float]:
    """Wall seconds and CPU seconds (of all threads) of one update."""
    settle(device)
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(updates):
        step()
    settle(device)
    return (time.perf_counter() - wall) / updates, (time.process_time() - processor) / updates


def _medians(turns: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(wall for wall, _ in turns), statistics.median(processor for _, processor in turns)


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description="Learner speed against a plain PyTorch decoder of the same shape")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="of torch, for both")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each")
    parser.add_argument("--updates", type=int, default=UPDATES_IN_TURN, help="in one turn")
    parser.add_argument("--model", help="take the shape of this preset")
    parser.add_argument("--stock", action="store_true", help="GPT-2 takes turns too")
    parser.add_argument("--rows", type=int, default=1, help="rows of 1,024 tokens in a batch")
    parser.add_argument("--context-steps", type=int, default=STEPS, help="below 64 a row holds several crops")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="as learner.device")
    parser.add_argument("--attention", choices=("fused", "flexible"), default="fused", help="as agent.attention")
    parser.add_argument("--compile", action="store_true", help="as learner.compile; the learner's alone")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = AgentConfig(
        width=options.width, layers=options.layers, heads=options.heads, observation_embedding="per_element"
    )
    if options.model:
        preset = compose([f"model={options.model}", "actors=[cartpole_swingup]"]).agent
        config = dataclasses.replace(preset, observation_embedding="per_element", stochastic_depth=0.0)
    config = dataclasses.replace(config, attention=options.attention)
    device = pick_device(options.device)
    figures = measure(
        options.rounds,
        options.rows,
        options.context_steps,
        config,
        options.updates,
        options.stock,
        device,
        options.compile,
    )
    settings = {
        "model": options.model,
        "threads": options.threads,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "attention": options.attention,
        "compile": options.compile,
    }
    write_report("benchmarks.learner", {**settings, **figures}, options.out)


if __name__ == "__main__":
    main()
