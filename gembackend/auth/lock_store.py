"""The SQL of wrong passwords. Each function is one statement, and each statement decides alone.

A subject is a phone, or the session of someone who gives the password again. Its own failures are those of the session,
or those from places where the user has redeemed a code; what comes from elsewhere is counted apart and never locks
these out. A phone that nobody has has no place of its own and is otherwise treated like any other.
"""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from gembackend.auth.rules import LOCK_FAILURES, LOCK_SECONDS, STRANGE_PLACES, Requester
from gembackend.plumbing.postgres import Connection

_WINDOW = timedelta(seconds=LOCK_SECONDS)
_REPEATS = LOCK_FAILURES - 1
"""With its first, the most wrong passwords of a place that is not known."""


@dataclass(frozen=True, slots=True)
class Try:
    """A password given for a subject, from somewhere; `user_id` is None for a phone nobody has."""

    subject: bytes
    requester: Requester
    user_id: UUID | None
    in_session: bool

    def arguments(self) -> tuple[bytes, bytes, bool, UUID | None]:
        """The first arguments of the statements below."""
        vouched = self.in_session or (self.user_id is not None and self.requester.session_of == self.user_id)
        return self.subject, self.requester.place, vouched, self.user_id


async def password_refused(connection: Connection, one: Try) -> None:
    """Count a wrong password; LOCK_SECONDS after the first of them the counting begins anew."""
    await connection.execute(
        """
        WITH tried AS (
            SELECT $3::boolean OR EXISTS (
                SELECT FROM known_places k WHERE k.user_id = $4 AND k.place = $2) AS own
        )
        INSERT INTO login_failures AS f (phone_key, failures, places, failed_at)
        SELECT $1, own::integer, CASE WHEN own THEN '{}' ELSE ARRAY[$2] END, now() FROM tried
        ON CONFLICT (phone_key) DO UPDATE SET
            failures = excluded.failures + CASE
                WHEN f.failed_at <= now() - $5::interval THEN 0 ELSE least(f.failures, $6 - excluded.failures) END,
            places = CASE
                WHEN f.failed_at <= now() - $5 THEN excluded.places
                WHEN f.places @> excluded.places OR cardinality(f.places) >= $7 THEN f.places
                ELSE f.places || excluded.places END,
            repeats = CASE
                WHEN f.failed_at <= now() - $5 THEN 0
                WHEN excluded.places <> '{}' AND f.places @> excluded.places THEN least(f.repeats + 1, $8)
                ELSE f.repeats END,
            failed_at = CASE WHEN f.failed_at <= now() - $5 THEN now() ELSE f.failed_at END
        """,
        *one.arguments(),
        _WINDOW,
        LOCK_FAILURES,
        STRANGE_PLACES,
        _REPEATS,
    )


async def password_accepted(connection: Connection, one: Try) -> bool:
    """Forget the subject's own wrong passwords after a right one; False when there are too many where it comes from.

    A right password that comes while wrong ones are being counted is judged before or after each of them, so that
    never more of any number of parallel tries learn anything. Those of strangers are not forgotten: whoever logs in
    would give them new guesses.
    """
    accepted: bool = await connection.fetchval(
        """
        WITH tried AS (
            SELECT $3::boolean OR EXISTS (
                SELECT FROM known_places k WHERE k.user_id = $4 AND k.place = $2) AS own
        ), forgiven AS (
            UPDATE login_failures SET failures = 0
            WHERE phone_key = $1 AND failures BETWEEN 1 AND $6 - 1 AND (SELECT own FROM tried)
        )
        SELECT NOT EXISTS (
            SELECT FROM login_failures f, tried WHERE f.phone_key = $1 AND f.failed_at > now() - $5::interval AND CASE
                WHEN own THEN f.failures >= $6
                WHEN $2 = ANY (f.places) THEN f.repeats >= $8
                ELSE cardinality(f.places) >= $7 END)
        """,
        *one.arguments(),
        _WINDOW,
        LOCK_FAILURES,
        STRANGE_PLACES,
        _REPEATS,
    )
    return accepted
