"""Rules about passwords, codes and failures that need no database and no clock; ops/accounts.md explains them."""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from uuid import UUID

LOCK_FAILURES = 10
"""So many wrong passwords from known places, or from one other place, or in one session, lock it for the password."""
LOCK_SECONDS = 900
"""The time in which wrong passwords count together, and so the longest that a lock can last."""
STRANGE_PLACES = 11
"""So many places that are not known have a first try each that no other place can use up: one more than ten."""

DAILY_CODE_FAILURES = 20
"""So many wrong codes of a phone in a UTC day, of every purpose and from everywhere, and no code is right any more."""
DAILY_UNKNOWN_FAILURES = 17
"""So many of them from places that are not known; the others are kept for those that are."""
DAILY_STRANGE_REPEATS = 4
"""So many of them from places that have had their first try, and neither are known nor gave the password: with
STRANGE_PLACES that makes 15 guesses of strangers."""

KNOWN_DAYS = 90
"""How long a place is known after the last code that was redeemed there."""
UNVERIFIED_HOURS = 24
"""How long an account waits for its phone to be verified, counted from the last signing up."""


class Purpose(StrEnum):
    """What a code is for; one for login never serves a reset."""

    LOGIN = "login"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks: the name of the address it comes from, and the user whose live session it shows, if any."""

    place: bytes
    session_of: UUID | None = None


@cache
def common_passwords() -> frozenset[str]:
    """The passwords that everybody tries first, in lower case."""
    text = files("gembackend.auth").joinpath("common_passwords.txt").read_text("utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def is_common(password: str) -> bool:
    """Whether a password is among the commonest, however it is capitalised."""
    return password.lower() in common_passwords()
