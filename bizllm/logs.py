"""Logs as JSON lines: one event a line with its run, step and unit. Row text, keys and model output never come here.

`BIZLLM_LOG` is the least level that is written: debug, info, warning (default), error, off. `BIZLLM_LOG_FILE` names a
file to append to; stderr otherwise. Both reach the workers through the environment.

    log = logs.get(__name__, run_id=run_id)
    log.info("unit_done", step="sales", unit="00012", rows=50_000, seconds=31.2)
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bizllm.errors import safe_text

Value = str | int | float | bool | None

_ROOT = "bizllm"
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "off": logging.CRITICAL + 1,
}
_MAX_TEXT = 500  # a longer text is no name, count or code


@dataclass(frozen=True)
class Logger:
    """Writes events with the fields it was made with. Plain data, so that it travels to workers."""

    name: str
    context: dict[str, Value] = field(default_factory=dict)

    def bind(self, **context: Value) -> Logger:
        """A logger that adds these fields to every event."""
        return Logger(self.name, {**self.context, **context})

    def debug(self, event: str, **fields: Value) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Value) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Value) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Value) -> None:
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, Value]) -> None:
        logger = _configured()
        if logger.isEnabledFor(level):
            logger.log(level, event, extra={"logger": self.name, "fields": {**self.context, **fields}})


def get(name: str = _ROOT, **context: Value) -> Logger:
    """A logger for a module, with fields for all its events."""
    return Logger(name, dict(context))


class JsonLines(logging.Formatter):
    """A record as one line of JSON. Of foreign exceptions only type and place, the text only with BIZLLM_DEBUG."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": getattr(record, "logger", record.name),
        }
        line |= {name: _plain(value) for name, value in getattr(record, "fields", {}).items() if name not in line}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            line["exception"] = safe_text(error)
            if os.environ.get("BIZLLM_DEBUG"):
                line["traceback"] = "".join(traceback.format_exception(error))
        return json.dumps(line, ensure_ascii=False)


class _ToStderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what stderr is at that moment: a progress bar or a test may have replaced it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _configured() -> logging.Logger:
    """The package's logger; set up on first use in each process, unless an application has done so."""
    logger = logging.getLogger(_ROOT)
    if not logger.handlers:
        path = os.environ.get("BIZLLM_LOG_FILE")
        handler: logging.Handler = logging.FileHandler(path, encoding="utf-8", delay=True) if path else _ToStderr()
        handler.setFormatter(JsonLines())
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(_LEVELS.get(os.environ.get("BIZLLM_LOG", "").lower(), logging.WARNING))
    return logger


def _plain(value: object) -> object:
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT else value[: _MAX_TEXT - 1] + "…"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, int | float) else str(value)
