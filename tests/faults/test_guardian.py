"""The guardian ends what its parent started, whatever lies in the folder that it was started in."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
PARENT = """
import subprocess, sys, time
from distributed.guardian import Guardian

guardian = Guardian()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(90)"], start_new_session=True)
print(guardian._process.pid, child.pid, flush=True)
sys.stdin.readline()
guardian.dismiss()
print(guardian._process.returncode, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("dismissed", [False, True])
def test_a_guardian_kills_what_its_parent_left_unless_it_was_dismissed(tmp_path, dismissed):
    foreign = tmp_path / "foreign"
    for name in ("psutil", "select", "contextlib", "distributed"):
        (foreign / name).mkdir(parents=True)
        (foreign / name / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], cwd=foreign, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    guardian, child = (psutil.Process(int(pid)) for pid in parent.stdout.readline().split())
    try:
        if dismissed:
            parent.stdin.write("\n")
            parent.stdin.flush()
            assert parent.stdout.readline() == "0\n"
        else:
            assert not psutil.wait_procs([guardian], timeout=5.0)[0]  # it has looked at least once
        parent.kill()
        parent.wait(10)
        assert not psutil.wait_procs([guardian], timeout=30)[1]
        assert child.is_running() == dismissed
    finally:
        parent.kill()
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    assert not (tmp_path / "ran").exists()
