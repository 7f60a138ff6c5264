"""The Redis client, with every wait bounded."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

SOCKET_SECONDS = 1.0
OUTAGES = (RedisError, OSError, TimeoutError)
"""What a Redis command may raise when Redis is away, loading, emptied or read-only."""


def connect(url: str, *, connections: int = 8, socket_seconds: float = SOCKET_SECONDS) -> "Redis":
    """A client that connects when first used, never retries by itself and never waits longer than its bounds."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=socket_seconds,
        socket_timeout=socket_seconds,
        socket_connect_timeout=SOCKET_SECONDS,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        protocol=2,
    )
    return Redis.from_pool(pool)
