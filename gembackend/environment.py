"""The environment and its `.env` file, and typed values out of them. The only module that touches `os.environ`."""

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from dotenv import dotenv_values

T = TypeVar("T")


def read(directory: Path | None = None) -> dict[str, str]:
    """The real environment laid over the `.env` file of the working directory."""
    values = dotenv_values((directory or Path.cwd()) / ".env")
    given = {name: value for name, value in values.items() if value is not None}
    for name in given:
        if name.startswith("OTEL_"):  # most of them OpenTelemetry reads by itself, and it knows no .env
            os.environ.setdefault(name, given[name])
    return given | dict(os.environ)


def quiet_libraries() -> None:
    """Keep lines that are no logs out of the logs: gRPC's C core prints its own, Google's SDK warns of its own end.

    Both are told before they are imported; the SDK is imported by two threads at once, where `catch_warnings` fails.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    warnings.filterwarnings("ignore", category=FutureWarning)


class Reader:
    """Takes typed values out of the environment and collects what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.faults: list[str] = []

    def text(self, name: str) -> str | None:
        """The value without surrounding space, or None when unset or empty."""
        return self.environ.get(name, "").strip() or None

    def parsed(self, name: str, parse: Callable[[str], T], default: T, expects: str) -> T:
        """The value as `parse` makes it, or the default; a fault says what was expected."""
        raw = self.text(name)
        if raw is None:
            return default
        try:
            return parse(raw)
        except ValueError:
            self.faults.append(f"{name} must be {expects}")
            return default

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number from low to high."""
        return self.parsed(name, _within(int, low, high), default, f"a whole number from {low} to {high}")

    def seconds(self, name: str, default: float, low: float, high: float) -> float:
        """A number of seconds from low to high; fractions are allowed."""
        return self.parsed(name, _within(float, low, high), default, f"a number of seconds from {low:g} to {high:g}")

    def choice(self, name: str, options: tuple[str, ...], default: str) -> str:
        """One of a few words."""

        def parse(raw: str) -> str:
            if raw.lower() not in options:
                raise ValueError
            return raw.lower()

        return self.parsed(name, parse, default, "one of " + ", ".join(options))

    def url(self, name: str, schemes: tuple[str, ...]) -> str | None:
        """A URL of one of the schemes, or None when unset."""

        def parse(raw: str) -> str | None:
            parts = urlsplit(raw)
            if parts.scheme not in schemes or not (parts.netloc or parts.path.strip("/")):
                raise ValueError
            _ = parts.port
            return raw

        return self.parsed(name, parse, None, "a URL starting with " + " or ".join(f"{s}://" for s in schemes))

    def listed(self, name: str) -> tuple[str, ...]:
        """A comma-separated list without empty members."""
        return tuple(part.strip() for part in (self.text(name) or "").split(",") if part.strip())


def _within(kind: Callable[[str], T], low: float, high: float) -> Callable[[str], T]:
    def parse(raw: str) -> T:
        value = kind(raw)
        if not low <= value <= high:  # type: ignore[operator]
            raise ValueError
        return value

    return parse
