"""Rules about passwords, codes and failures that need no database and no clock."""

from enum import StrEnum
from functools import cache
from importlib.resources import files

LOCK_FAILURES = 10
"""So many wrong passwords in a row lock a login."""
LOCK_SECONDS = 900
"""How long a lock lasts, and how soon after the one before a wrong password must come to count with it."""
DAILY_CODE_FAILURES = 20
"""So many wrong codes of one purpose in a UTC day, across resends, and no code of that purpose is right any more."""


class Purpose(StrEnum):
    """What a code is for; one for login never serves a reset."""

    LOGIN = "login"
    RESET = "reset"


@cache
def common_passwords() -> frozenset[str]:
    """The passwords that everybody tries first, in lower case."""
    text = files("gembackend.auth").joinpath("common_passwords.txt").read_text("utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def is_common(password: str) -> bool:
    """Whether a password is among the commonest, however it is capitalised."""
    return password.lower() in common_passwords()
