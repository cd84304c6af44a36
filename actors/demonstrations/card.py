"""The card of a set: what is in it, who made it, how and with which command; for people and for programs.

``card.json`` and ``README.md`` in the set's folder hold all of it. What a set itself knows (task, versions, seeds,
returns) is read from the set whenever a card is made, so a card never contradicts its set; the file alone knows what
the expert may see, the noise, what was kept, and the command.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from actors.demonstrations.action_set import ActionSet
from actors.demonstrations.demonstration_set import DemonstrationSet, DemonstrationSetError, describe_versions
from actors.demonstrations.open_set import load_set
from actors.demonstrations.whole_files import write_json, write_whole

CARD = "card.json"
README = "README.md"
SCHEMA = 1
UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True)
class Card:
    """What a set is.

    Attributes:
        name: of its folder.
        task, expert, form: ``form`` is minari or actions.
        sees: what the expert may see: simulator state, privileged information, or observations.
        episodes, steps: in all.
        noisy_episodes: with noise injected into what was executed.
        failed_episodes: seeds that are not in it because the expert failed.
        first_seed, last_seed: of the episodes.
        returns: mean, min, lower quartile, median, upper quartile and max over all episodes.
        demonstrator_return: mean of those without noise.
        random_return: mean of uniform random play; None where it was not measured.
        arguments, entry_point, versions: of the environment when it was recorded.
        noise: ``levels`` and ``share``, or empty.
        kept: which episodes are in it.
        command: that made it.
    """

    name: str
    task: str
    expert: str
    form: str
    sees: str
    episodes: int
    steps: int
    noisy_episodes: int
    failed_episodes: int
    first_seed: int
    last_seed: int
    returns: dict[str, float]
    demonstrator_return: float
    random_return: float | None
    arguments: dict[str, Any]
    entry_point: str | None
    versions: dict[str, str]
    noise: dict[str, Any]
    kept: str
    command: str

    def line(self) -> str:
        """One line for a list of sets."""
        return (
            f"{self.task}: {self.episodes:,} episodes ({self.steps:,} steps) of {self.expert}, return "
            f"{self.returns['mean']:.4g} ({self.returns['min']:.4g} to {self.returns['max']:.4g})"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self) | {"schema": SCHEMA}


def make_card(opened: DemonstrationSet) -> Card:
    """The card of an open set: its own numbers, and what its card file says beside them, if it has one."""
    settings, returns = opened.settings, opened.returns
    said = _read(opened.folder / CARD)
    numbers = np.percentile(returns, [0, 25, 50, 75, 100])
    return Card(
        name=opened.folder.name,
        task=settings.task.name,
        expert=settings.expert,
        form="actions" if isinstance(opened, ActionSet) else "minari",
        sees=str(said.get("sees") or UNKNOWN),
        episodes=opened.num_episodes,
        steps=int(opened.lengths.sum()),
        noisy_episodes=int(opened.noisy.sum()),
        failed_episodes=settings.failed_episodes,
        first_seed=int(opened.seeds.min()),
        last_seed=int(opened.seeds.max()),
        returns={
            "mean": float(returns.mean()),
            **dict(zip(("min", "lower_quartile", "median", "upper_quartile", "max"), map(float, numbers))),
        },
        demonstrator_return=opened.demonstrator_return,
        random_return=settings.random_return,
        arguments=settings.arguments,
        entry_point=settings.entry_point,
        versions=settings.versions,
        noise=dict(said.get("noise") or {}),
        kept=str(said.get("kept") or UNKNOWN),
        command=str(said.get("command") or UNKNOWN),
    )


def write_card(
    folder: Path,
    *,
    sees: str = "",
    noise: dict[str, Any] | None = None,
    kept: str = "",
    command: str = "",
) -> None:
    """Write or renew the card of the set in ``folder``; what is not given stays as the former card said it."""
    opened = load_set(folder)
    given: dict[str, Any] = {"sees": sees, "noise": noise or {}, "kept": kept, "command": command}
    card = dataclasses.replace(make_card(opened), **{name: value for name, value in given.items() if value})
    write_json(folder / CARD, card.to_json())
    write_whole(folder / README, readme(card).encode())


def readme(card: Card) -> str:
    """The card as a page."""
    noise = card.noise
    disturbed = (
        f"{card.noisy_episodes} of the episodes under injected noise {', '.join(f'{x:g}' for x in noise['levels'])}"
        if noise
        else f"{card.noisy_episodes} of the episodes under injected noise"
        if card.noisy_episodes
        else "none"
    )
    random = "not measured" if card.random_return is None else f"{card.random_return:.6g}"
    rows = {
        "task": card.task,
        "expert": f"{card.expert}; it sees: {card.sees}",
        "form": "whole episodes (Minari, Arrow)" if card.form == "minari" else "settings, seeds and actions",
        "episodes": f"{card.episodes:,} ({card.steps:,} steps), seeds {card.first_seed} to {card.last_seed}",
        "returns": ", ".join(f"{name.replace('_', ' ')} {value:.6g}" for name, value in card.returns.items()),
        "without noise": f"mean {card.demonstrator_return:.6g}; uniform random play: {random}",
        "noise": disturbed,
        "kept": f"{card.kept}; {card.failed_episodes} left out",
        "environment": ", ".join(f"{name}={value}" for name, value in sorted(card.arguments.items())) or "defaults",
        "versions": describe_versions(card.versions),
        "command": f"`{card.command}`",
    }
    lines = [f"# {card.name}", "", f"Demonstrations of {card.task}, written by Clowder.", "", "| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows.items()), ""])


def _read(path: Path) -> dict[str, Any]:
    """The former card; empty where there is none, DemonstrationSetError where it is damaged."""
    if not path.exists():
        return {}
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DemonstrationSetError(f"{path} cannot be read ({error}); delete it, the set does without") from error
    if not isinstance(data, dict):
        raise DemonstrationSetError(f"{path} is not a JSON object; delete it, the set does without")
    return data
