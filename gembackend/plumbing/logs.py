"""Structured logs: one JSON object a line, UTC, with the request and prompt ids bound by contextvars."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

Logger = FilteringBoundLogger

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


def _exception_in_lines(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """For a person: an exception's chain as text, the newest first, which is what a console renderer can print."""
    if chain := event.get("exception"):
        event["exception"] = "\n".join(f"{one['type']}\n    " + "\n    ".join(one["frames"]) for one in chain)
    return event


def configure(level: str, style: str, stream: TextIO | None = None) -> None:
    """Send every log of the process, also those of libraries, to one stream (standard error) in one style."""
    output = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    prepare: list[Processor] = [structlog.contextvars.merge_contextvars, _add_time, _redact, _summarise_exception]
    if style != "json":
        prepare.append(_exception_in_lines)
    render: Processor = (
        _as_json if style == "json" else structlog.dev.ConsoleRenderer(colors=output.isatty(), event_key="event")
    )
    structlog.configure(
        processors=[structlog.processors.add_log_level, *prepare, render],
        logger_factory=structlog.WriteLoggerFactory(output),
        wrapper_class=structlog.make_filtering_bound_logger(number),
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, _add_module, *prepare],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, number))


def logger(name: str) -> Logger:
    """A logger named after its module."""
    bound: Logger = structlog.get_logger(module=name)
    return bound


def _add_module(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Say which library spoke."""
    event["module"] = event["_record"].name
    return event


def _add_time(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Say when, as RFC 3339 in UTC."""
    event["timestamp"] = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return event


def _as_json(_logger: Any, _method: str, event: EventDict) -> str:
    """One JSON object on one line: when, how bad and what first, so that a person can read down a column."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return msgspec.json.encode(first | dict(event), enc_hook=str).decode()
