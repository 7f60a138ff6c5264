"""Identifiers: UUIDv7, so that newer rows sort after older ones in every index."""

import secrets
import time
from uuid import UUID


def new_id() -> UUID:
    """A UUIDv7 with sub-millisecond order inside a process (RFC 9562, section 6.2, method 3)."""
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = (rest << 12) // 1_000_000
    high = milliseconds << 16 | 0x7000 | fraction
    low = 0b10 << 62 | secrets.randbits(62)
    return UUID(int=high << 64 | low)


def parse_id(text: str) -> UUID | None:
    """The id that this text spells canonically, or None; nothing else names a row."""
    try:
        parsed = UUID(text)
    except ValueError:
        return None
    return parsed if str(parsed) == text else None
