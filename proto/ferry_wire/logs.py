"""Logging to standard error: one line an event, with its time in UTC and what it is about as key=value.

    2026-11-21T11:31:23.123456Z info    uplink: stream ended address=127.0.0.1:7000 reason='deposed'

structlog's loggers and the standard library's both come out so. Libraries are heard from ``warning`` on.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

PACKAGES: Final = ("ferry_wire", "ferry_agent", "ferry_witness", "ferry_coordinator")
"""Packages that log through the standard library."""

_ROOT: Final = "ferry"
"""Parent of structlog's loggers; not shown."""

_PLAIN = frozenset("=\"' \n\t")


def configure_logging(level: str) -> None:
    """Send all logging to standard error; ``level`` (debug, info, warning, error) is what is ours."""
    number = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_ANNOTATIONS,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))
    for name in (_ROOT, *PACKAGES):
        logging.getLogger(name).setLevel(number)
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[*_ANNOTATIONS, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=_logger,
        wrapper_class=structlog.make_filtering_bound_logger(number),
    )


def _logger(name: str = "main") -> logging.Logger:
    return logging.getLogger(f"{_ROOT}.{name}")


_ANNOTATIONS: Final[list[structlog.typing.Processor]] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


def _render(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    time, level, name = event.pop("timestamp"), event.pop("level"), event.pop("logger")
    traceback = event.pop("exception", None)
    what = _indented(str(event.pop("event")))
    values = "".join(f" {key}={_value(value)}" for key, value in event.items())
    line = f"{time} {level:<7} {name.removeprefix(f'{_ROOT}.')}: {what}{values}"
    return f"{line}\n{traceback}" if traceback else line


def _value(value: Any) -> str:
    text = str(value)
    return repr(text) if not text or _PLAIN & set(text) else text


def _indented(text: str) -> str:
    """So that no text passes for a line of its own."""
    return text.replace("\n", "\n    ")
