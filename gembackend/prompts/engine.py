"""The prompt engine put together: what its actors share, and the order in which they start."""

import os
import secrets
import socket

from redis.asyncio import Redis

from gembackend.actors import Actor, Mailbox
from gembackend.config import Settings
from gembackend.live.feed import Feed
from gembackend.live.listener import Listener
from gembackend.live.polls import FeedPoll, FinishPoll
from gembackend.live.waiters import Waiters
from gembackend.plumbing.postgres import Database
from gembackend.plumbing.redis_state import RedisState
from gembackend.prompts.admission import Admission
from gembackend.prompts.announcer import Announcer
from gembackend.prompts.attempt import Model
from gembackend.prompts.breaker import THRESHOLD as BREAKER_THRESHOLD
from gembackend.prompts.breaker import Breaker
from gembackend.prompts.cancel import Canceller
from gembackend.prompts.claims import Claims
from gembackend.prompts.committer import Committer
from gembackend.prompts.finder import Finder
from gembackend.prompts.gate import Gate
from gembackend.prompts.heartbeat import Heartbeat
from gembackend.prompts.intake import Intake
from gembackend.prompts.limit import AdaptiveLimit
from gembackend.prompts.pool import Ended, WorkerPool
from gembackend.prompts.reader import Reader
from gembackend.prompts.storing import Storing
from gembackend.prompts.stream import Stream
from gembackend.prompts.sweeper import Sweeper
from gembackend.prompts.turns import Turns
from gembackend.prompts.writer import StreamWriter
from gembackend.quota.rules import forgiven_a_day


class PromptEngine:
    """One process's share of the engine.

    `intake.accept`, `waiters`, `feed` and `canceller` are what the rooms use; `redis` tells whether hints
    come through. `actors` is in starting order: each uses only those before it, so stopping in the opposite order
    first stops what brings work in and last what writes results out. Whoever waits or listens is let go when the polls
    stop, which is after the last result of the drain has been stored.
    """

    def __init__(self, settings: Settings, database: Database, redis: Redis, blocking: Redis, model: Model) -> None:
        process = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        lease = settings.prompt_lease_seconds
        admission = Admission(settings.prompt_backlog_limit)
        endings: Mailbox[Ended] = Mailbox(capacity=4 * settings.prompt_workers + 64)
        claims = Claims(
            database,
            process,
            lease_seconds=lease,
            max_attempts=settings.prompt_max_attempts,
            history_messages=settings.prompt_history_messages,
        )
        stream = Stream(redis, blocking, consumer=process)
        self.redis = RedisState()
        writer = StreamWriter(stream, self.redis)
        self.waiters = Waiters()
        self.feed = Feed(writer.cast, process)
        pool = WorkerPool(
            model,
            endings,
            self.feed,
            Gate(
                AdaptiveLimit(settings.prompt_workers),
                Breaker(min(BREAKER_THRESHOLD, settings.prompt_max_attempts)),
            ),
            max_attempts=settings.prompt_max_attempts,
        )
        storing = Storing(database, forgiven=forgiven_a_day(settings.basic_daily_prompts))
        announcer = Announcer(self.feed, self.waiters, writer, admission)
        committer = Committer(endings, storing, announcer, Turns(claims, pool, storing, writer))
        self.intake = Intake(
            database,
            announcer,
            admission,
            daily_prompts=settings.basic_daily_prompts,
            room_limit=settings.prompt_room_limit,
        )
        self.canceller = Canceller(database, pool, announcer)
        self.actors: tuple[Actor, ...] = (
            writer,
            FinishPoll(database, self.waiters),
            FeedPoll(database, self.feed),
            committer,
            Heartbeat(claims, pool, lease),
            pool,
            Listener(redis, self.redis, self.waiters, self.feed, pool.abandon),
            Reader(stream, self.redis, claims, pool, writer),
            Finder(database, self.redis, claims, pool, writer),
            Sweeper(database, stream, self.redis, writer, admission, lease),
            self.intake,
        )
