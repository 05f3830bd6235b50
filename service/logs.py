"""Structured logs: one line per state change, JSON for machines, text on a terminal.

Extra fields travel as `log.info("worker up", extra={"fields": {...}})`. Never a file name or EXIF of a
client's image, never a secret.
"""

import json
import logging
import sys
import time
from typing import Literal, TextIO

_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode  # json.dumps would build one for each line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, process, message, then the record's fields."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _encode(line)


class TextFormatter(logging.Formatter):
    """The same for people: clock, level, process, message, key=value."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = " ".join(f"{key}={value}" for key, value in getattr(record, "fields", {}).items())
        text = (
            f"{clock} {record.levelname.lower():7} {self._process:12} {record.getMessage()} {fields}".rstrip()
        )
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def set_up_logs(
    process: str,
    log_format: Literal["auto", "json", "text"],
    log_level: str,
    stream: TextIO | None = None,
) -> None:
    """Send every log of this process to `stream`, stderr if None; `process` names it, such as `frontend-0`.

    A child gives its stdout, which is the supervisor's stderr; its own stderr holds its last words.
    """
    stream = stream or sys.stderr
    is_text = log_format == "text" or (log_format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter(process) if is_text else JsonFormatter(process))
    # Our lines never name threads, tasks or source lines; finding those out is half the cost of a line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # documented in logging's howto, "Optimization"
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(log_level.upper())
