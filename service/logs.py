"""What a service writes to stderr: a line a call, for people or as JSON.

A line holds methods, codes, milliseconds and request ids; never a sketch, a photo id, or a path of this machine.
"""

import json
import logging
import re
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final

FORMATS: Final = ("human", "json")

_request_id: ContextVar[str] = ContextVar("request_id", default="")

_GIVEN_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
"""Of a caller; what is longer or holds more could forge lines of the log."""


def begin_request(given: str = "") -> str:
    """Names the request that this task works on from here on, as its caller named it where that is fit for a log."""
    request_id = given if _GIVEN_ID.fullmatch(given) else uuid.uuid4().hex[:12]
    _request_id.set(request_id)
    return request_id


def request_id() -> str:
    """Of the request that this task works on; a new one outside of any."""
    return _request_id.get() or uuid.uuid4().hex[:12]


def set_up_logging(form: str, level: int = logging.INFO) -> None:
    """Write this process's log to stderr in one of `FORMATS`, unless somebody has set logging up already."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines() if form == "json" else _HumanLines())
    logging.basicConfig(level=level, handlers=[handler])


class _HumanLines(logging.Formatter):
    """Time, level, what happened, and its fields as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return " ".join([super().formatMessage(record), *(f"{n}={v}" for n, v in _fields(record).items())])


class _JsonLines(logging.Formatter):
    """One JSON object a line, UTC."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What was given as `extra={"fields": ...}`, and the request's id where there is one."""
    about: dict[str, object] = {"request_id": _request_id.get()} if _request_id.get() else {}
    return about | getattr(record, "fields", {})
