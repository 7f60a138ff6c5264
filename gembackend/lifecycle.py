"""Running the service until it is told to stop: signals, start-up failures, exit status."""

import asyncio
import importlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any, TypeVar

from gembackend.config import Settings
from gembackend.plumbing import logs
from gembackend.plumbing.postgres import DatabaseAway, SchemaMismatch
from gembackend.plumbing.traces import TracesRefused

log = logs.logger(__name__)
T = TypeVar("T")

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_FORCED = 130
OPEN_FILES = 65_536
SWITCH_SECONDS = 0.0005
"""How long a thread that computes keeps the interpreter from the event loop. With Python's own 5 ms, each time that the
loop has looked at its sockets, the slowest of a hundred round trips took 16 ms; with these it took what it takes alone.
"""


class Told(Exception):
    """The process was told to stop before it was ready."""


class StopSignal:
    """SIGINT or SIGTERM asks the process to stop; a second one ends it on the spot."""

    def __init__(self) -> None:
        self.given = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._receive)

    def _receive(self) -> None:
        if self.given.is_set():
            log.warning("forced_exit")
            os._exit(EXIT_FORCED)
        self.given.set()

    async def or_else(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work, or raise Told when the signal comes first; the work is cancelled then."""
        working, waiting = asyncio.create_task(work), asyncio.create_task(self.given.wait())
        try:
            await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise Told
            return working.result()
        finally:
            for task in (working, waiting):
                task.cancel()
            await asyncio.gather(working, waiting, return_exceptions=True)


def raise_file_limit() -> None:
    """Allow more open sockets than the usual soft limit of 1,024, where the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def leave_no_zombies() -> None:
    """As process 1 of a container, let the kernel bury the children of others that are left to it: it has none itself.

    A parent that ignores SIGCHLD is not asked about its children's ends (POSIX, sigaction). What a shell in the
    container left behind would otherwise stay in the process table, for want of an init.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def let_the_loop_go_first() -> None:
    """Let threads (words for the search, the metrics' text) not keep the event loop waiting; they are done later."""
    sys.setswitchinterval(SWITCH_SECONDS)


async def serve(settings: Settings) -> int:
    """Serve until told to stop; the exit status is 0 after a clean drain."""
    leave_no_zombies()
    return await _serve(settings, StopSignal(), announce=lambda _url: None)


async def dev(settings: Settings, say: Callable[[str], None]) -> int:
    """Start what the settings lack, serve, and stop it all; also when the parent process ends."""
    from gembackend.embedded.services import EmbeddedError, embedded_services, parent_gone

    stop = StopSignal()
    orphaned = asyncio.create_task(parent_gone(), name="parent-gone")
    orphaned.add_done_callback(lambda _: stop.given.set())
    async with AsyncExitStack() as embedded:
        # Importing takes longer than starting servers does; both go on side by side.
        importing = asyncio.create_task(asyncio.to_thread(importlib.import_module, "gembackend.app"))
        try:
            complete = await stop.or_else(embedded.enter_async_context(embedded_services(settings, say)))
            await importing
        except Told:
            return EXIT_OK
        except EmbeddedError as error:
            return _refuse(str(error))
        return await _serve(complete, stop, announce=lambda url: _greet(url, complete, say))


def _greet(url: str, settings: Settings, say: Callable[[str], None]) -> None:
    say(f'Database: psql "{settings.database_url}"')
    say(f"gembackend is ready at {url}  (Ctrl-C stops it)")


async def _serve(settings: Settings, stop: StopSignal, announce: Callable[[str], None]) -> int:
    from gembackend.app import Service  # imports the Gemini SDK, which is slow

    raise_file_limit()
    let_the_loop_go_first()
    service = Service(settings)
    status = EXIT_OK
    try:
        await stop.or_else(service.start())
        announce(service.url)
        reason = await stop.or_else(service.failed())
        log.critical("failed", reason=reason)
        status = EXIT_FAILED
    except Told:
        log.info("stopping")
    except (SchemaMismatch, TracesRefused) as error:
        return _refuse(str(error))
    except DatabaseAway as away:
        return _refuse(f"cannot use {away.told}")
    except OSError as error:
        where = f"{settings.server_host}, port {settings.server_port}"
        return _refuse(f"cannot listen on {where}: {error.strerror} (SERVER_HOST, SERVER_PORT, METRICS_PORT)")
    finally:
        await service.stop(settings.shutdown_grace_seconds)
    log.info("stopped", status=status)
    return status


def _refuse(text: str) -> int:
    print(f"gembackend: {text}", file=sys.stderr)  # noqa: T201
    return EXIT_FAILED
