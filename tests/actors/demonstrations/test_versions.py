"""Other physics and other ROMs are refused before an episode is played; other versions else are only said."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from ale_py import roms

from actors.config import ActorConfig
from actors.demonstrations.action_set import write_action_set
from actors.demonstrations.demonstration_set import DemonstrationSetError, other_versions
from actors.demonstrations.episode import ActionRecord
from actors.demonstrations.minari_writer import MinariWriter
from actors.demonstrations.open_set import open_set, wanted_settings
from actors.demonstrations.simulation import simulate
from actors.environments.make import make_environment
from tests.actors.demonstrations.sets import BOXING, CARTPOLE, played

POINT_MASS = ActorConfig(task="dm_control/point_mass-easy", arguments={"time_limit": 0.2})


def actions(config: ActorConfig, folder: Path, **versions: str) -> Path:
    settings = wanted_settings(config, "nobody")
    spec = settings.task.action
    still = np.zeros((1, *spec.shape), spec.dtype)
    record = ActionRecord(0, still, still, np.ones(1, bool), 0.0)
    write_action_set(folder, dataclasses.replace(settings, versions=settings.versions | versions), [record])
    return folder


@pytest.mark.parametrize("library", ["mujoco", "dm-control"])
def test_other_physics_are_refused_where_episodes_are_simulated(library: str, tmp_path: Path) -> None:
    folder = actions(POINT_MASS, tmp_path, **{library: "0.0.1"})
    with pytest.raises(DemonstrationSetError, match=rf"{library} 0\.0\.1, and .* is installed.*--form minari"):
        open_set(folder, POINT_MASS)
    assert open_set(actions(POINT_MASS, tmp_path), POINT_MASS).num_episodes == 1


def test_whole_episodes_of_other_physics_are_read_and_said(tmp_path: Path) -> None:
    settings = wanted_settings(POINT_MASS, "nobody")
    writer = MinariWriter(tmp_path, dataclasses.replace(settings, versions={"mujoco": "0.0.1"}))
    record, environment = played(POINT_MASS, 0), make_environment(POINT_MASS, 1)
    writer.append(record, next(item[1] for item in simulate(environment, lambda _: record, [0]) if item is not None))
    writer.finish(0)
    opened = open_set(tmp_path, POINT_MASS)
    assert opened.episode(0).length == len(record.action)
    assert other_versions(opened.settings).startswith("mujoco 0.0.1 (installed: ")


def test_another_library_else_is_found_out_by_playing(tmp_path: Path) -> None:
    assert open_set(actions(CARTPOLE, tmp_path, gymnasium="0.0.1"), CARTPOLE).num_episodes == 1


def test_another_rom_is_another_game(tmp_path: Path) -> None:
    opened = open_set(actions(BOXING, tmp_path), BOXING)
    installed = hashlib.md5(Path(roms.get_rom_path("boxing")).read_bytes()).hexdigest()
    assert opened.settings.versions["rom boxing"] == installed
    folder = actions(BOXING, tmp_path, **{"rom boxing": "0" * 32})
    with pytest.raises(DemonstrationSetError, match=rf"boxing\.bin of MD5 0{{32}}, the installed has {installed}"):
        open_set(folder, BOXING)
