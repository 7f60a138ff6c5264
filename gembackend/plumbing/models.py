"""The base of what clients send."""

import msgspec


class Body(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The base of every request model: a field nobody knows is refused."""
