"""PostgreSQL's advisory locks, each a number that all processes agree on; nobody else writes such a number down.

`sql/migrate.sql` is psql's and has its two in itself; a test holds them equal.
"""

MIGRATING = 7304612205398231
"""Held by the session that applies migrations, so that two at once do no harm."""

MIGRATING_MARK = 730461220
"""The first of two numbers, the second is random: held by a session to see whether a pooler swaps its server."""

INDEXING = 7304612205398234
"""Held for one transaction by the process that brings messages into the search."""
