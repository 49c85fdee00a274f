"""Logging as a process is told: lines for people, or one JSON object a line with the case's id where there is one."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# Our messages name their case so; a JSON log can then be searched by it.
_CASE: Final = re.compile(r"\bcase ([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})\b")
# Chatty about what our own lines say better.
_QUIET: Final = ("alembic", "kombu", "celery.utils", "celery.worker.strategy", "amqp", "c2pa", "urllib3", "opentelemetry")


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message; case, exception and trace where there are such."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        message = record.getMessage()
        body = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
            "process": record.process,
        }
        if (case := _CASE.search(message)) is not None:
            body["case"] = case[1]
        if record.exc_info:
            body["exception"] = self.formatException(record.exc_info)
        if (trace := _trace()) is not None:
            body["trace"] = trace
        return json.dumps(body, ensure_ascii=False)


def _trace() -> str | None:
    """The id of the trace in hand, where traces are made (the library is loaded then)."""
    library: Any = sys.modules.get("opentelemetry.trace")
    context = None if library is None else library.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context is not None and context.is_valid else None


def set_up(kind: str, stream: TextIO) -> None:
    """Sends every logger's lines to `stream`: `json`, else text.  Called once, by a command."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if kind == "json" else logging.Formatter(_TEXT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
