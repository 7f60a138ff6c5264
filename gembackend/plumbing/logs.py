"""Structured logs: one JSON object a line, UTC, with the request and prompt ids bound by contextvars."""

import logging
import sys
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

Logger = structlog.stdlib.BoundLogger

_SECRET_KEYS = frozenset(
    {"password", "old_password", "new_password", "otp", "code", "token", "authorization", "phone", "prompt", "content"}
)


def _redact(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Replace the value of any key that names something secret."""
    for key in _SECRET_KEYS & event.keys():
        event[key] = "[redacted]"
    return event


def _summarise_exception(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Turn an exception into its types and the code it passed through.

    The message stays out: drivers put arguments, and so users' text, into theirs.
    """
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info if isinstance(info, BaseException) else info[1] if isinstance(info, tuple) else None
    if error is not None:
        chain: list[dict[str, Any]] = []
        while error is not None and len(chain) < 5:
            frames = []
            trace = error.__traceback__
            while trace is not None:
                frame = trace.tb_frame.f_code
                frames.append(f"{frame.co_filename.rsplit('site-packages/', 1)[-1]}:{trace.tb_lineno} {frame.co_name}")
                trace = trace.tb_next
            chain.append({"type": f"{type(error).__module__}.{type(error).__qualname__}", "frames": frames[-12:]})
            error = error.__cause__ or error.__context__
        event["exception"] = chain
    return event


def configure(level: str, style: str, stream: TextIO | None = None) -> None:
    """Send every log of the process, also those of libraries, to one stream (standard error) in one style."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        _redact,
        _summarise_exception,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=(stream or sys.stderr).isatty())
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for library in ("aiohttp", "asyncio", "google", "grpc", "stripe"):
        logging.getLogger(library).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def logger(name: str) -> Logger:
    """A logger named after its module."""
    bound: Logger = structlog.stdlib.get_logger(name)
    return bound
