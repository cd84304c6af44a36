"""Each check says what is wrong and what to do, on real processes."""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from distributed import doctor
from distributed.versions import REQUIREMENTS, check_packages, git_commit, package_versions
from replay import table_info
from replay.table_info import poll


def test_this_process_loaded_our_own_packages():
    check_packages()
    assert package_versions()["numpy"][0].isdigit()
    assert git_commit()


def test_each_requirement_is_known_by_the_name_that_it_is_imported_by():
    names = [doctor.IMPORTED_AS.get(name, name).replace("-", "_") for name in REQUIREMENTS]
    assert [name for name in names if importlib.util.find_spec(name) is None] == []


@pytest.mark.parametrize("name", ["learner", "distributed"])
def test_a_shadowing_package_is_named(tmp_path, name):
    package = tmp_path / name
    package.mkdir()
    root = Path(doctor.__file__).parent.parent
    (package / "__init__.py").write_text(f"__path__.append({str(root / name)!r})\n")
    code = "from distributed.versions import check_packages; check_packages()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert f"the package '{name}' was loaded from {package}" in done.stderr


@pytest.mark.parametrize("check", [doctor.python_version, doctor.own_packages, doctor.ffmpeg, doctor.atari_roms])
def test_checks_pass_here(check):
    assert [finding.state for finding in check()] == ["ok"]


def test_the_replay_server_answers_on_loopback_alone(monkeypatch, capsys):
    (finding,) = doctor.replay_server()
    assert finding.state == "ok" and "127.0.0.1:" in finding.found, finding
    listened = set()

    def looked_at(address):
        for process in psutil.Process().children(recursive=True):
            listened.update(each.laddr.ip for each in process.net_connections("inet") if each.status == "LISTEN")
        return poll(address)

    monkeypatch.setattr(table_info, "poll", looked_at)
    doctor.use_a_replay_server()  # as in its own process
    assert "took an episode" in capsys.readouterr().out
    assert {address.removeprefix("::ffff:") for address in listened} == {"127.0.0.1"}


def test_a_probe_imports_nothing_of_the_folder_for_temporary_files_nor_of_the_current_one(tmp_path, monkeypatch):
    for name in ("json", "numpy", "reverb", "replay"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    assert tempfile.gettempdir() == str(tmp_path)
    assert doctor.probe("import json, os; print(os.getcwd().startswith(os.environ['TMPDIR']))") == (True, "True\n")
    assert not doctor.import_failures(["json", "numpy"])
    (finding,) = doctor.replay_server()
    assert finding.state == "ok", finding
    assert sorted(each.name for each in tmp_path.iterdir()) == ["json.py", "numpy.py", "replay.py", "reverb.py"]


def test_import_failures_survive_an_abort(tmp_path, monkeypatch):
    (tmp_path / "raises.py").write_text("raise RuntimeError('no library')\n")
    (tmp_path / "aborts.py").write_text("import os; os._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    failures = doctor.import_failures(["json", "no_such_module", "raises", "aborts"])
    assert set(failures) == {"no_such_module", "raises", "aborts"}
    assert "no library" in failures["raises"] and "ended the interpreter" in failures["aborts"]


def test_versions_are_compared_by_canonical_name(tmp_path):
    (tmp_path / "constraints.txt").write_text("# a note\nDM_Control==1.0\nnumpy==1.26.4\n")
    assert doctor.tested_versions(tmp_path / "constraints.txt") == {"dm-control": "1.0", "numpy": "1.26.4"}
    assert doctor.tested_versions(tmp_path / "absent") == {}


def test_free_space_names_the_place(tmp_path):
    findings = list(doctor.free_space(tmp_path / "not" / "yet"))
    assert str(tmp_path) in findings[0].found
    assert all(finding.fix for finding in findings if finding.state != "ok")


def test_a_probe_has_a_deadline(monkeypatch):
    monkeypatch.setattr(doctor, "PROBE_SECONDS", 0.5)
    assert doctor.probe("import time; time.sleep(30)") == (False, "no answer within 0.5 s")
    monkeypatch.setattr(doctor, "PROBE_SECONDS", 60.0)
    assert doctor.probe("print('first'); raise SystemExit(4)") == (False, "first\nended with code 4")
