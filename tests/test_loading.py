"""What is read from disk is data: no module unpickles, unpacks archives, or makes code of text, but for those named."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agent", "actors", "benchmarks", "configs", "distributed", "learner", "replay", "studies", ".ci")

UNPICKLING = ("pickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle", "pickle5")
"""Modules that are not imported."""
CALLS = (
    "torch.load", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter", "pandas.read_pickle",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load", "yaml.unsafe_load_all",
    "eval", "exec", "compile", "__import__", "importlib.import_module", "runpy.run_path", "runpy.run_module",
    "os.system", "os.popen", "shutil.unpack_archive", "hydra.utils.instantiate", "hydra.utils.get_object",
    "omegaconf.OmegaConf.register_new_resolver",
)  # fmt: skip
"""Functions that are not called."""
METHODS = ("extract", "extractall")
"""Of archives; they write where the archive says."""
NUMPY = ("numpy.load", "numpy.lib.format.read_array", "numpy.lib.npyio.NpzFile")
"""Read with a literal ``allow_pickle=False`` only."""

ALLOWED = {
    ("actors/demonstrations/open_set.py", "importlib.import_module"): "an adapter out of the table of adapters",
    ("actors/environments/make.py", "importlib.import_module"): "an adapter out of the table of adapters",
    ("actors/environments/gymnasium_any.py", "importlib.import_module"): "the user's entry point; a constant table",
    ("actors/environments/mujoco_pictures.py", "importlib.import_module"): "mujoco.*, by the user's MUJOCO_GL",
    ("actors/experts/make.py", "importlib.import_module"): "an expert out of the table of experts",
    ("benchmarks/experts.py", "importlib.import_module"): "a constant",
    ("distributed/cli.py", "importlib.import_module"): "a command of the command line, an installed one among them",
}
"""Why a module may all the same."""


def findings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """What a module imports or calls of the above, with its line."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
                      for alias in node.names}  # fmt: skip
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            imported = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from ((name, node.lineno) for name in imported if name.split(".")[0] in UNPICKLING)
    for node in ast.walk(tree):
        # Taken without being called too, as in map(eval, lines).
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            name = dotted(node, names)
            if name in CALLS or (isinstance(node, ast.Attribute) and node.attr in METHODS):
                yield name or node.attr, node.lineno
        if isinstance(node, ast.Call):
            name = dotted(node.func, names)
            constants = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
            if name in NUMPY and constants.get("allow_pickle") is not False:
                yield name, node.lineno
            if constants.get("shell"):
                yield "shell=True", node.lineno
            if constants.get("allow_pickle"):
                yield "allow_pickle=True", node.lineno


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """``numpy.load`` for ``np.load``; empty for what is no such name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([names.get(node.id, node.id), *reversed(parts)]) if isinstance(node, ast.Name) else ""


def test_no_module_loads_more_than_data():
    used, modules = set(), 0
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            modules += 1
            where = path.relative_to(ROOT).as_posix()
            for what, line in findings(ast.parse(path.read_text())):
                assert (where, what) in ALLOWED, f"{where}:{line} uses {what}"
                used.add((where, what))
    assert modules > 150
    assert used == ALLOWED.keys(), "allowed, and not needed any more"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", "pickle"),
        ("from cloudpickle import loads", "cloudpickle"),
        ("import torch\ntorch.load(path, weights_only=True)", "torch.load"),
        ("from torch import load as read\nread(path)", "torch.load"),
        ("import numpy as np\nnp.load(path)", "numpy.load"),
        ("import numpy as np\nnp.load(path, allow_pickle=flag)", "numpy.load"),
        ("import numpy as np\nnp.save(path, x, allow_pickle=True)", "allow_pickle=True"),
        ("import numpy as np\nnp.lib.format.read_array(file)", "numpy.lib.format.read_array"),
        ("import yaml\nyaml.load(text, yaml.SafeLoader)", "yaml.load"),
        ("eval(text)", "eval"),
        ("list(map(exec, lines))", "exec"),
        ("import importlib as i\ni.import_module(name)", "importlib.import_module"),
        ("from importlib import import_module\nimport_module(name)", "importlib.import_module"),
        ("import zipfile\nzipfile.ZipFile(path).extractall(folder)", "extractall"),
        ("import subprocess\nsubprocess.run(words, shell=True)", "shell=True"),
    ],
)
def test_what_is_looked_for_is_found(source, found):
    assert any(found in what for what, _ in findings(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import yaml\nyaml.safe_load(text)",
        "import re, torch\nre.compile(text)\ntorch.compile(model)\nmodel.eval()",
        "import json\njson.load(file)",
    ],
)
def test_what_is_harmless_is_not(source):
    assert not list(findings(ast.parse(source)))
