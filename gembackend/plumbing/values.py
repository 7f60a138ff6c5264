"""What a value of the environment may look like; each parser raises ValueError, or Refused where it knows more."""

import re
import unicodedata
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_WORD = re.compile(r"[!#-&(-~]+")
_KEY = re.compile(r"[ -~]+")


class Refused(ValueError):
    """A value that cannot be; the text goes on behind the name of its variable and quotes nothing of it."""


def unfit(value: str) -> str | None:
    """What is wrong with a value whatever it is for, or None."""
    if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        return "must be UTF-8"
    if "\n" in value or "\r" in value:
        return "must not have a line break in it"
    if any(unicodedata.category(character) == "Cc" for character in value):
        return "must not have a control character in it"
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return "must not have quotes around it: only a shell and .env take them off, docker's --env-file keeps them"
    return None


def word(raw: str) -> str:
    """What travels in a header or a URL, such as a vendor's key: plain ASCII without spaces and quotes."""
    if " " in raw:
        raise Refused("must not have a space in it")
    if "'" in raw or '"' in raw:
        raise Refused("must not have a quote in it")
    if not _WORD.fullmatch(raw):
        raise Refused("must be plain ASCII: a character of it is not")
    return raw


def key(raw: str) -> str:
    """A secret of the operator's own making: plain ASCII, so that it is the same bytes wherever it is set."""
    if raw[0] in "\"'" or raw[-1] in "\"'":
        raise Refused("must not begin or end with a quote")
    if not _KEY.fullmatch(raw):
        raise Refused("must be plain ASCII: a character of it is not")
    return raw


def integer(raw: str) -> int:
    """A whole number in decimal digits: Python would also take 1_000 and the digits of other scripts."""
    if not re.fullmatch(r"-?[0-9]{1,18}", raw):
        raise ValueError
    return int(raw)


def decimal(raw: str) -> float:
    """A number in decimal digits, maybe with a fraction."""
    if not re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{0,18})?", raw):
        raise ValueError
    return float(raw)


def within(kind: Callable[[str], T], low: float, high: float) -> Callable[[str], T]:
    """A parser of what lies from low to high."""

    def parse(raw: str) -> T:
        value = kind(raw)
        if not low <= value <= high:  # type: ignore[operator]
            raise ValueError
        return value

    return parse
