"""`RunFolder`: what a run leaves on disk, and how a running coordinator is found, watched and stopped.

runs/<name>/
    config.yaml           the resolved configuration
    run.json              versions, git commit, command line, seed, start; one entry more for each resume
    coordinator.json      process of the coordinator; locked while it lives
    status.json           phase and newest metrics
    fleet.json            numbers of actors asked for by `clowder fleet`
    checkpoints/  tensorboard/  videos/
    result.json  learning_curves.png  train.log
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
import platform
import re
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from actors.demonstrations import whole_files
from actors.redaction import redact
from distributed.errors import ConfigError, RunFolderError, nearest

PHASES = ("created", "starting", "training", "evaluating", "finished", "interrupted", "failed")


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Paths of one run. Make it by `create` or `open`."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The resolved configuration, YAML."""
        return self.path / "config.yaml"

    @property
    def info(self) -> Path:
        """Versions, commit, command lines."""
        return self.path / "run.json"

    @property
    def coordinator(self) -> Path:
        """Process of the coordinator."""
        return self.path / "coordinator.json"

    @property
    def status(self) -> Path:
        """Phase and newest metrics."""
        return self.path / "status.json"

    @property
    def fleet(self) -> Path:
        """Numbers of environment actors that were asked for while the run goes on."""
        return self.path / "fleet.json"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints, see ``docs/checkpoints.md``."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def metrics(self) -> Path:
        """Rows of scalars, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def videos(self) -> Path:
        """A video per task."""
        return self.path / "videos"

    @property
    def result(self) -> Path:
        """Result of the final evaluation."""
        return self.path / "result.json"

    @property
    def curves(self) -> Path:
        """Learning curves."""
        return self.path / "learning_curves.png"

    @property
    def log(self) -> Path:
        """Log of the coordinator and what workers told it."""
        return self.path / "train.log"

    @classmethod
    def create(cls, path: Path, config: dict[str, Any], command_line: Sequence[str]) -> RunFolder:
        """Make the folder and describe the run in it; RunFolderError where it exists."""
        import yaml

        try:
            path.mkdir(parents=True, exist_ok=False)
        except FileExistsError:
            raise RunFolderError(
                f"the run folder {path} exists; go on with it (clowder train --resume {path}) or choose another --name"
            ) from None
        except OSError as error:
            raise RunFolderError(f"cannot make the run folder {path}: {error.strerror}") from error
        run = cls(path.resolve())
        for folder in (run.checkpoints, run.tensorboard, run.videos):
            folder.mkdir()
        write_whole(run.config, yaml.safe_dump(config, sort_keys=False))
        described = {"schema": 1, "name": run.name, "seed": config.get("seed"), "starts": [_start(command_line, [])]}
        write_whole(run.info, json.dumps(described, indent=2))
        run.write_status("created", {})
        return run

    @classmethod
    def open(cls, path: str | Path, folder: str | Path = "runs") -> RunFolder:
        """An existing run, by its path or by its name in ``folder``; RunFolderError where it is none."""
        for candidate in (Path(path), Path(folder) / path):
            if (candidate / "config.yaml").is_file():
                return cls(candidate.resolve())
        if Path(path).is_dir():
            raise RunFolderError(f"{path} is not a run folder: it has no config.yaml")
        known = [each.parent.name for each in Path(folder).glob("*/config.yaml")]
        raise RunFolderError(f"there is no run {path}; {nearest(str(path), known, f'runs in {folder}')}")

    def check_links(self) -> None:
        """Raise RunFolderError where a symbolic link leads out of the folder: a run that goes on would write there."""
        for path in self.path.rglob("*"):
            if path.is_symlink() and not path.resolve().is_relative_to(self.path):
                raise RunFolderError(
                    f"{path} is a symbolic link to {path.resolve()}, outside of the run folder, where a resumed run "
                    "would write; put in its place what it leads to"
                )

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration as plain data; RunFolderError where it is not YAML."""
        from distributed.yaml_file import read_yaml

        try:
            data = read_yaml(self.config)
        except ConfigError as error:
            raise RunFolderError(f"{self.config} cannot be read: {error}") from error
        if not isinstance(data, dict):
            raise RunFolderError(f"{self.config} is empty or not a mapping")
        if "${" in json.dumps(data):  # Clowder writes what it resolved
            raise RunFolderError(
                f"{self.config} has an interpolation (${{...}}), which would read this machine's environment; "
                "write what it stands for"
            )
        return data

    def write_resumed(self, config: dict[str, Any], command_line: Sequence[str], changed: Sequence[str]) -> None:
        """Record a resume: the configuration now in force and one more entry in run.json."""
        import yaml

        info = read_json(self.info) or {"schema": 1, "name": self.name, "seed": config.get("seed"), "starts": []}
        info["starts"].append(_start(command_line, changed))
        write_whole(self.info, json.dumps(info, indent=2))
        write_whole(self.config, yaml.safe_dump(config, sort_keys=False))
        self.fleet.unlink(missing_ok=True)  # the configuration now says how many actors there are

    def write_fleet(self, sizes: dict[str, int]) -> None:
        """Ask the coordinator for so many environment actors, by short name of the task."""
        write_whole(self.fleet, json.dumps(sizes))

    def read_fleet(self) -> dict[str, int]:
        """What `write_fleet` asked for; empty where it did not."""
        asked = read_json(self.fleet) or {}
        return {name: count for name, count in asked.items() if type(count) is int and count >= 0}

    def write_status(self, phase: str, metrics: dict[str, float]) -> None:
        """Replace status.json. ``phase`` is one of `PHASES`; metrics as the console takes them."""
        if phase not in PHASES:
            raise ValueError(f"phase must be one of {', '.join(PHASES)}, not {phase!r}")
        finite = {key: value for key, value in metrics.items() if value == value and abs(value) != float("inf")}
        write_whole(self.status, json.dumps({"phase": phase, "updated_at": time.time(), "metrics": finite}))

    def write_end(self, phase: str) -> None:
        """Say with which phase the coordinator ends; the metrics stay. On a full disk too: the former text is then
        overwritten, which takes no room."""
        status = self.read_status()
        try:
            self.write_status(phase, status["metrics"])
        except OSError:
            text = json.dumps(status | {"phase": phase, "updated_at": int(time.time())})
            with self.status.open("r+") as file:
                file.write(text.ljust(self.status.stat().st_size))

    def read_status(self) -> dict[str, Any]:
        """Newest phase and metrics; what is still said to go on in a dead process reads ``died``."""
        status = read_json(self.status) or {"phase": "created", "updated_at": 0.0, "metrics": {}}
        if status["phase"] in ("created", "starting", "training", "evaluating") and self.process() is None:
            status["phase"] = "died" if status["phase"] != "created" else "not started"
        return status

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Be this run's only coordinator; RunFolderError where another one has it."""
        with open(self.coordinator, "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunFolderError(
                    f"{self.name} is in use by process {(read_json(self.coordinator) or {}).get('pid', '?')}; "
                    f"stop it first: clowder stop {self.path}"
                ) from None
            file.truncate(0)
            me = psutil.Process()
            json.dump({"pid": me.pid, "started": _beginning(me), "host": socket.gethostname()}, file)
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    def process(self) -> psutil.Process | None:
        """The coordinator, where it lives on this machine; a reused process id is not taken for it."""
        said = read_json(self.coordinator)
        if not said or said.get("host") != socket.gethostname():
            return None
        try:
            process = psutil.Process(int(said["pid"]))
            if not _began(process, said["started"]) or process.status() == psutil.STATUS_ZOMBIE:
                return None
            return process
        except (psutil.Error, KeyError, TypeError, ValueError):
            return None

    def stop(self, deadline: float) -> bool:
        """Ask the coordinator to end, as Ctrl-C does; False where it still lives after ``deadline`` seconds."""
        process = self.process()
        if process is None:
            said = read_json(self.coordinator) or {}
            elsewhere = said.get("host") not in (None, socket.gethostname())
            raise RunFolderError(
                f"{self.name} runs on {said['host']}; call clowder stop there"
                if elsewhere
                else f"{self.name} is not running"
            )
        process.send_signal(signal.SIGINT)
        try:
            process.wait(deadline)
        except psutil.TimeoutExpired:
            return False
        except psutil.NoSuchProcess:
            pass
        return True


def default_name(experiment: str | None, folder: str | Path) -> str:
    """``<experiment>-<date>-<time>``, with a number where two runs start in one second."""
    stem = f"{experiment or 'run'}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 100))]
    return next(name for name in names if not (Path(folder) / name).exists())


def check_name(name: str) -> str:
    """The name, if it can be a folder's."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.=+-]*", name):
        raise RunFolderError(f"a run's name is made of letters, digits and _ . = + -, not {name!r}")
    return name


def write_whole(path: Path, text: str) -> None:
    """Write a file, without secrets, so that a reader sees the old text or the new, never a part."""
    whole_files.write_whole(path, redact(text).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is no whole one."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _beginning(process: psutil.Process) -> str | float:
    """When a process began, to tell it from a later one with its id: the boot, and the kernel's ticks since then.

    The wall clock does not come in, which may be set while the process lives. Where there is no /proc: psutil's time.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        stat = Path(f"/proc/{process.pid}/stat").read_bytes()
    except OSError:
        return process.create_time()
    # proc(5): the 22nd field; the second, a name in parentheses, may hold anything.
    return f"{boot} {int(stat.rpartition(b')')[2].split()[19])}"


def _began(process: psutil.Process, said: str | float) -> bool:
    """Whether `_beginning` said so; earlier versions wrote psutil's time."""
    if isinstance(said, str):
        return _beginning(process) == said
    return abs(process.create_time() - said) <= 1.0


def _start(command_line: Sequence[str], changed: Sequence[str]) -> dict[str, Any]:
    """One entry of ``starts`` in run.json."""
    from distributed.versions import git_commit, package_versions

    return {
        "started_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command_line": list(command_line),
        "changed": list(changed),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "git_commit": git_commit(),
        "versions": package_versions(),
    }
