"""Configures logs, on stderr, as stdout belongs to data: one JSON object a line, and on a
terminal short lines for people, warnings and errors alone. In somebody else's process
(`leave_to_the_application`) its own logging decides.
"""

import logging
import sys
from typing import Final

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

_SAID_OF_ALL: Final[tuple[Processor, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    # Without local variables: keys, secrets and the content of requests are among them.
    structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
)
_JSON: Final = structlog.processors.JSONRenderer()
_CLOCK: Final = slice(11, 19)  # of an ISO timestamp


def format_line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Formats what is logged as one line for people: time, level, event, and what it says of
    it. A traceback is one line as well: its last frame and its error.
    """
    fields = dict(event)
    clock = str(fields.pop("timestamp", ""))[_CLOCK]
    level = str(fields.pop("level", "info"))
    words = str(fields.pop("event", "")).replace("_", " ")
    for error in fields.pop("exception", ()):
        frames = error.get("frames") or [{}]
        place = f"{frames[-1].get('filename', '?')}:{frames[-1].get('lineno', '?')}"
        fields["error"] = f"{error.get('exc_type')}: {error.get('exc_value')} ({place})"
    said = ", ".join(
        f"{name.replace('_', ' ')}: {_value_text(value)}" for name, value in fields.items()
    )
    line = f"{clock}  {level:<7}  {words}{': ' if said else ''}{said}"
    # Providers' texts are in it: none may speak to the terminal.
    return "".join(sign if sign.isprintable() else " " for sign in line)


def _value_text(value: object) -> str:
    """A value as people read it; lists without their quotes."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return str(value)


def configure(*, level: int | None = None, terminal: bool | None = None) -> None:
    """Configures the logs of a process that serves; of libraries, warnings alone are logged, on
    a terminal errors. Content of requests never is.

    level: the least that is logged of ours; by default everything, on a terminal warnings.
    terminal: whether people read along; by default whether stderr is one.
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
            foreign_pre_chain=_SAID_OF_ALL,
        )
    )
    logging.basicConfig(
        handlers=[libraries], level=logging.ERROR if terminal else logging.WARNING
    )
    structlog.configure(
        processors=[*_SAID_OF_ALL, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def leave_to_the_application() -> None:
    """Leaves our logs to the application whose process this is.

    Without this, structlog would print them to stdout. What the application has configured
    already stays.
    """
    if not structlog.is_configured():
        structlog.configure(
            processors=[*_SAID_OF_ALL, _JSON],
            wrapper_class=structlog.stdlib.BoundLogger,
            logger_factory=structlog.stdlib.LoggerFactory(),
        )
