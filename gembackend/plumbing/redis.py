"""The Redis client, with every wait bounded."""

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MaxConnectionsError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeout

from gembackend.plumbing import redis_address

SOCKET_SECONDS = 1.0
OUTAGES = (RedisError, OSError, TimeoutError)
"""What a Redis command may raise when Redis is away, loading, emptied or read-only."""

_REASONS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (OutOfMemoryError, "is full (maxmemory)"),
    (ReadOnlyError, "is read-only (a replica)"),
    (NoPermissionError, "forbids a command or key that is needed (ACL)"),
    (AuthenticationError, "refuses the login"),
    (BusyLoadingError, "is loading its data"),
    (MaxConnectionsError, "has no connection free"),
    ((RedisTimeout, TimeoutError), "does not answer in time"),
)
_WORDS = {
    "OOM": "is full (maxmemory)",
    "READONLY": "is read-only (a replica)",
    "NOPERM": "forbids a command or key that is needed (ACL)",
    "NOAUTH": "refuses the login",
    "WRONGPASS": "refuses the login",
    "LOADING": "is loading its data",
    "MISCONF": "does not take writes, because it cannot save them (MISCONF)",
    "NOREPLICAS": "does not take writes, because it has too few replicas (NOREPLICAS)",
    "NOGROUP": "has lost its data",
    "WRONGTYPE": "has something else under one of our keys (WRONGTYPE)",
    "MOVED": "is a cluster, which is not supported",
    "BUSY": "is busy with a script",
}


def reason(error: Exception) -> str:
    """What is the matter with Redis, for a person: a fixed set of sentences, none of which quotes the server."""
    for kinds, text in _REASONS:
        if isinstance(error, kinds) or isinstance(error.__cause__, kinds):
            return text
    if isinstance(error, ResponseError):
        # Of a pipeline: "Command # 1 (XADD …) of pipeline caused error: ('WRONGTYPE Operation against a key …',)"
        said = str(error).rpartition(" caused error: ")[2].lstrip("('\"")
        return _WORDS.get(said.partition(" ")[0], "refuses a command")
    return "cannot be reached"


def connect(url: str, *, connections: int = 8, socket_seconds: float = SOCKET_SECONDS) -> "Redis":
    """A client that connects when first used, never retries by itself and never waits longer than its bounds.

    Raises Refused for a URL that says what it may not; the settings have asked that before.
    """
    address = redis_address.read(url)
    server = {"host": address.host, "port": address.port} if address.path is None else {"path": address.path}
    over_tcp = SSLConnection if address.tls else Connection
    pool = BlockingConnectionPool(
        connection_class=over_tcp if address.path is None else UnixDomainSocketConnection,
        **address.options,
        **server,
        max_connections=connections,
        timeout=socket_seconds,
        socket_timeout=socket_seconds,
        socket_connect_timeout=SOCKET_SECONDS,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        protocol=2,
    )
    return Redis.from_pool(pool)
