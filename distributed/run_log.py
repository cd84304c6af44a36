"""`run_log`: where the coordinator's log goes while a run lasts: all to its file, warnings to the console too."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from actors.redaction import redact

OURS = ("agent", "actors", "learner", "replay", "distributed")


class _Redacting(logging.Formatter):
    """Leaves secrets out of messages and tracebacks alike."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _Saying(logging.Handler):
    """Hands each record's text to a function."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "told", False):  # by who logged it
            self._say(self.format(record))


@contextlib.contextmanager
def run_log(path: Path, level: str, say: Callable[[str], None]) -> Iterator[None]:
    """Log our packages from ``level`` on to ``path`` (appended), and warnings through ``say``, until the block ends."""
    file = logging.FileHandler(path)
    file.setFormatter(_Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    told = _Saying(say)
    loggers = [logging.getLogger(name) for name in OURS]
    for logger in loggers:
        logger.setLevel(level.upper())
        logger.propagate = False
        logger.addHandler(file)
        logger.addHandler(told)
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException:
        file.handle(_failure(sys.exc_info()))
        raise
    finally:
        for logger in loggers:
            logger.propagate = True
            logger.removeHandler(file)
            logger.removeHandler(told)
        file.close()


def _failure(error: Any) -> logging.LogRecord:
    """A record with the traceback: for the file alone, since the caller tells the user."""
    return logging.LogRecord(__name__, logging.ERROR, __file__, 0, "the run failed", None, error)
