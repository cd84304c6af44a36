from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.task import TaskSpec
from replay.config import ReplayConfig
from replay.listen_address import listening_addresses
from replay.server import ServerHandle, start_replay_server

CODE = """
import json, os, psutil, sys
sys.path.insert(0, {folder!r})
from conftest import make_episode, make_task
from replay import reverb_client
from replay.config import ReplayConfig
from replay.sampler import WindowSampler
from replay.writer import EpisodeWriter
{before}
config = ReplayConfig(loader={loader!r}, poll_seconds=0.1)
task = make_task("loader")
writer = EpisodeWriter({address!r}, task, "online", config)
writer.write_episode(**make_episode(task, 30, 1))
assert writer.close(10)
sampler = WindowSampler({address!r}, task, "online", config)
window = sampler.get(20)
{after}
print(json.dumps({{
    "loader": reverb_client.loaded_with(),
    "tensorflow": "tensorflow" in sys.modules,
    "episode": window.metadata.episode_id,
    "megabytes": psutil.Process().memory_info().rss / 2**20,  # ru_maxrss would begin with the parent's
}}))
"""


def run(
    server: ServerHandle, loader: str, before: str = "", after: str = "", environment: dict[str, str] | None = None
) -> dict[str, object]:
    code = CODE.format(
        folder=str(Path(__file__).parent), address=server.address, loader=loader, before=before, after=after
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    answer: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    assert answer["episode"] == "e1"
    return answer


def test_light(server: ServerHandle) -> None:
    # A proxy that is set for the web must not swallow loopback traffic.
    answer = run(server, "light", environment={"http_proxy": "http://127.0.0.1:9", "no_proxy": "", "no_grpc_proxy": ""})
    assert answer["loader"] == "light" and not answer["tensorflow"]
    assert float(str(answer["megabytes"])) < 150


SIGNATURE = """
from tensorflow import TensorSpec
from tensorflow.python.saved_model import nested_structure_coder
from replay.signature import encode_signature
from replay.tables import table_configs
signature = table_configs([make_task("loader")], ReplayConfig())[0].signature
theirs = nested_structure_coder.encode_structure(
    {name: TensorSpec(shape, dtype, name) for name, (dtype, shape) in signature.items()}
)
assert type(theirs).FromString(encode_signature(signature)) == theirs
"""


@pytest.mark.parametrize(
    "before",
    [
        'reverb_client.REVERB_VERSION = "0.15.0"',
        'reverb_client._SYMBOLS["Client"] += ("Telepathy",)',
    ],
)
def test_a_light_loader_that_does_not_fit_is_refused_with_the_way_out(server: ServerHandle, before: str) -> None:
    with pytest.raises(AssertionError, match=r"LoaderError.*replay\.loader=plain"):
        run(server, "light", before)


def test_auto_falls_back_to_plain(server: ServerHandle) -> None:
    """The plain client works, and TensorFlow reads our signature as its own."""
    answer = run(server, "auto", 'reverb_client.REVERB_VERSION = "0.15.0"', after=SIGNATURE)
    assert answer["loader"] == "plain" and answer["tensorflow"]


def test_a_plain_server(task: Callable[..., TaskSpec]) -> None:
    with start_replay_server([task("loader")], ReplayConfig(loader="plain")) as server:
        assert listening_addresses(server.port) == {"127.0.0.1"}
        assert run(server, "light")["loader"] == "light"
