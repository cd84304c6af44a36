"""Checks of an installation. Each says what it found and, where it is not well, what to do."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from distributed.versions import REQUIREMENTS, check_packages, repository_root

State = Literal["ok", "note", "broken"]
IMPORTED_AS = {
    "dm-reverb": "reverb", "tensorflow-cpu": "tensorflow", "ale-py": "ale_py", "hydra-core": "hydra",
    "imageio-ffmpeg": "imageio_ffmpeg",
}  # fmt: skip
"""Import names that differ from the distribution's."""
PROBE_SECONDS = 120.0
LEAST_DISK_GIGABYTES, LEAST_SHARED_GIGABYTES = 2.0, 0.25


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report: ``broken`` is essential and makes the exit code 1, ``note`` is not."""

    check: str
    state: State
    found: str
    fix: str = ""


def examine(folder: Path) -> Iterator[Finding]:
    """All findings, as they are made; ``folder`` is where runs will be written."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        python_version,
        own_packages,
        requirements,
        replay_server,
        ray_programs,
        atari_roms,
        mujoco_rendering,
        ffmpeg,
        lambda: free_space(folder),
    )
    for check in checks:
        yield from check()


def python_version() -> Iterator[Finding]:
    """Python 3.11: dm-reverb 0.14.0 has no wheel for a later one."""
    good = sys.version_info[:2] == (3, 11)
    yield Finding("python", "ok" if good else "broken", platform.python_version(), "" if good else "use Python 3.11")


def own_packages() -> Iterator[Finding]:
    """Our packages are loaded from this checkout."""
    from distributed.errors import ClowderError

    try:
        check_packages()
        yield Finding(
            "packages", "ok", f"agent, actors, learner, replay, distributed, configs from {repository_root()}"
        )
    except ClowderError as error:
        yield Finding("packages", "broken", str(error), "see the line above")


def requirements() -> Iterator[Finding]:
    """Each package is there, imports, and has the version that was tested."""
    tested = tested_versions(repository_root() / "constraints.txt")
    if not tested:
        yield Finding("constraints.txt", "note", "not beside the packages: versions are not compared")
    failures = import_failures([IMPORTED_AS.get(name, name).replace("-", "_") for name in REQUIREMENTS])
    for name in REQUIREMENTS:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "broken", "not installed", "make setup (or: pip install -c constraints.txt -e .)")
            continue
        failure = failures.get(IMPORTED_AS.get(name, name).replace("-", "_"))
        wanted = tested.get(canonical(name))
        if failure:
            yield Finding(
                name, "broken", f"{version} does not import: {failure}", f"pip install {name}=={wanted or version}"
            )
        elif wanted and wanted != version.split("+")[0]:
            yield Finding(name, "note", f"{version}; tested is {wanted}", f"pip install {name}=={wanted}")
        else:
            yield Finding(name, "ok", version)


def import_failures(modules: list[str]) -> dict[str, str]:
    """What failed to import, in a process of its own: an import may abort the interpreter."""
    code = (
        "import importlib, json, sys\n"
        "for name in sys.argv[1:]:\n"
        "    print(json.dumps([name, 'ended the interpreter']), flush=True)\n"
        "    try:\n"
        "        importlib.import_module(name); error = ''\n"
        "    except BaseException as caught:\n"
        "        error = f'{type(caught).__name__}: {caught}'.splitlines()[0]\n"
        "    print(json.dumps([name, error]), flush=True)\n"
    )
    done, output = probe(code, *modules)
    failures = {}
    for line in output.splitlines():
        if line.startswith("["):
            name, error = json.loads(line)
            failures[name] = error
    if not failures and not done:
        return dict.fromkeys(modules, output)
    return {name: error for name, error in failures.items() if error}


def replay_server() -> Iterator[Finding]:
    """A replay server starts as it does for a run, on 127.0.0.1 alone, takes an episode and answers."""
    code = (
        f"import sys; sys.path.insert(0, {str(repository_root())!r})\n"
        "from distributed.doctor import use_a_replay_server; use_a_replay_server()"
    )
    good, output = probe(code)
    fix = "pip install -c constraints.txt dm-reverb tensorflow-cpu"
    yield Finding("reverb", "ok" if good else "broken", last_line(output), "" if good else fix)


def use_a_replay_server() -> None:
    """What the check above has done in a process of its own, since Reverb's library may abort the interpreter."""
    import numpy as np

    from agent.task import ArraySpec, TaskSpec
    from replay.config import ReplayConfig
    from replay.server import start_replay_server
    from replay.table_info import poll
    from replay.tables import table_for
    from replay.writer import EpisodeWriter

    task = TaskSpec("doctor/probe", {"x": ArraySpec("continuous", (1,))}, ArraySpec("discrete", (), num_values=2))
    config = ReplayConfig(start_deadline=PROBE_SECONDS / 2, write_deadline=20.0)
    with start_replay_server([task], config) as server:
        writer = EpisodeWriter(server.address, task, "online", config)
        observation = {"x": np.zeros(1, np.float32)}
        writer.begin(observation, {}, {"episode_id": "probe"})
        writer.step(np.array(0, np.int32), 0.0, True, False, observation)
        assert writer.close(20.0), "the server did not take an episode within 20 s"
        assert poll(server.address)[table_for(task.name, "online")].size, "the episode is not in its table"
        print(f"a server started on {server.address}, took an episode and answered")


def ray_programs() -> Iterator[Finding]:
    """Ray imports and its programs are beside it."""
    code = "import os, ray._private.services as s; os.stat(s.RAYLET_EXECUTABLE); print('raylet is there')"
    good, output = probe(code)
    fix = "pip install -c constraints.txt ray; until then: cluster.mode=serial"
    yield Finding("ray programs", "ok" if good else "broken", last_line(output), "" if good else fix)


def atari_roms() -> Iterator[Finding]:
    """ALE's games, which ship with ale-py."""
    good, output = probe(
        "from ale_py import roms; print(len(roms.get_all_rom_ids()), 'games; boxing:', roms.get_rom_path('boxing'))"
    )
    fix = "pip install -c constraints.txt --force-reinstall --no-deps ale-py"
    yield Finding("Atari ROMs", "ok" if good else "broken", last_line(output), "" if good else fix)


def mujoco_rendering() -> Iterator[Finding]:
    """MuJoCo draws without a screen; only videos need it."""
    code = (
        "import mujoco\n"
        "model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size=\".1\"/></worldbody></mujoco>')\n"
        "data = mujoco.MjData(model)\n"
        "mujoco.mj_forward(model, data)\n"
        "renderer = mujoco.Renderer(model, 32, 32)\n"
        "renderer.update_scene(data)\n"
        "assert renderer.render().shape == (32, 32, 3)\n"
        "print('draws')\n"
    )
    outputs = {}
    for backend in ("egl", "osmesa"):
        good, output = probe(code, environment={"MUJOCO_GL": backend})
        if good:
            fix = "" if backend == "egl" else "export MUJOCO_GL=osmesa before clowder train and clowder play"
            yield Finding("MuJoCo rendering", "ok" if backend == "egl" else "note", f"draws by {backend}", fix)
            return
        outputs[backend] = last_line(output)
    yield Finding(
        "MuJoCo rendering",
        "note",
        f"no videos of physics tasks ({outputs['egl']})",
        "install EGL (Debian: apt-get install libegl1 libgl1) or OSMesa (libosmesa6), or set evaluation.videos=false",
    )


def ffmpeg() -> Iterator[Finding]:
    """The program that writes videos; it ships with imageio-ffmpeg."""
    good, output = probe("import imageio_ffmpeg as f; print(f.get_ffmpeg_version(), 'at', f.get_ffmpeg_exe())")
    fix = "pip install -c constraints.txt imageio-ffmpeg, or set evaluation.videos=false"
    yield Finding("ffmpeg", "ok" if good else "note", last_line(output), "" if good else fix)


def free_space(folder: Path) -> Iterator[Finding]:
    """Room for run folders, for temporary files, and for the shared memory of Ray's object store."""
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    places = [
        ("disk for runs", existing, LEAST_DISK_GIGABYTES, "free space, or write elsewhere: logging.folder=DIR"),
        ("temporary files", Path(tempfile.gettempdir()), 1.0, "free space, or write elsewhere: export TMPDIR=DIR"),
        ("shared memory", Path("/dev/shm"), LEAST_SHARED_GIGABYTES, "in a container: give it --shm-size=1g"),
    ]
    for check, place, least, fix in places:
        if place.exists():
            free = shutil.disk_usage(place).free / 1e9
            good = free >= least
            yield Finding(check, "ok" if good else "broken", f"{free:.1f} GB free at {place}", "" if good else fix)
    if not os.access(existing, os.W_OK):
        yield Finding("disk for runs", "broken", f"{existing} cannot be written", "choose another: logging.folder=DIR")


def probe(code: str, *arguments: str, environment: dict[str, str] | None = None) -> tuple[bool, str]:
    """Run Python code in a process of its own, with a deadline; whether it ended well, and what it printed.

    It runs in an empty folder, for what libraries leave behind or look for there, and with ``-P`` imports nothing from
    it.
    """
    settings = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYGAME_HIDE_SUPPORT_PROMPT": "1"} | (environment or {})
    with tempfile.TemporaryDirectory(prefix="clowder-doctor-") as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-W", "ignore", "-c", code, *arguments],
                capture_output=True,
                text=True,
                timeout=PROBE_SECONDS,
                env=settings,
                cwd=folder,
            )
        except subprocess.TimeoutExpired:
            return False, f"no answer within {PROBE_SECONDS:g} s"
    if done.returncode:
        return False, done.stdout + (done.stderr.strip() or f"ended with code {done.returncode}")
    return True, done.stdout


def last_line(text: str) -> str:
    """The line that says it: the last that is not empty."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def canonical(name: str) -> str:
    """Name of a distribution in the form in which names are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def tested_versions(constraints: Path) -> dict[str, str]:
    """Versions of constraints.txt by canonical name; empty where there is no such file."""
    try:
        lines = constraints.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonical(name.strip()): version.strip() for name, version in pairs}
