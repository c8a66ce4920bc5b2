"""Logs: one event per line, JSON or for people, ours and the libraries' through one formatter."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog

from dormouse.errors import SettingsError

if TYPE_CHECKING:
    from structlog.typing import Processor

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def configure(*, json: bool, level: str) -> None:
    """Set up logging for this process.

    Raises:
        SettingsError: `level` is none of LEVELS.
    """
    if level.upper() not in LEVELS:
        raise SettingsError(f"DORMOUSE_LOG_LEVEL must be one of {', '.join(LEVELS)}, not {level!r}")
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # httpx tells every call at INFO, kopf every handler: noise beside our own lines.
    for noisy in ("httpx", "httpcore", "kopf", "asyncio", "aiohttp"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
