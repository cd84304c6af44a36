"""What the user can put right: shown as one line on stderr. Anything else keeps its traceback."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar


class ClowderError(Exception):
    """A message for the user that names the fix.

    ``exit_code`` of the command: 2 for input that is refused; a subclass for what fails later says 1.
    """

    exit_code: ClassVar[int] = 2


class Failure(ClowderError):
    """What was asked for could be tried, and did not go well."""

    exit_code = 1


class ConfigError(ClowderError):
    """A configuration that cannot be used: unknown key, option or task, wrong type, contradicting values.

    Its message is one line, whatever the user's words in it hold.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class RunFolderError(ClowderError):
    """A run folder that exists, is missing, is in use or is not one."""


@contextlib.contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn what lower floors raise about input (ValueError, a missing package or file) into a `ClowderError`.

    Only to be put around code that looks at the user's input; never around training, where a ValueError is a bug.
    """
    prefix = f"{what}: " if what else ""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = f"the package {error.name!r} is not installed; {install_hint(error.name or '')}"
        raise ClowderError(prefix + missing) from error
    except (ValueError, FileNotFoundError, ImportError) as error:
        text = str(error)
        raise ClowderError(text if text.startswith(prefix) else prefix + text) from error


def install_hint(module: str) -> str:
    """The command that installs a missing module: an extra of ours, or the package itself."""
    package = module.split(".")[0]
    extra = {"metaworld": "metaworld", "stable_baselines3": "bench", "cv2": "bench", "pytest": "dev"}.get(package)
    if extra:
        return f"install it with: pip install -c constraints.txt -e '.[{extra}]'"
    return f"install it with: pip install {package}, or repeat `make setup` if Clowder itself needs it"


def nearest(name: str, known: Iterable[str], kind: str, likely: Sequence[str] = ()) -> str:
    """A clause with the nearest of the known names, those ``likely`` for another reason first, and the list of all."""
    known = sorted(known)
    folded = {each.lower(): each for each in known}
    near = [*likely, *(folded[each] for each in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.5))]
    near += [each for each in known if name.lower() in each.lower()]
    hint = f"did you mean {' or '.join(list(dict.fromkeys(near))[:3])}? " if near else ""
    listed = known if len(known) <= 40 else [*known[:40], f"... ({len(known)} in all)"]
    return f"{hint}{kind}: {', '.join(listed) or 'none'}"


def root_cause(error: BaseException) -> str:
    """The message of what was raised inside a Ray process, without Ray's own wrapping, on one line."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        error = cause
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    text = lines[-1] if "Traceback" in str(error) and lines else " ".join(lines[:3])
    return text if text.startswith(type(error).__name__) else f"{type(error).__name__}: {text}"
