"""Configures logs on stderr, because stdout is for data: one JSON object a line, or short lines
for people on a terminal.
"""

import logging
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

_COMMON_PROCESSORS: Final[tuple[Processor, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    # Without local variables, because they contain keys, secrets and requests.
    structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
)
_JSON: Final = structlog.processors.JSONRenderer()
_CLOCK: Final = slice(11, 19)  # the time of day in an ISO timestamp
FAILOVER: Final = "failover"
# A terminal shows these sentences for events with many fields; JSON lines have all fields.
_SENTENCES: Final = {
    "alert": "{severity} alert: {title}; next: {next}",
    FAILOVER: "failover: route {route} left {target} ({failure_class}) for {next_target}",
}
REPEATED_AFTER_S: Final = 10.0


class RepeatFilter:
    """Logs one failover of each kind in ten seconds, and counts the others."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        # Maps a kind to its last log time and the count of failovers since.
        self._shown: dict[tuple[object, ...], tuple[float, int]] = {}

    def __call__(
        self,
        _logger: WrappedLogger,
        _method: str,
        event: EventDict,
    ) -> EventDict:
        if event.get("event") != FAILOVER:
            return event
        kind = (
            event.get("route"),
            event.get("target"),
            event.get("failure_class"),
        )
        now_s = self._now_s()
        shown_s, left_out = self._shown.get(kind, (-REPEATED_AFTER_S, 0))
        if now_s - shown_s < REPEATED_AFTER_S:
            self._shown[kind] = shown_s, left_out + 1
            raise structlog.DropEvent
        self._shown[kind] = now_s, 0
        return {**event, "left_out": left_out}


def format_line(
    _logger: WrappedLogger,
    _method: str,
    event: EventDict,
) -> str:
    """Formats a log event as one line for people. Of a traceback, it shows the last place."""
    fields = dict(event)
    clock = str(fields.pop("timestamp", ""))[_CLOCK]
    level = str(fields.pop("level", "info"))
    if (sentence := _SENTENCES.get(str(fields.get("event")))) is not None:
        value_texts = {name: _format_value(value) for name, value in fields.items()}
        text = sentence.format_map(defaultdict(lambda: "?", value_texts))
        omitted_note = (
            f", and {fields['left_out']:,} more before it" if fields.get("left_out") else ""
        )
        return _make_printable(f"{clock}  {level:<7}  {text}{omitted_note}")
    words = str(fields.pop("event", "")).replace("_", " ")
    for error in fields.pop("exception", ()):
        frames = error.get("frames") or [{}]
        place = f"{frames[-1].get('filename', '?')}:{frames[-1].get('lineno', '?')}"
        fields["error"] = f"{error.get('exc_type')}: {error.get('exc_value')} ({place})"
    text = ", ".join(
        f"{name.replace('_', ' ')}: {_format_value(value)}" for name, value in fields.items()
    )
    return _make_printable(f"{clock}  {level:<7}  {words}{': ' if text else ''}{text}")


def _make_printable(line: str) -> str:
    """Replaces control characters, because a line may contain a provider's text."""
    return "".join(character if character.isprintable() else " " for character in line)


def _format_value(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return str(value)


def configure(*, level: int | None = None, terminal: bool | None = None) -> None:
    """Configures the logs of a serving process. Libraries log only warnings, on a terminal only
    errors. Logs never contain the content of requests.

    Args:
        level: our minimum level; by default INFO, on a terminal WARNING.
        terminal: whether people read the lines; by default whether stderr is a terminal.
    """
    if terminal is None:
        terminal = sys.stderr.isatty()
    if level is None:
        level = logging.WARNING if terminal else logging.INFO
    render = format_line if terminal else _JSON
    libraries = logging.StreamHandler(sys.stderr)
    libraries.setFormatter(
        ProcessorFormatter(
            processors=[ProcessorFormatter.remove_processors_meta, render],
            foreign_pre_chain=_COMMON_PROCESSORS,
        )
    )
    logging.basicConfig(
        handlers=[libraries],
        level=logging.ERROR if terminal else logging.WARNING,
    )
    structlog.configure(
        processors=[
            *([RepeatFilter()] if terminal else []),
            *_COMMON_PROCESSORS,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def log_through_application() -> None:
    """Sends our logs to the host application's logging, because structlog would print them to
    stdout. Keeps the application's structlog configuration.
    """
    if not structlog.is_configured():
        structlog.configure(
            processors=[*_COMMON_PROCESSORS, _JSON],
            wrapper_class=structlog.stdlib.BoundLogger,
            logger_factory=structlog.stdlib.LoggerFactory(),
        )
