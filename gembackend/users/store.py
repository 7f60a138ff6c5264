"""The SQL of users. The tier is read with current_tier, because Pro ends by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from gembackend.plumbing.postgres import Connection
from gembackend.quota import store as quota
from gembackend.users import removal_store as removal
from gembackend.users.models import User
from gembackend.users.removal_store import Room


@dataclass(frozen=True, slots=True)
class Account:
    """What a password is checked against."""

    user_id: UUID
    phone: str
    password_hash: str


@dataclass(frozen=True, slots=True)
class Left:
    """What went with a user: the rooms, and those of their prompts that had not finished."""

    chatroom_ids: list[UUID]
    prompt_ids: list[UUID]


async def sign_up(
    connection: Connection,
    user_id: UUID,
    phone: str,
    password_hash: str,
    name: str | None,
    phone_names: Sequence[bytes],
) -> User | None:
    """Make a user, or make an unverified one anew with this password and name; None when the phone is verified.

    The new token version kills the codes that were made for the earlier password. What earlier accounts of the phone
    have used of today's quota, under any of the `phone_names`, stays used. To be called inside a transaction.
    """
    row = await connection.fetchrow(
        """
        INSERT INTO users AS u (id, phone, password_hash, name) VALUES ($1, $2, $3, $4)
        ON CONFLICT (phone) DO UPDATE
            SET password_hash = excluded.password_hash, name = excluded.name, token_version = u.token_version + 1,
                created_at = now()
            WHERE u.verified_at IS NULL
        RETURNING id, phone, name, current_tier(subscription_tier, pro_until) AS subscription_tier, created_at
        """,
        user_id,
        phone,
        password_hash,
        name,
    )
    if row is None:
        return None
    await quota.carry_over(connection, row["id"], phone_names)
    return User(**row)


async def get(connection: Connection, user_id: UUID) -> User | None:
    """One user."""
    row = await connection.fetchrow(
        """
        SELECT id, phone, name, current_tier(subscription_tier, pro_until) AS subscription_tier, created_at
        FROM users WHERE id = $1
        """,
        user_id,
    )
    return User(**row) if row else None


async def rename(connection: Connection, user_id: UUID, name: str) -> User | None:
    """Give a user another name."""
    row = await connection.fetchrow(
        """
        UPDATE users SET name = $2 WHERE id = $1
        RETURNING id, phone, name, current_tier(subscription_tier, pro_until) AS subscription_tier, created_at
        """,
        user_id,
        name,
    )
    return User(**row) if row else None


async def delete(connection: Connection, account: Account, phone_name: bytes) -> Left | None:
    """Remove a user with all that is theirs, if the password is still the one that was checked; None if it is not.

    What has been used of today's quota is kept under `phone_name`, less what is refunded of prompts that never began.
    To be called inside a transaction. What has finished goes first, which may take long; then the user and the rooms
    are locked, in the order in which accepting locks them.
    """
    theirs, rooms = (
        "SELECT id FROM users WHERE id = $1 AND password_hash = $2",
        "SELECT id, last_sequence FROM chatrooms_metadata WHERE user_id = $1 ORDER BY id",
    )
    if await connection.fetchval(theirs, account.user_id, account.password_hash) is None:
        return None
    await removal.clear(connection, [Room(*row) for row in await connection.fetch(rooms, account.user_id)])
    if await connection.fetchval(f"{theirs} FOR UPDATE", account.user_id, account.password_hash) is None:
        return None
    chatroom_ids = [row["id"] for row in await connection.fetch(f"{rooms} FOR NO KEY UPDATE", account.user_id)]
    prompt_ids = await quota.give_back(connection, chatroom_ids)
    await quota.remember(connection, account.user_id, phone_name)
    await connection.execute("DELETE FROM users WHERE id = $1", account.user_id)
    return Left(chatroom_ids, prompt_ids)


async def account_of_phone(connection: Connection, phone: str) -> Account | None:
    """The account of a phone."""
    row = await connection.fetchrow("SELECT id AS user_id, phone, password_hash FROM users WHERE phone = $1", phone)
    return Account(**row) if row else None


async def account_of_user(connection: Connection, user_id: UUID) -> Account | None:
    """The account of a user."""
    row = await connection.fetchrow("SELECT id AS user_id, phone, password_hash FROM users WHERE id = $1", user_id)
    return Account(**row) if row else None


async def rehash(connection: Connection, account: Account, password_hash: str) -> None:
    """Store the same password hashed anew, unless it has been changed meanwhile."""
    await connection.execute(
        "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2",
        account.user_id,
        account.password_hash,
        password_hash,
    )


async def change_password(connection: Connection, account: Account, password_hash: str) -> int | None:
    """Store a new password and end every session; the new token version, or None if it was changed meanwhile."""
    version: int | None = await connection.fetchval(
        """
        UPDATE users SET password_hash = $3, token_version = token_version + 1
        WHERE id = $1 AND password_hash = $2
        RETURNING token_version
        """,
        account.user_id,
        account.password_hash,
        password_hash,
    )
    return version


async def end_sessions(connection: Connection, user_id: UUID) -> int | None:
    """End every session of a user; the new token version, or None if there is no such user."""
    version: int | None = await connection.fetchval(
        "UPDATE users SET token_version = token_version + 1 WHERE id = $1 RETURNING token_version", user_id
    )
    return version


async def token_versions(connection: Connection, user_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The token versions of those of the users that exist."""
    rows = await connection.fetch("SELECT id, token_version FROM users WHERE id = ANY ($1)", user_ids)
    return {row["id"]: row["token_version"] for row in rows}
