"""One way to log: key-value lines for a person on a terminal, JSON lines for a machine, always to standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog
from structlog.typing import Processor

from common.tasklog import Level, number


def configure(
    level: Level = "info",
    style: Literal["text", "json"] = "text",
    *,
    first: Processor | None = None,
    first_level: Level | None = None,
) -> None:
    """Set up logging for this process. Libraries that log through the standard module come out at WARNING and above.

    ``first`` sees every line of at least ``first_level`` before it is judged whether standard error shows it
    (`common.tasklog.TaskLogs`, `common.tasklog.Forward`).
    """
    text = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    renderer: Processor = structlog.processors.JSONRenderer() if style == "json" else text
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *((first, _AtLeast(level)) if first is not None else ()),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min(number(level), number(first_level or level))),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,  # a reload may change the level
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")


class _AtLeast:
    """Drops what standard error does not show."""

    def __init__(self, level: Level) -> None:
        self._least = number(level)

    def __call__(self, logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if number(str(event["level"])) < self._least:
            raise structlog.DropEvent
        return event
