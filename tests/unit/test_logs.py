"""Exceptions in the log, in either style: their types and their way, never their words."""

import io
import logging
from collections.abc import Iterator

import pytest
import structlog

from gembackend.plumbing import logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Logging as the other tests know it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("style", ["json", "console"])
def test_an_exception_is_logged_without_its_words(style: str) -> None:
    written = io.StringIO()
    logs.configure("info", style, written)
    try:
        try:
            raise ValueError("zebra")
        except ValueError as error:
            raise KeyError("zebras") from error
    except KeyError:
        logs.logger("ours").exception("it_broke")
        logging.getLogger("theirs").exception("it broke there")
    told = written.getvalue()
    assert told.count("builtins.KeyError") == told.count("builtins.ValueError") == 2
    assert "test_logs.py" in told and "zebra" not in told
