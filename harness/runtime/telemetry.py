"""Configures logs: one JSON object a line on stderr, as stdout belongs to data. In somebody
else's process (`leave_to_the_application`) its own logging decides.
"""

import logging
import sys
from typing import Final

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import Processor

_SAID_OF_ALL: Final[tuple[Processor, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    # Without local variables: keys, secrets and the content of requests are among them.
    structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
)
_JSON: Final = structlog.processors.JSONRenderer()


def configure(*, level: int = logging.INFO) -> None:
    """Configures the logs of a process that serves; of libraries, warnings alone are logged.
    Content of requests never is.
    """
    libraries = logging.StreamHandler(sys.stderr)
    libraries.setFormatter(
        ProcessorFormatter(
            processors=[ProcessorFormatter.remove_processors_meta, _JSON],
            foreign_pre_chain=_SAID_OF_ALL,
        )
    )
    logging.basicConfig(handlers=[libraries], level=logging.WARNING)
    structlog.configure(
        processors=[*_SAID_OF_ALL, _JSON],
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
