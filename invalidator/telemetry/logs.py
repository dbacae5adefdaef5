"""Logging: JSON lines to standard output, a console form on a terminal; counted, rate-limited and redacted.

Every line has ``ts``, ``level`` and ``event``; the rest are facts. Libraries that use the standard library's
logging come through here too, as the event ``library.logged``.
"""

from __future__ import annotations

import atexit
import datetime
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, Literal

import structlog

from invalidator.telemetry.log_output import LogOutput
from invalidator.telemetry.redaction import MASK, SECRET_NAME, redact

if TYPE_CHECKING:
    from collections import Counter

    from structlog.typing import FilteringBoundLogger, Processor, WrappedLogger

Level = Literal["debug", "info", "warning", "error"]
Form = Literal["auto", "json", "console"]

REPEAT_SECONDS: Final = 10.0
"""The same warning or error is written at most once in this time."""
_SAME: Final = ("rule", "target", "error_type", "result", "reason", "code", "subject", "logger")
"""Fields that, with the event's name, make two lines the same."""
_MAX_REMEMBERED: Final = 1000
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

EventDict = MutableMapping[str, Any]


def configure(
    *,
    level: Level = "info",
    form: Form = "auto",
    counts: Counter[str],
    watch: Processor | None = None,
    descriptor: int | None = None,
) -> LogOutput:
    """Set up logging for this process; call ``close()`` of what is returned as the last thing.

    Args:
        level: lines below it are not written.
        form: ``auto`` is the console form on a terminal and JSON elsewhere.
        counts: counts every line by its level (``State.log_messages``).
        watch: is shown every line that is written, before it becomes text.
        descriptor: where lines go; standard output if not given.
    """
    descriptor = _standard_output() if descriptor is None else descriptor
    output = LogOutput(descriptor)
    render = _console(descriptor) if form == "console" or (form == "auto" and os.isatty(descriptor)) else to_json
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        Counting(counts),
        RateLimit(),
        structlog.processors.format_exc_info,
        add_timestamp,
        redact_fields,
        *([] if watch is None else [watch]),
        render,
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Sink(output),
        cache_logger_on_first_use=True,
    )
    _route_standard_library(level)
    atexit.register(output.close)
    return output


def _standard_output() -> int:
    if sys.stdout is None:
        # Started with a closed descriptor 1: the next socket gets that number, and must not get our lines.
        return os.open(os.devnull, os.O_WRONLY)
    try:
        return sys.stdout.fileno()
    except OSError:  # replaced by something in memory
        return 1


class _Sink:
    """What structlog calls with the finished line, by the name of the level."""

    def __init__(self, output: LogOutput) -> None:
        self.msg = self.debug = self.info = self.warning = self.error = self.critical = output.write
        self.warn = self.exception = self.fatal = output.write


class Counting:
    """Counts every line by level, before anything is held back."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Count and pass on."""
        self._counts[event["level"]] += 1
        return event


class RateLimit:
    """Lets the same warning or error through once in ten seconds; the next one says how many were held back.

    Args:
        seconds: the pause between two lines that are the same.
        clock: seconds that never go back.
    """

    def __init__(self, seconds: float = REPEAT_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._seen: dict[tuple[object, ...], tuple[float, int]] = {}  # -> (written at, held back since)

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Pass on, or drop the line."""
        if event["level"] in ("debug", "info"):
            return event
        same = (event.get("event"), *(_hashable(event.get(name)) for name in _SAME))
        now = self._clock()
        written_at, held_back = self._seen.get(same, (float("-inf"), 0))
        if now - written_at < self._seconds:
            self._seen[same] = (written_at, held_back + 1)
            raise structlog.DropEvent
        if same not in self._seen and len(self._seen) >= _MAX_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._seen[same] = (now, 0)
        if held_back:
            event["suppressed"] = held_back
        return event


def add_timestamp(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put ``ts``, ``level`` and ``event`` first, so that lines can be read without a tool."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"ts": now, "level": event.pop("level"), "event": event.pop("event"), **event}


def redact_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Take secrets out of every field, by its name and by what it holds."""
    return {name: MASK if SECRET_NAME.search(name) else _redacted(value) for name, value in event.items()}


def to_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """One object on one line."""
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"), default=str)


def _redacted(value: object) -> object:
    match value:
        case str():
            return redact(value)
        case None | bool() | int() | float():
            return value
        case dict():
            return {str(k): MASK if SECRET_NAME.search(str(k)) else _redacted(v) for k, v in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_redacted(item) for item in value]
        case _:
            return redact(str(value))


def _hashable(value: object) -> object:
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def _console(descriptor: int) -> Processor:
    colors = os.isatty(descriptor) and not os.environ.get("NO_COLOR")
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors,
        timestamp_key="ts",
        pad_event_to=20,
        sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )

    def render(logger: WrappedLogger, method: str, event: EventDict) -> str:
        event["ts"] = datetime.datetime.now().astimezone().strftime("%H:%M:%S")
        # What a server put into an error must not steer the terminal.
        shown = {name: _visible(value) for name, value in event.items()}
        return str(renderer(logger, method, shown))

    return render


def _visible(value: object) -> object:
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value) if isinstance(value, str) else value


class _LibraryHandler(logging.Handler):
    """Turns a record of the standard library into an event."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._log.log(
                record.levelno,
                "library.logged",
                logger=record.name,
                message=record.getMessage(),
                exc_info=record.exc_info,
            )
        except Exception:  # noqa: BLE001  (logging must not break what it reports on; see logging.Handler)
            self.handleError(record)


def _route_standard_library(level: Level) -> None:
    root = logging.getLogger()
    for handler in [*root.handlers]:
        if isinstance(handler, _LibraryHandler):
            root.removeHandler(handler)
    root.addHandler(_LibraryHandler(structlog.get_logger("library")))
    # Libraries tell their users' developers things at INFO; ours tell operators.
    root.setLevel("DEBUG" if level == "debug" else "WARNING")
    logging.captureWarnings(capture=True)
