"""Three small tasks that between them hold every kind of array, and random values for them."""

from __future__ import annotations

import numpy as np

from agent.task import ArraySpec, TaskSpec, text_bytes

CONTROL = TaskSpec(
    "test/control",
    {"velocity": ArraySpec("continuous", (2,)), "position": ArraySpec("continuous", (3,))},
    ArraySpec("continuous", (2,), -1.0, 1.0),
    return_range=(0.0, 1000.0),
    context_steps=3,
)
GRID = TaskSpec(
    "test/grid",
    {
        "grid": ArraySpec("discrete", (5, 5, 3), num_values=11),
        "direction": ArraySpec("discrete", (), num_values=4),
        "mission": ArraySpec("text", max_bytes=64),
    },
    ArraySpec("discrete", (), num_values=7),
    return_range=(0.0, 1.0),
    context_steps=4,
)
PIXELS = TaskSpec(
    "test/pixels",
    {"image": ArraySpec("image", (32, 48, 3))},
    ArraySpec("discrete", (), num_values=18),
    instruction="reach the top",
    return_range=(-21.0, 21.0),
    return_horizon=4,
    context_steps=2,
)
TASKS = (CONTROL, GRID, PIXELS)
QUESTION = TaskSpec(
    "test/question",
    {"picture": ArraySpec("image", (32, 32, 3)), "question": ArraySpec("text", max_bytes=64)},
    ArraySpec("text", (24,), max_bytes=24),
    context_steps=1,
    max_episode_steps=1,
)
PASSAGE = TaskSpec("test/passage", {}, ArraySpec("text", (48,), max_bytes=48), context_steps=1, max_episode_steps=1)
TEXT_TASKS = (QUESTION, PASSAGE)
MISSIONS = ("go to the red ball", "pick up a key", "open the purple door next to you")
ANSWERS = ("red", "blue key, green ball", "no", "3", "Größe 7")


def random_values(spec: ArraySpec, lead: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Values of a spec with leading shape ``lead``."""
    if spec.kind == "text":
        said = [text_bytes(str(rng.choice(ANSWERS)), spec.max_bytes) for _ in range(int(np.prod(lead)))]
        return np.stack(said).reshape(*lead, *spec.shape)
    if spec.kind == "continuous":
        return rng.uniform(-1, 1, (*lead, *spec.shape)).astype(np.float32)
    high = 256 if spec.kind == "image" else spec.num_values
    return rng.integers(0, high, (*lead, *spec.shape)).astype(spec.dtype)


def random_observation(task: TaskSpec, lead: tuple[int, ...], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Array observations of a task with leading shape ``lead``; texts are left out."""
    return {k: random_values(spec, lead, rng) for k, spec in task.observation.items() if spec.kind != "text"}
