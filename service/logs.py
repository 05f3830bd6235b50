"""Structured logs: one line per state change, JSON for machines, text on a terminal.

Extra fields travel as `log.info("worker up", extra={"fields": {...}})`. Never a file name or EXIF of a
client's image, never a secret.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Literal, TextIO

import msgspec

LineHandler = logging.StreamHandler[TextIO]
Defer = Callable[[Callable[[], None]], object]

_encode = msgspec.json.Encoder(enc_hook=str).encode  # a third of the time of the standard library's


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, process, message, then the record's fields."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process
        self._second, self._stamp = 0, ""

    def format(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second, self._stamp = second, stamp
        line = {
            "time": f"{self._stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        try:
            return _encode(line).decode()
        except UnicodeEncodeError:  # half a surrogate pair, in an error's text maybe
            return json.dumps(line, default=str)


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


class TurnHandler(LineHandler):
    """Writes the lines of one turn of an event loop at its end, in one go; warnings and worse at once.

    `defer` runs what it is given when the turn is over, such as loop.call_soon.
    """

    def __init__(self, stream: TextIO, defer: Defer) -> None:
        super().__init__(stream)
        self._defer, self._thread = defer, threading.get_ident()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line until the turn is over."""
        try:
            self._lines.append(self.format(record))
            if record.levelno >= logging.WARNING or threading.get_ident() != self._thread:
                self.flush()
            elif len(self._lines) == 1:
                self._defer(self.flush)
        except Exception:  # as the library does it: a log must not end what it tells of
            self.handleError(record)

    def flush(self) -> None:
        """Write what has gathered."""
        lines, self._lines = self._lines, []
        if lines:
            self.stream.write("\n".join(lines) + self.terminator)
            self.stream.flush()


def gather_lines(handler: LineHandler, defer: Defer) -> None:
    """From now on what `handler` writes for this thread is written once a turn."""
    gathering = TurnHandler(handler.stream, defer)
    gathering.setFormatter(handler.formatter)
    handlers = logging.getLogger().handlers
    handlers[handlers.index(handler)] = gathering


def set_up_logs(
    process: str,
    log_format: Literal["auto", "json", "text"],
    log_level: str,
    stream: TextIO | None = None,
) -> LineHandler:
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
    return handler
