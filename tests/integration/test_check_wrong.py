"""What `gembackend check` says of installations that are wrong in one thing: one line, which says what."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import asyncpg
import pytest
import redis as blocking_redis

from gembackend import config
from gembackend.check import check
from gembackend.embedded.gemini import Behaviour, GeminiStandIn
from gembackend.embedded.postgres import EmbeddedPostgres
from gembackend.embedded.redis import find_program
from gembackend.embedded.stripe import Behaviour as Treatment
from gembackend.embedded.stripe import StripeStandIn
from gembackend.plumbing.postgres import SCHEMA_VERSION
from gembackend.plumbing.redis import connect
from tests import certificates, installations
from tests.accounts import SECRET
from tests.installations import PASSWORD, ROLE, as_role, with_acl
from tests.processes import until
from tests.servers import FAST, Home, with_database
from tests.whole import whole_service

MODEL, FALLBACK = "gemini-2.5-flash-lite", "gemini-2.5-pro"


class Installation:
    """A right installation, of real servers and stand-ins, to be made wrong."""

    def __init__(self, gemini: GeminiStandIn, stripe: StripeStandIn, environment: dict[str, str]) -> None:
        self.gemini = gemini
        self.stripe = stripe
        self.environment = environment

    async def check(self, **changed: str) -> tuple[int, list[str]]:
        """The exit status and the lines, with some variables set otherwise."""
        lines: list[str] = []
        status = await check(config.load(self.environment | changed, "serve"), lines.append)
        told = "\n".join(lines)
        assert not any(secret in told for secret in (PASSWORD, SECRET, self.stripe.secret_key, "AIza")), told
        return status, lines

    async def fault(self, name: str, **changed: str) -> str:
        """The one line that fails, which is about `name`; all that is not wrong is said to be well."""
        status, lines = await self.check(**changed)
        [line] = [line for line in lines if not line.startswith("ok ")]
        assert status == 1 and line.startswith(f"FAIL  {name}: "), lines
        assert len(lines) == 6, lines
        return line

    async def warning(self, name: str, **changed: str) -> str:
        """The one line that warns, which is about `name`; all the others are well."""
        status, lines = await self.check(**changed)
        [line] = [line for line in lines if not line.startswith("ok ")]
        assert status == 0 and line.startswith(f"warn  {name}: "), lines
        assert len(lines) == 7, lines
        return line


@pytest.fixture
async def gateway() -> AsyncIterator[asyncio.Server]:
    """What listens where codes are posted; it fails the test that sends it anything."""
    sent: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionResetError):
            sent.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    yield server
    server.close()
    await server.wait_closed()
    assert b"".join(sent) == b""


@pytest.fixture
async def site(direct_url: str, redis_url: str, gateway: asyncio.Server) -> AsyncIterator[Installation]:
    gemini, stripe = GeminiStandIn(), StripeStandIn()
    environment = {
        "DATABASE_URL": direct_url,
        "REDIS_URL": redis_url,
        "JWT_SECRET_KEY": SECRET,
        "GEMINI_API_KEY": "AIza-hush",
        "GEMINI_ENDPOINT": await gemini.start(),
        "GEMINI_MODEL": MODEL,
        "GEMINI_FALLBACK_MODEL": FALLBACK,
        "STRIPE_API_BASE": await stripe.start(),
        "STRIPE_SECRET_KEY": stripe.secret_key,
        "STRIPE_WEBHOOK_SIGNING_SECRET": stripe.account.webhook_secret,
        "PRO_PRICE_ID": stripe.account.price_id,
        "OTP_DELIVERY": "webhook",
        "OTP_WEBHOOK_URL": f"http://127.0.0.1:{gateway.sockets[0].getsockname()[1]}/codes",
        "OTP_WEBHOOK_SECRET": SECRET,
    }
    yield Installation(gemini, stripe, environment)
    await gemini.stop()
    await stripe.stop()


@pytest.fixture
async def role(db: asyncpg.Connection) -> AsyncIterator[None]:
    async with installations.role(db):
        yield


@pytest.fixture
def server(redis_url: str) -> Iterator[blocking_redis.Redis]:
    with installations.redis_as_it_was(redis_url) as client:
        yield client


@pytest.mark.usefixtures("role")
async def test_all_is_well_with_as_few_rights_as_the_service_needs(
    site: Installation, db: asyncpg.Connection, server: blocking_redis.Redis
) -> None:
    few = {
        "DATABASE_URL": as_role(site.environment["DATABASE_URL"]),
        "REDIS_URL": with_acl(server, site.environment["REDIS_URL"]),
    }
    status, lines = await site.check(**few)
    assert status == 0, lines
    assert [re.split(r"[:,]", line)[0] for line in lines] == [
        "ok    configuration",
        "ok    PostgreSQL",
        "ok    Redis",
        "ok    Gemini",
        "ok    Stripe",
        "ok    OTP gateway",
    ]
    assert server.dbsize() == 0
    assert await db.fetchval("SELECT count(*) FROM users") == 0
    async with whole_service(few["DATABASE_URL"], few["REDIS_URL"]) as whole:
        assert (await whole.ask(await whole.room(), "Is that enough?"))["status"] == "answered"


# PostgreSQL


@pytest.mark.usefixtures("role")
async def test_a_wrong_password_of_the_database(site: Installation, db: asyncpg.Connection) -> None:
    url = site.environment["DATABASE_URL"]
    async with installations.asked_for_passwords(db):

        async def refused() -> bool:
            try:
                await (await asyncpg.connect(as_role(url, "wrong"))).close()
            except asyncpg.InvalidPasswordError:
                return True
            return False

        await until(refused, "a server that asks for passwords")
        line = await site.fault("PostgreSQL", DATABASE_URL=as_role(url, "wrong"))
        assert "wrong" not in line
        assert (await site.check(DATABASE_URL=as_role(url, PASSWORD)))[0] == 0


async def test_a_database_that_is_not_there(site: Installation) -> None:
    await site.fault("PostgreSQL", DATABASE_URL=with_database(site.environment["DATABASE_URL"], "nowhere"))


async def test_a_database_server_that_is_down(site: Installation, tmp_path: Path) -> None:
    await site.fault("PostgreSQL", DATABASE_URL=f"postgresql://postgres@/chat?host={tmp_path}")


async def test_a_database_without_the_schema(site: Installation, empty_database_url: str) -> None:
    line = await site.fault("PostgreSQL", DATABASE_URL=empty_database_url)
    assert "no gembackend schema" in line and "sql/migrate.sql" in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (f"DELETE FROM schema_migrations WHERE version >= {SCHEMA_VERSION}", "sql/migrate.sql"),
        ("INSERT INTO schema_migrations VALUES (99, 'later', now(), 99)", "run a newer gembackend"),
    ],
    ids=["too old", "too new"],
)
async def test_a_schema_of_another_version(site: Installation, db: asyncpg.Connection, change: str, said: str) -> None:
    await db.execute(change)
    assert said in await site.fault("PostgreSQL")


@pytest.mark.usefixtures("role")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (f"REVOKE DELETE ON prompts FROM {ROLE}", "lacks DELETE on prompts: GRANT "),
        (f"REVOKE SELECT ON schema_migrations FROM {ROLE}", "lacks SELECT on schema_migrations: "),
        (f"REVOKE EXECUTE ON FUNCTION accept_prompts FROM {ROLE}", "lacks EXECUTE on accept_prompts: "),
        (f"REVOKE ALL ON users, prompts FROM {ROLE}", "on prompts; DELETE, INSERT, SELECT, UPDATE on users: "),
        (f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {ROLE}", "others: GRANT "),
        (f"REVOKE ALL ON SCHEMA public FROM {ROLE}", f"GRANT USAGE ON SCHEMA public TO {ROLE}"),
        (f"ALTER ROLE {ROLE} SET search_path = pg_catalog", "not in the search_path"),
        ("CREATE SEQUENCE numbers; ALTER TABLE users ADD n int DEFAULT nextval('numbers')", "lacks USAGE on numbers: "),
    ],
    ids=["table", "ledger", "function", "two tables", "every table", "schema", "search path", "sequence"],
)
async def test_a_right_that_the_role_lacks(site: Installation, db: asyncpg.Connection, change: str, said: str) -> None:
    await db.execute(change)
    line = await site.fault("PostgreSQL", DATABASE_URL=as_role(site.environment["DATABASE_URL"]))
    assert said in line, line


@pytest.mark.usefixtures("role")
async def test_what_others_keep_in_the_schema_needs_no_rights(site: Installation, db: asyncpg.Connection) -> None:
    await db.execute("CREATE ROLE gembackend_neighbour; CREATE TABLE theirs (); CREATE EXTENSION vector")
    await db.execute(
        "ALTER TABLE theirs OWNER TO gembackend_neighbour; REVOKE ALL ON FUNCTION vector_dims(vector) FROM PUBLIC"
    )
    try:
        status, lines = await site.check(DATABASE_URL=as_role(site.environment["DATABASE_URL"]))
        assert status == 0, lines
    finally:
        await db.execute("DROP OWNED BY gembackend_neighbour; DROP ROLE gembackend_neighbour")


async def test_a_read_only_database(site: Installation, db: asyncpg.Connection) -> None:
    name = urlsplit(site.environment["DATABASE_URL"]).path[1:]
    await db.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert "default_transaction_read_only is on" in await site.fault("PostgreSQL")


async def test_a_standby(site: Installation) -> None:
    home = Home("standby")
    standby = EmbeddedPostgres(home.path, settings=FAST | {"wal_level": "replica", "max_wal_senders": "2"})
    try:
        await standby.start()
        await standby.stop()
        (standby.home / "standby.signal").touch()
        status, lines = await site.check(DATABASE_URL=await standby.start())
    finally:
        await standby.stop()
        home.remove()
    assert status == 1
    assert lines[1] == "FAIL  PostgreSQL: is a read-only standby: DATABASE_URL must name the primary"


async def test_a_database_in_another_encoding(site: Installation, db: asyncpg.Connection) -> None:
    await db.execute("CREATE DATABASE test_latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'")
    try:
        _, lines = await site.check(DATABASE_URL=with_database(site.environment["DATABASE_URL"], "test_latin"))
    finally:
        await db.execute("DROP DATABASE test_latin WITH (FORCE)")
    [line] = [line for line in lines if "LATIN1" in line]
    assert line.startswith("FAIL  PostgreSQL: ") and "UTF8" in line


async def test_a_pool_that_the_server_has_no_room_for(site: Installation, db: asyncpg.Connection) -> None:
    name = urlsplit(site.environment["DATABASE_URL"]).path[1:]
    assert "may have 197 connections" in await site.warning("PostgreSQL", DATABASE_POOL_SIZE="198")
    await db.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 5")
    line = await site.warning("PostgreSQL")
    assert "DATABASE_POOL_SIZE is 10" in line and "5 connections" in line


async def test_a_database_server_that_is_too_old(site: Installation, db: asyncpg.Connection, tmp_path: Path) -> None:
    url = site.environment["DATABASE_URL"]
    number = await db.fetchval("SELECT current_setting('server_version_num')::integer")
    old, new = (b"\x00\x00\x00\x04" + version.to_bytes(4, "big") for version in (number, 14_0009))
    socket_ = installations.postgres_socket(url)
    async with installations.disguised(socket_, old, new, tmp_path / socket_.name):
        line = await site.fault("PostgreSQL", DATABASE_URL=installations.at_socket(url, tmp_path))
    assert "needs PostgreSQL 15 or newer" in line


# Redis


async def test_a_redis_that_is_down(site: Installation, tmp_path: Path, unused_tcp_port: int) -> None:
    assert str(tmp_path) in await site.fault("Redis", REDIS_URL=f"unix://{tmp_path}/redis.sock")
    line = await site.fault("Redis", REDIS_URL=f"redis://:{PASSWORD}@127.0.0.1:{unused_tcp_port}")
    assert f"127.0.0.1:{unused_tcp_port} cannot be reached (connection refused)" in line
    line = await site.fault("Redis", REDIS_URL=f"rediss://{site.environment['STRIPE_API_BASE'].split('//')[1]}")
    assert "does not speak TLS" in line


async def test_redis_behind_tls_with_everything_that_a_url_may_say(
    site: Installation, server: blocking_redis.Redis, tmp_path: Path
) -> None:
    named = urlsplit(with_acl(server, site.environment["REDIS_URL"], "+client"))
    context = certificates.server_side(certificates.make(tmp_path, PASSWORD))
    async with installations.over_tls(Path(unquote(named.path)), context) as port:
        url = f"rediss://{ROLE}:{PASSWORD}@127.0.0.1:{port}/3?client_name=chat-1"
        line = await site.fault("Redis", REDIS_URL=url)
        assert "its certificate is not trusted: self" in line
        for trust in ("ssl_cert_reqs=none", f"ssl_ca_certs={tmp_path}/crt&ssl_min_version=1.3"):
            status, lines = await site.check(REDIS_URL=f"{url}&{trust}")
            assert status == 0, lines
        client = connect(f"{url}&{trust}")
        await client.set("gembackend:mine", "1")
        assert server.client_list()[-1]["name"] == "chat-1"
        await client.aclose()
    assert server.info("keyspace").keys() == {"db3"}
    server.execute_command("FLUSHALL")


async def test_a_wrong_password_of_redis(site: Installation, server: blocking_redis.Redis) -> None:
    line = await site.fault("Redis", REDIS_URL=with_acl(server, site.environment["REDIS_URL"], password="wrong"))
    assert "refuses the login of REDIS_URL (WRONGPASS" in line and "wrong" not in line


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (["-xautoclaim"], "XAUTOCLAIM:"),
        (["-xreadgroup", "-xadd"], "XADD, XREADGROUP:"),
        (["resetchannels", "&other:*"], "the channels gembackend:*:"),
        (["-ping"], "PING:"),
        (["-subscribe"], "SUBSCRIBE:"),
        (["-publish"], "PUBLISH:"),
        (["resetkeys", "~other:*"], "the keys gembackend:*:"),
        (["-@scripting"], "EVALSHA:"),
        (["-zadd"], "what EVALSHA runs:"),
        (["-@write", "-@pubsub"], "XADD, XGROUP, XREADGROUP, XAUTOCLAIM, XACK, XDEL, SET, "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
async def test_what_the_acl_of_redis_forbids(
    site: Installation, server: blocking_redis.Redis, rules: list[str], said: str
) -> None:
    line = await site.fault("Redis", REDIS_URL=with_acl(server, site.environment["REDIS_URL"], *rules))
    assert f"may not use {said}" in line, line


async def test_what_a_url_asks_for_and_the_acl_forbids(site: Installation, server: blocking_redis.Redis) -> None:
    url = with_acl(server, site.environment["REDIS_URL"], "-client", "-select")
    for parameter, command in (("client_name=chat", "client"), ("db=3", "select")):
        line = await site.fault("Redis", REDIS_URL=f"{url}?{parameter}")
        assert "refuses the connection (NOPERM" in line and f"'{command}'" in line


async def test_redis_may_keep_its_state_to_itself(site: Installation, server: blocking_redis.Redis) -> None:
    line = await site.warning("Redis", REDIS_URL=with_acl(server, site.environment["REDIS_URL"], "-info", "-del"))
    assert "INFO is forbidden" in line
    await until(lambda: asyncio.to_thread(lambda: server.dbsize() == 0), "keys that expire where DEL is forbidden")


async def test_a_redis_that_is_full(site: Installation, server: blocking_redis.Redis) -> None:
    server.config_set("maxmemory", 1)
    assert "is full, XADD is refused (OOM)" in await site.fault("Redis")


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "volatile-ttl"])
async def test_a_redis_that_drops_keys(site: Installation, server: blocking_redis.Redis, policy: str) -> None:
    server.config_set("maxmemory-policy", policy)
    line = await site.warning("Redis")
    assert f"maxmemory-policy is {policy}" in line and "noeviction" in line


async def test_a_redis_that_forgets(site: Installation, server: blocking_redis.Redis) -> None:
    server.config_set("appendonly", "no")
    assert "appendonly yes" in await site.warning("Redis")


async def test_a_replica_of_redis(site: Installation, server: blocking_redis.Redis) -> None:
    server.replicaof("127.0.0.1", 1)
    assert "is a read-only replica" in await site.fault("Redis")
    url = with_acl(server, site.environment["REDIS_URL"], "-info")
    status, lines = await site.check(REDIS_URL=url)
    assert (status, lines[2]) == (1, "FAIL  Redis: is a read-only replica: REDIS_URL must name the primary")


async def test_a_redis_that_is_too_old(site: Installation, server: blocking_redis.Redis, tmp_path: Path) -> None:
    version = str(server.info("server")["redis_version"])
    old, new = (
        f"redis_version:{each}".encode() for each in (version, "5.0.0"[: len(version)].ljust(len(version), "0"))
    )
    upstream = Path(unquote(urlsplit(site.environment["REDIS_URL"]).path))
    async with installations.disguised(upstream, old, new, tmp_path / "redis.sock"):
        line = await site.fault("Redis", REDIS_URL=f"unix://{quote(str(tmp_path))}/redis.sock")
    assert "needs Redis 6.2 or newer" in line


async def test_a_node_of_a_redis_cluster(
    site: Installation, tmp_path: Path, unused_tcp_port_factory: Callable[[], int]
) -> None:
    port = 65_536
    while port > 50_000:  # the bus of the cluster listens 10,000 further up
        port = unused_tcp_port_factory()
    options = ["--cluster-enabled", "yes", "--port", str(port), "--dir", str(tmp_path), "--appendonly", "yes"]
    command = (await find_program()).path
    node = await asyncio.create_subprocess_exec(command, *options, stdout=asyncio.subprocess.DEVNULL)
    try:
        with blocking_redis.Redis(port=port) as client:

            async def answers() -> bool:
                try:
                    return bool(client.ping())
                except blocking_redis.ConnectionError:
                    return False

            await until(answers, "a node of a cluster")
            url = f"redis://127.0.0.1:{port}"
            assert "is one node of a cluster" in await site.fault("Redis", REDIS_URL=url)
            client.execute_command("CLUSTER ADDSLOTS", *range(16384))

            async def whole() -> bool:
                return "cluster_state:ok" in str(client.execute_command("CLUSTER INFO")).replace("': '", ":")

            await until(whole, "a cluster of one node")
            assert (await site.check(REDIS_URL=url))[0] == 0
    finally:
        node.kill()
        await node.wait()


async def test_a_database_of_redis_that_is_not_there(site: Installation) -> None:
    url = f"{site.environment['REDIS_URL']}?db=4711"
    assert "DB index is out of range" in await site.fault("Redis", REDIS_URL=url)


# Gemini


async def test_a_key_that_gemini_refuses(site: Installation) -> None:
    site.gemini.default = Behaviour(
        status="INVALID_ARGUMENT", reason="API_KEY_INVALID", detail="AIza-hush is not valid"
    )
    assert "refuses the key of GEMINI_API_KEY" in await site.fault("Gemini")


@pytest.mark.parametrize(("variable", "model"), [("GEMINI_MODEL", MODEL), ("GEMINI_FALLBACK_MODEL", FALLBACK)])
async def test_a_model_that_gemini_does_not_know(site: Installation, variable: str, model: str) -> None:
    site.gemini.unknown = {model}
    assert f"has no model {model}: see {variable}" in await site.fault("Gemini")
    site.gemini.unknown, site.gemini.embedding = set(), {model}
    assert f"{model} is no model for prompts: see {variable}" in await site.fault("Gemini")


async def test_a_gemini_that_is_away(site: Installation) -> None:
    await site.gemini.stop()
    assert "cannot be reached (UNAVAILABLE)" in await site.fault("Gemini")


# Stripe


async def test_a_key_that_stripe_refuses(site: Installation) -> None:
    await site.fault("Stripe", STRIPE_SECRET_KEY="sk_test_another")


async def test_a_price_that_stripe_does_not_know(site: Installation) -> None:
    await site.fault("Stripe", PRO_PRICE_ID="price_of_another_account")


async def test_a_key_that_may_not_list_events(site: Installation) -> None:
    site.stripe.rule(lambda call: Treatment(status=403) if call.path == "/v1/events" else None)
    assert "may not list events" in await site.fault("Stripe")


async def test_a_price_that_is_paid_once(site: Installation) -> None:
    site.stripe.account.terms = {"recurring": None, "type": "one_time"}
    assert "a subscription needs a recurring price" in await site.fault("Stripe")


async def test_a_key_of_the_browsers(site: Installation) -> None:
    assert "not a secret key" in await site.fault("Stripe", STRIPE_SECRET_KEY="pk_test_published")


async def test_a_signing_secret_that_is_another_value(site: Installation) -> None:
    await site.fault("Stripe", STRIPE_WEBHOOK_SIGNING_SECRET="we_1P0kXn")
    await site.warning("Stripe", STRIPE_WEBHOOK_SIGNING_SECRET="of-our-own-proxy")


# What else there is


async def test_a_gateway_of_codes_that_is_down(site: Installation, unused_tcp_port: int) -> None:
    line = await site.fault("OTP gateway", OTP_WEBHOOK_URL=f"http://127.0.0.1:{unused_tcp_port}/codes?token={PASSWORD}")
    assert f"127.0.0.1:{unused_tcp_port} of OTP_WEBHOOK_URL cannot be reached (connection refused)" in line


async def test_a_gateway_whose_certificate_is_not_trusted(site: Installation, tmp_path: Path) -> None:
    context = certificates.server_side(certificates.make(tmp_path, PASSWORD))
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    assert "certificate" in await site.fault("OTP gateway", OTP_WEBHOOK_URL=f"https://127.0.0.1:{port}/codes")
    server.close()


async def test_everything_at_once_is_told_in_the_order_of_the_checks(site: Installation, tmp_path: Path) -> None:
    await site.gemini.stop()
    await site.stripe.stop()
    away = socket.create_server(("127.0.0.1", 0))
    port = away.getsockname()[1]
    away.close()
    status, lines = await site.check(
        DATABASE_URL=f"postgresql://postgres@/chat?host={tmp_path}",
        REDIS_URL=f"unix://{tmp_path}/redis.sock",
        OTP_WEBHOOK_URL=f"http://127.0.0.1:{port}",
        PROMPT_WORKER="7",
    )
    assert status == 1
    assert [line.split(":")[0] for line in lines] == [
        "ok    configuration",
        "warn  configuration",
        "FAIL  PostgreSQL",
        "FAIL  Redis",
        "FAIL  Gemini",
        "FAIL  Stripe",
        "FAIL  OTP gateway",
    ]


async def test_codes_in_replies_are_warned_of(site: Installation) -> None:
    status, lines = await site.check(OTP_DELIVERY="response")
    assert status == 0
    assert [line[:20] for line in lines[:2]] == ["ok    configuration", "warn  configuration:"]
