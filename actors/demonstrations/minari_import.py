"""`import_minari`: a set of any Minari dataset, its spaces checked against the task it is for.

Minari's own reader gives the episodes, so each of its forms can be read: Arrow, and HDF5 where h5py is installed. They
are written as a set of ours, whose episodes have checksums and which the replayer streams.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.config import ActorConfig
from actors.demonstrations.card import write_card
from actors.demonstrations.demonstration_set import DemonstrationSetError
from actors.demonstrations.episode import Episode
from actors.demonstrations.minari_form import encode_episode
from actors.demonstrations.minari_set import METADATA, MinariSet, read_metadata
from actors.demonstrations.minari_writer import MinariWriter
from actors.demonstrations.open_set import wanted_settings
from actors.demonstrations.recording import measure_random_return
from actors.environments.make import make_environment
from actors.seeds import LAST_SEED
from agent.task import ArraySpec, TaskSpec

if TYPE_CHECKING:
    import minari

    from actors.environments.gymnasium_spaces import ObservationPart

NO_SEED = -1
"""Where the dataset does not say which seed an episode was reset with."""


def import_minari(
    source: str | Path,
    config: ActorConfig,
    out: Path,
    *,
    random_seconds: float = 10.0,
    command: str = "",
    progress: Callable[[int, int], None] = lambda done, wanted: None,
) -> int:
    """Write the dataset ``source`` (a folder, or the name of one that Minari has on this machine) as a set of the task.

    An import that was interrupted is continued. Labels are the executed actions. Returns the number of episodes.

    Raises:
        DemonstrationSetError: no such dataset; its spaces are not the task's; an episode does not fit them; ``out``
            holds something else.
        ImportError: the dataset is in HDF5 form and h5py is not installed.
    """
    dataset = _open(source)
    environment = make_environment(config, 1)
    try:
        task = environment.task
        parts, invert = _fit(dataset, task, str(source))
        name = f"minari:{dataset.id}"
        settings = wanted_settings(config, name)
        if (out / "data" / METADATA).exists():
            found = MinariSet(out).settings.expert
            if found != name:
                raise DemonstrationSetError(f"{out} holds episodes of {found}, not of {name}; choose another --out")
        elif out.exists() and any(out.iterdir()):
            raise DemonstrationSetError(f"{out} is not empty; choose another --out")
        else:
            measured = measure_random_return(environment, 0, random_seconds)
            settings = dataclasses.replace(settings, random_return=measured)
        writer = MinariWriter(out, settings)
    finally:
        environment.close()
    wanted = int(dataset.total_episodes)
    for index in range(len(writer.seeds), wanted):
        try:
            episode = _episode(dataset, index, task, parts, invert)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise DemonstrationSetError(f"{source}, episode {index} does not fit {task.name}: {error}") from error
        writer.append_rows(encode_episode(episode, task, 0), episode.facts())
        progress(index + 1, wanted)
    writer.finish(failed_episodes=0)
    write_card(out, sees="unknown", kept=f"all episodes of the Minari dataset {dataset.id}", command=command)
    return wanted


def _open(source: str | Path) -> minari.MinariDataset:
    import minari
    from minari.storage.datasets_root_dir import get_dataset_path

    folder = Path(source).expanduser()
    try:
        if not folder.is_dir():
            folder = get_dataset_path(str(source))
        data = folder if (folder / METADATA).exists() or list(folder.glob("*.hdf5")) else folder / "data"
        missing = {"observation_space", "action_space"} - read_metadata(data / METADATA).keys()
        if missing:
            # Minari would make the environment that the dataset names, and call the code that it names for it.
            raise ValueError(f"its {METADATA} has no {' and no '.join(sorted(missing))}")
        return minari.MinariDataset(data)
    except ImportError as error:
        raise ImportError(
            f"{source} is in a form whose library is not installed ({error}); install it with: "
            "pip install -c constraints.txt 'minari[hdf5]'"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise DemonstrationSetError(
            f"{source} is neither a folder of a Minari dataset nor the name of one on this machine ({error}); get it "
            f"with `minari download {source}`"
        ) from error


def _fit(
    dataset: minari.MinariDataset, task: TaskSpec, source: str
) -> tuple[list[ObservationPart], Callable[[Any], np.ndarray]]:
    """How values of the dataset become the task's; DemonstrationSetError naming the first difference."""
    from actors.environments.failures import SpaceNotSupported
    from actors.environments.gymnasium_spaces import action_form, observation_parts

    try:
        parts = observation_parts(dataset.observation_space, source)
        action = action_form(dataset.action_space, source)
    except SpaceNotSupported as error:
        raise DemonstrationSetError(str(error)) from error
    theirs = {part.key: part.spec for part in parts}
    for key in sorted(theirs.keys() | task.observation.keys()):
        if not _alike(theirs.get(key), task.observation.get(key)):
            raise DemonstrationSetError(
                f"{source}: observation {key!r} of the dataset is {theirs.get(key)}, and "
                f"{task.observation.get(key)} in {task.name}; give it to the task it was recorded on"
            )
    if not _alike(action.spec, task.action):
        raise DemonstrationSetError(
            f"{source}: the action of the dataset is {action.spec}, and {task.action} in {task.name}; give it to the "
            "task it was recorded on"
        )
    return parts, _inverse(dataset.action_space, task.action)


def _alike(theirs: ArraySpec | None, ours: ArraySpec | None) -> bool:
    """Equal, or texts, whose lengths no value contradicts that was checked."""
    return theirs == ours or (theirs is not None and ours is not None and theirs.kind == ours.kind == "text")


def _inverse(space: Any, spec: ArraySpec) -> Callable[[Any], np.ndarray]:
    """From an action of the dataset to the task's: bounds to [-1, 1], counts from 0."""
    if spec.kind == "continuous":
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        span = np.where(high > low, high - low, 1.0)

        def scaled(action: Any) -> np.ndarray:
            share = (np.asarray(action, np.float64) - low) / span
            return np.clip(2.0 * share - 1.0, -1.0, 1.0).reshape(spec.shape).astype(spec.dtype)

        return scaled
    first = np.asarray(getattr(space, "start", getattr(space, "low", 0)))
    return lambda action: (np.asarray(action).astype(np.int64) - first).reshape(spec.shape).astype(spec.dtype)


def _episode(
    dataset: minari.MinariDataset,
    index: int,
    task: TaskSpec,
    parts: list[ObservationPart],
    invert: Callable[[Any], np.ndarray],
) -> Episode:
    """One episode in the task's form; ValueError naming what does not fit."""
    found = dataset[index]
    length = len(found.rewards)
    if not length:
        raise ValueError("it has no steps")
    arrays: dict[str, np.ndarray] = {}
    texts: dict[str, str] = {}
    for part in parts:
        values: Any = found.observations
        for step in part.path:
            values = values[step]
        converted = [part.convert(values[row]) for row in range(length + 1)]
        if part.spec.kind == "text":
            if len(set(converted)) > 1:
                raise ValueError(f"the text {part.key!r} changes within the episode")
            texts[part.key] = _fitting(part.key, str(converted[0]), task)
        else:
            arrays[part.key] = _checked(part.key, np.stack(converted), part.spec)
    actions = found.actions
    action = _checked("action", np.stack([invert(actions[row]) for row in range(length)]), task.action)
    terminated, truncated = bool(found.terminations[-1]), bool(found.truncations[-1])
    facts = next(iter(dataset.storage.get_episode_metadata([index])))
    seed, success = facts.get("seed"), (found.infos or {}).get("success")
    known = seed is not None and str(seed).lstrip("-").isdigit() and 0 <= int(seed) < LAST_SEED
    return Episode(
        observation=arrays,
        texts=texts,
        action=action,
        label=action,
        label_mask=np.ones(length, bool),
        reward=_checked("reward", np.asarray(found.rewards, np.float32), ArraySpec("continuous", ())),
        terminated=terminated,
        truncated=truncated or not terminated,  # a buffer may end in the middle of an episode
        seed=int(seed) if known else NO_SEED,
        success=None if success is None else bool(np.asarray(success).reshape(-1)[-1]),
    )


def _fitting(key: str, text: str, task: TaskSpec) -> str:
    size, most = len(text.encode()), task.observation[key].max_bytes
    if size > most:
        raise ValueError(f"the text {key!r} has {size} bytes, the task says at most {most}")
    return text


def _checked(key: str, values: np.ndarray, spec: ArraySpec) -> np.ndarray:
    """The values; ValueError where one is not finite, or not below the number of values."""
    if spec.kind == "continuous" and not np.isfinite(values).all():
        raise ValueError(f"{key} is not finite at {np.argwhere(~np.isfinite(values))[0].tolist()}")
    if spec.kind == "discrete" and not ((values >= 0) & (values < spec.num_values)).all():
        raise ValueError(f"{key} is not in 0 to {spec.num_values - 1}")
    return values
