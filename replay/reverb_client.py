"""Reverb's compiled half without TensorFlow's Python: the one place that knows how.

``import reverb`` imports TensorFlow: 3 s of CPU and about 440 MB. Its compiled half, ``libpybind.so``, needs only the
shared library ``libtensorflow_framework.so.2``, so loading these two by hand gives clients and servers in 0.3 s and
60 MB. This leans on the inside of dm-reverb 0.14.0 (pinned in pyproject.toml): the version and every symbol used are
checked, and ``auto`` falls back to the plain import. Which one was used is decided once for each process.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np  # noqa: F401 - libpybind.so crashes when loaded before numpy

REVERB_VERSION = "0.14.0"
_SYMBOLS = {
    "Client": ("ServerInfo", "NewSampler", "NewTrajectoryWriter", "Checkpoint"),
    "Sampler": ("GetNextTrajectory", "NUM_INFO_TENSORS"),
    "TrajectoryWriter": ("Append", "CreateItem", "EndEpisode", "Flush", "Close"),
    "ConstantChunkerOptions": (),
    "Server": ("Stop",),
    "Table": (),
    "UniformSelector": (),
    "FifoSelector": (),
    "HeapSelector": (),
    "RateLimiter": (),
    "create_default_checkpointer": (),
}
# With this name a later `import reverb` in the same process finds the library loaded and works as ever.
_MODULE = "reverb.libpybind"

_lock = threading.Lock()
_loaded: tuple[str, ModuleType] | None = None


class LoaderError(ImportError):
    """Reverb's compiled half could not be loaded as asked."""


def load(loader: str = "auto") -> ModuleType:
    """Reverb's compiled module (``Client``, ``Server``, ``ConstantChunkerOptions``, ...).

    Args:
        loader: ``light``, ``plain`` or ``auto``; the first call decides for the process, later ones get the same.

    Raises:
        LoaderError: naming what is missing and ``replay.loader=plain`` as the way out.
    """
    global _loaded
    with _lock:
        if _loaded is None:
            _bypass_proxies()
            _loaded = _load(loader)
        return _loaded[1]


def loaded_with() -> str | None:
    """``light`` or ``plain``; None before the first `load`."""
    return _loaded[0] if _loaded else None


def new_client(address: str, loader: str = "auto") -> Any:
    """A C++ client of the server at ``host:port``. Connects lazily, so it never waits and never fails here."""
    return load(loader).Client(address)


def _load(loader: str) -> tuple[str, ModuleType]:
    if loader not in ("light", "plain", "auto"):
        raise ValueError(f"replay.loader must be light, plain or auto, not {loader!r}")
    if "reverb" in sys.modules:  # somebody imported all of it already: nothing is left to save
        return "plain", _checked(sys.modules[_MODULE], "plain")
    if loader != "plain":
        try:
            return "light", _checked(_load_light(), "light")
        except (LoaderError, OSError, ImportError) as error:
            if loader == "light":
                raise LoaderError(f"{error}; replay.loader=plain avoids this at about 400 MB a process") from error
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import reverb  # noqa: F401 - it loads the library

    return "plain", _checked(sys.modules[_MODULE], "plain")


def _load_light() -> ModuleType:
    version = importlib.metadata.version("dm-reverb")
    if version != REVERB_VERSION:
        raise LoaderError(f"the light loader knows dm-reverb {REVERB_VERSION}, installed is {version}")
    framework = _package_folder("tensorflow") / "libtensorflow_framework.so.2"
    library = _package_folder("reverb") / "libpybind.so"
    for path in (framework, library):
        if not path.is_file():
            raise LoaderError(f"{path} does not exist")
    # Global, because libpybind.so leaves TensorFlow's symbols to be found among the loaded libraries.
    ctypes.CDLL(str(framework), mode=ctypes.RTLD_GLOBAL)
    spec = importlib.util.spec_from_file_location(
        _MODULE, library, loader=importlib.machinery.ExtensionFileLoader(_MODULE, str(library))
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[_MODULE] = module
    return module


def _package_folder(name: str) -> Path:
    """Folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise LoaderError(f"package {name} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def _checked(module: ModuleType, loader: str) -> ModuleType:
    missing = [
        f"{owner}.{name}" if name else owner
        for owner, names in _SYMBOLS.items()
        for name in names or ("__init__",)
        if not hasattr(getattr(module, owner, None), name)
    ]
    if missing:
        raise LoaderError(
            f"dm-reverb (loader={loader}) lacks {', '.join(missing)}; install dm-reverb=={REVERB_VERSION}"
        )
    return module


def _bypass_proxies() -> None:
    """Keep gRPC from sending loopback traffic through ``http_proxy``, as it would where that variable is set."""
    kept = os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy") or ""  # noqa: SIM112
    names = [name for name in kept.split(",") if name]
    names += [name for name in ("127.0.0.1", "localhost") if name not in names]
    os.environ["no_grpc_proxy"] = ",".join(names)  # noqa: SIM112 - gRPC reads it in lower case only
