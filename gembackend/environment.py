"""The environment and its `.env` file, and typed values out of them. The only module that touches `os.environ`."""

import difflib
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from gembackend.plumbing import env_file, values
from gembackend.plumbing.values import Refused

T = TypeVar("T")

LIKENESS = 0.85
"""From which share of common letters on a name is taken for another one, misspelt (difflib's ratio)."""

_WEB = ("http", "https", "grpc", "grpcs")


class ConfigError(Exception):
    """The environment is not usable; `faults` has one sentence a fault, each naming its variable."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def read(directory: Path | None = None) -> dict[str, str]:
    """The real environment laid over the `.env` file of the working directory; raises ConfigError."""
    try:
        given = env_file.read((directory or Path()) / ".env")
    except env_file.Unreadable as error:
        raise ConfigError([str(error)]) from None
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
    """Takes typed values out of the environment and collects what is wrong with them, one sentence a variable."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.faults: list[str] = []
        self._known: set[str] = set()

    def refuse(self, name: str, what: str) -> None:
        """Note what is wrong with a variable, unless something is known to be wrong with it already."""
        if not any(fault.startswith(f"{name} ") for fault in self.faults):
            self.faults.append(f"{name} {what}")

    def given(self, name: str) -> bool:
        """Whether the variable is set to anything, be it right or wrong."""
        self._known.add(name)
        return bool(self.environ.get(name, "").strip())

    def text(self, name: str) -> str | None:
        """The value without surrounding space, or None when unset, empty or not fit for any variable."""
        self._known.add(name)
        value = self.environ.get(name, "").strip()
        if fault := values.unfit(value):
            self.refuse(name, fault)
            return None
        return value or None

    def parsed(self, name: str, parse: Callable[[str], T], default: T, expects: str) -> T:
        """The value as `parse` makes it, or the default; a fault says what was expected, or what `parse` refused."""
        raw = self.text(name)
        if raw is None:
            return default
        try:
            return parse(raw)
        except Refused as refusal:
            self.refuse(name, str(refusal))
        except ValueError:
            self.refuse(name, f"must be {expects}")
        return default

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number from low to high."""
        return self.parsed(
            name, values.within(values.integer, low, high), default, f"a whole number from {low} to {high}"
        )

    def seconds(self, name: str, default: float, low: float, high: float) -> float:
        """A number of seconds from low to high; fractions are allowed."""
        return self.parsed(
            name, values.within(values.decimal, low, high), default, f"a number of seconds from {low:g} to {high:g}"
        )

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
            if parts.scheme not in schemes or not (parts.netloc or parts.path.strip("/")) or " " in raw:
                raise ValueError
            if parts.scheme in _WEB:
                (parts.hostname or "..").encode("idna")
            _ = parts.port
            return raw

        return self.parsed(name, parse, None, "a URL starting with " + " or ".join(f"{s}://" for s in schemes))

    def word(self, name: str) -> str | None:
        """What travels in a header or a URL, such as a vendor's key: plain ASCII without spaces and quotes."""
        return self.parsed(name, values.word, None, "")

    def words(self, name: str) -> tuple[str, ...]:
        """Such words, comma-separated."""
        return tuple(self._each(name, values.word))

    def key(self, name: str) -> str | None:
        """A secret of the operator's own making: plain ASCII, so that it is the same bytes wherever it is set."""
        return self.parsed(name, values.key, None, "")

    def keys(self, name: str) -> tuple[str, ...]:
        """Such secrets, comma-separated."""
        return tuple(self._each(name, values.key))

    def listed(self, name: str) -> tuple[str, ...]:
        """A comma-separated list without empty members."""
        return tuple(part.strip() for part in (self.text(name) or "").split(",") if part.strip())

    def _each(self, name: str, parse: Callable[[str], str]) -> list[str]:
        try:
            return [parse(part) for part in self.listed(name)]
        except Refused as refusal:
            self.refuse(name, str(refusal))
            return []

    def misspelt(self) -> list[str]:
        """A sentence for each variable that nobody asks for but whose name is nearly that of one that is not set."""
        unset = [name for name in self._known if not self.given(name)]
        strangers = sorted(name for name in self.environ if name not in self._known and not name.startswith("OTEL_"))
        found = {name: _meant(name.upper(), sorted(unset)) for name in strangers}
        return [f"{name} is no variable of gembackend: is {meant} meant?" for name, meant in found.items() if meant]


def _meant(name: str, unset: list[str]) -> str | None:
    """Which variable a name may be meant for: one that has one more word, or a shorter last one, or looks like it."""
    close = [other for other in unset if _abridged(name, other) or _extended(name, other)]
    return next(iter(close or difflib.get_close_matches(name, unset, 1, LIKENESS)), None)


def _abridged(name: str, other: str) -> bool:
    """JWT_SECRET for JWT_SECRET_KEY."""
    words, rest = name.split("_"), iter(other.split("_"))
    return len(words) > 1 and name.count("_") + 1 == other.count("_") and all(word in rest for word in words)


def _extended(name: str, other: str) -> bool:
    """DB_PASSWORD for DB_PASS."""
    return "_" in other and name.startswith(other) and "_" not in name.removeprefix(other)
