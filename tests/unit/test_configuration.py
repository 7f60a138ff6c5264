"""ops/configuration.md and .env.example say of every variable what the code does."""

import re
from pathlib import Path

import pytest

from gembackend import config
from gembackend.config import ConfigError

ROOT = Path(__file__).parents[2]
SERVED = {
    "DATABASE_URL": "postgresql://app:pw@db:5432/chat",
    "REDIS_URL": "redis://cache:6379/0",
    "JWT_SECRET_KEY": "9fQ2rX7bLw4ZpVt0NcYmUe8sHj3KdGa6",
    "GEMINI_API_KEY": "AIza-something",
    "OTP_DELIVERY": "response",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
}
IN_PARTS = {"DB_HOST": "db", "DATABASE_URL": ""}
ROWS = {
    name: (default, bounds, meaning)
    for name, default, bounds, meaning in re.findall(
        r"(?m)^\| `([A-Z_]+)` \| ([^|]*) \|([^|]*)\| ([^|]*) \|$", (ROOT / "ops/configuration.md").read_text()
    )
}
EXAMPLE = (ROOT / ".env.example").read_text()
NOBODYS = "?"
"""A value that no variable with bounds can have."""


class Environment(dict[str, str]):
    """An environment that notes what it is asked for."""

    def __init__(self, *given: dict[str, str]) -> None:
        super().__init__({name: value for each in given for name, value in each.items()})
        self.asked: set[str] = set()

    def get(self, name: str, default: object = None, /) -> object:  # type: ignore[override]
        """The value, as any mapping would give it."""
        self.asked.add(name)
        return super().get(name, default)


def loaded(*given: dict[str, str], mode: config.Mode = "serve") -> config.Settings:
    """The settings of `serve` with these variables besides; the parts of a URL instead of one where a part is meant."""
    parts = [IN_PARTS] if any(name.startswith("DB_") for each in given for name in each) else []
    return config.load(Environment(SERVED, *parts, *given), mode)


def refused(name: str, value: str) -> str | None:
    """What is said against a variable's value, if anything."""
    try:
        loaded({name: value})
    except ConfigError as error:
        return next((fault for fault in error.faults if fault.startswith(f"{name} ")), None)
    return None


def bounds_of_the_code(name: str) -> str | None:
    """The bounds that the code tells whoever sets a variable to what cannot be, if it has numbers or words for them."""
    fault = refused(name, NOBODYS) or ""
    if found := re.search(r"must be a (whole number|number of seconds) from (\S+) to (\S+)$", fault):
        return f"{found[2]} to {found[3]}" + (" seconds" if found[1] != "whole number" else "")
    if found := re.search(r"must be one of (.+)$", fault):
        return ", ".join(f"`{word}`" for word in found[1].split(", "))
    return None


def test_the_page_lists_exactly_the_variables_that_are_read() -> None:
    asked: set[str] = set()
    for given in ({}, IN_PARTS, {"REDIS_URL": "", "UPSTASH_URL": "redis://cache"}):
        environment = Environment(SERVED, given)
        config.load(environment, "serve")
        asked |= environment.asked
    assert asked == set(ROWS)


def test_the_example_names_every_one_of_them_and_no_other() -> None:
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b|\bENVIRONMENT\b", EXAMPLE))
    beside = {"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "PGSSLROOTCERT"}
    assert named - {"ON_ERROR_STOP", "OTEL_"} == set(ROWS) - beside


@pytest.mark.parametrize("name", ROWS)
def test_the_bounds_are_those_of_the_code(name: str) -> None:
    told = bounds_of_the_code(name)
    _, bounds, _ = ROWS[name]
    if told is None:
        assert not re.search(r"\d to \d", bounds), "the page has bounds where the code has none"
    else:
        assert bounds.strip() == told


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [(name, *found.groups()) for name, row in ROWS.items() if (found := re.match(r"\s*([\d.]+) to (\d+)", row[1]))],
)
def test_the_ends_of_the_bounds_may_be_and_what_is_beyond_may_not(name: str, low: str, high: str) -> None:
    assert refused(name, low) is refused(name, high) is None
    assert refused(name, f"-{low}1") and refused(name, str(int(high) + 1))


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("mode", ["serve", "dev"])
def test_the_default_is_that_of_the_code(name: str, mode: config.Mode) -> None:
    default, _, meaning = ROWS[name]
    of_dev = re.search(r"\(`dev`: `([^`]+)`\)$", default)
    assert meaning
    if default.startswith("required") and not (of_dev and mode == "dev"):
        return
    shown = of_dev if of_dev and mode == "dev" else re.match(r"`([^`]+)`", default)
    if shown is None:
        assert default.startswith("unset"), default
        value = ""
    else:
        value = shown[1].replace("$SERVER_PORT", "3000")
    unset = {name: ""}
    parts = IN_PARTS if name.startswith("DB_") else {}
    assert loaded(parts, {name: value}, mode=mode) == loaded(parts, unset, mode=mode)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row[0].startswith("required")])
def test_what_is_required_is_asked_for_by_name(name: str) -> None:
    besides = {"OTP_DELIVERY": "webhook", "STRIPE_SECRET_KEY": "sk_test_1"}
    default = ROWS[name][0]
    with pytest.raises(ConfigError) as told:
        loaded({} if default.startswith("required (") or default == "required" else besides, {name: ""})
    asked_for = "DATABASE_URL" if name == "DB_HOST" else name
    assert any(fault.startswith(f"{asked_for} is required") for fault in told.value.faults)


def test_the_example_shows_the_defaults() -> None:
    shown = dict(re.findall(r"(?m)^#([A-Z_]+)=(.+)$", EXAMPLE))
    assert len(shown) > 20
    del shown["OTEL_EXPORTER_OTLP_ENDPOINT"]  # what is shown there is an example: traces are off unless it is set
    assert loaded(shown) == loaded()
