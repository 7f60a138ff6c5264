"""Is this the password? Asked in constant time, and not too often."""

from uuid import UUID

from gembackend.auth import lock_store
from gembackend.auth.lock_store import Try
from gembackend.auth.otp import Codes
from gembackend.auth.passwords import Passwords
from gembackend.auth.rules import Requester
from gembackend.plumbing import metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database
from gembackend.users import store as users
from gembackend.users.store import Account


class Credentials:
    """Checks passwords. A phone nobody has takes as many statements, as long a hash and the same answer as a wrong
    password and a locked login. LOCK_FAILURES wrong ones lock a login for at most LOCK_SECONDS: that from known
    places, or that from elsewhere; a session that gives the password again has a count of its own.
    """

    def __init__(self, database: Database, passwords: Passwords, codes: Codes) -> None:
        self._database = database
        self._passwords = passwords
        self._codes = codes

    async def check(self, phone: str, password: str, requester: Requester) -> Account:
        """The account of a phone and its password; raises Fault("invalid_credentials")."""
        async with self._database.connection() as connection:
            account = await users.account_of_phone(connection, phone)
        user_id = account.user_id if account else None
        one = Try(self._codes.phone_key(phone), requester, user_id, in_session=False)
        return await self._judge(account, one, password, "The phone or the password is wrong.")

    async def confirm(self, user_id: UUID, session_id: str, password: str) -> Account:
        """The account of someone who is logged in and gives the password again; raises Fault("invalid_credentials")."""
        async with self._database.connection() as connection:
            account = await users.account_of_user(connection, user_id)
        if account is None:
            raise Fault("unauthorized", "This session has ended.")
        subject = self._codes.session_key(session_id)
        one = Try(subject, Requester(subject), account.user_id, in_session=True)
        return await self._judge(account, one, password, "The password is wrong.")

    async def _judge(self, account: Account | None, one: Try, password: str, refusal: str) -> Account:
        right = await self._passwords.verify(account.password_hash if account else None, password)
        reason = "locked" if right else "wrong"
        async with self._database.connection() as connection:
            if right:
                right = await lock_store.password_accepted(connection, one)
            else:
                await lock_store.password_refused(connection, one)
        if account is None or not right:
            metrics.LOGIN_FAILURES.labels(reason).inc()
            raise Fault("invalid_credentials", refusal)
        return await self._hashed_as_now(account, password)

    async def _hashed_as_now(self, account: Account, password: str) -> Account:
        """The same account, hashed again if it was hashed when hashes were cheaper."""
        if not self._passwords.outdated(account.password_hash):
            return account
        dearer = await self._passwords.hash(password)
        async with self._database.connection() as connection:
            await users.rehash(connection, account, dearer)
        return Account(account.user_id, account.phone, dearer)
