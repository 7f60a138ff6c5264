"""Rate limits: at most so many requests in any so many seconds, counted in Redis for all processes together.

A sliding log: the times of the requests that passed, in a sorted set that one script trims, counts and adds to. It
holds no more entries than the limit, is exact at every moment, and knows to the millisecond when the next may pass.
"""

import hashlib
import math
from collections import OrderedDict, deque
from time import monotonic

from redis.asyncio import Redis

from gembackend.config import RateLimit
from gembackend.plumbing import metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.ids import new_id
from gembackend.plumbing.logs import logger
from gembackend.plumbing.outages import Outages
from gembackend.plumbing.redis import OUTAGES

REDIS_PAUSE_SECONDS = 2.0
"""How long Redis is left alone after it failed, so that not every request waits for it."""
LOCAL_CAPACITY = 10_000

log = logger(__name__)

_SCRIPT = """
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2]) * 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - window))
if redis.call('ZCARD', KEYS[1]) < limit then
    redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[3])
    redis.call('PEXPIRE', KEYS[1], ARGV[2] * 1000)
    return 0
end
local oldest = redis.call('ZRANGE', KEYS[1], -limit, -limit, 'WITHSCORES')[2]
return math.max(1, math.ceil((oldest + window - now) / 1000000))
"""
"""0 when the request may pass, else the seconds until one may."""


class RateLimits:
    """Admits requests by a subject of some kind: a client's address, a phone.

    While Redis is away each process goes by its own count and lets half as many pass.
    """

    def __init__(self, redis: Redis, limit: RateLimit) -> None:
        self._script = redis.register_script(_SCRIPT)
        self._limit = limit
        self._local = _LocalLog(RateLimit(max(1, limit.requests // 2), limit.seconds))
        self._redis_from = 0.0
        self._outages = Outages()

    async def admit(self, kind: str, subject: str | bytes) -> None:
        """Count a request; raises Fault("rate_limited") with a true Retry-After when it is one too many."""
        wait = await self._wait(f"gembackend:limit:{kind}:{_name(subject)}")
        if wait:
            metrics.RATE_LIMITED.labels(kind).inc()
            raise Fault("rate_limited", "Too many requests; see the Retry-After header.", retry_after=wait)

    async def _wait(self, key: str) -> int:
        if monotonic() >= self._redis_from:
            try:
                arguments: list[str | int] = [self._limit.requests, self._limit.seconds, new_id().hex]
                wait = int(await self._script(keys=[key], args=arguments))
            except OUTAGES as error:
                self._redis_from = monotonic() + REDIS_PAUSE_SECONDS
                if self._outages.failed(name := type(error).__name__):
                    log.warning("rate_limits_local", error=name)
            else:
                if self._outages.works():
                    log.info("rate_limits_shared")
                return wait
        metrics.RATE_LIMITS_LOCAL.inc()
        return self._local.wait(key)


async def try_script(redis: Redis, key: str) -> None:
    """Count one request under a key that is gone a second later; raises what `OUTAGES` lists."""
    await redis.register_script(_SCRIPT)(keys=[key], args=[1, 1, "check"])


class _LocalLog:
    """The same sliding log in memory, for a bounded number of subjects; those not seen for longest go first."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._passed: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, key: str) -> int:
        """0 when the request may pass, else the seconds until one may."""
        now = monotonic()
        times = self._passed.setdefault(key, deque(maxlen=self._limit.requests))
        self._passed.move_to_end(key)
        if len(self._passed) > LOCAL_CAPACITY:
            self._passed.popitem(last=False)
        if len(times) == self._limit.requests and times[0] > now - self._limit.seconds:
            return max(1, math.ceil(times[0] + self._limit.seconds - now))
        times.append(now)
        return 0


def _name(subject: str | bytes) -> str:
    """A name of fixed length that does not spell the subject."""
    return hashlib.sha256(subject if isinstance(subject, bytes) else subject.encode()).hexdigest()[:32]
