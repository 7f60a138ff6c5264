"""Starting, watching and stopping the servers that `gembackend dev` and the tests run beside themselves."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from gembackend.embedded import guard

T = TypeVar("T")

# Servers get this environment and no other: PGPORT, LANG and their like must not change what is started.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "TZ": "UTC"}


_NOBODY = 2**31 - 1
"""A process id that no process has."""


class EmbeddedError(Exception):
    """Something that `dev` starts could not be started; the text is for the person at the terminal."""


def _private(path: str, flags: int) -> int:
    """Open a file that is, when made here, for its owner alone: a server's log may quote what it was asked."""
    return os.open(path, flags, 0o600)


class GuardedServer:
    """A server process under its guard (guard.py), in a session of its own, its output in a log file.

    The server is stopped when this process ends, however it ends. The log of the start before is kept beside the new
    one, as NAME.old.
    """

    def __init__(self, command: Sequence[str], *, log: Path, stop_signal: signal.Signals, grace: float = 15.0) -> None:
        """Start it; `stop_signal` asks it to stop, SIGKILL follows after `grace` seconds."""
        self.log = log
        if log.exists():
            log.replace(log.with_name(log.name + ".old"))
        launch = [sys.executable, "-I", "-S", guard.__file__, str(int(stop_signal)), str(grace), *command]
        with open(log, "wb", opener=_private) as output:
            self._guard = subprocess.Popen(
                launch, stdin=subprocess.PIPE, stdout=output, stderr=output, env=ENVIRONMENT, start_new_session=True
            )

    @property
    def ended(self) -> bool:
        """Whether the server is not running any more."""
        return self._guard.poll() is not None

    def log_tail(self) -> str:
        """The last lines of what the server printed, indented."""
        lines = self.log.read_text(errors="replace").splitlines()[-12:]
        return "\n".join(f"    {line}" for line in lines)

    async def stop(self) -> None:
        """Ask the server to stop and wait until it has; harmless when it has already."""
        if self._guard.stdin:
            self._guard.stdin.close()
        await asyncio.to_thread(self._guard.wait)


async def until_ready(
    server: GuardedServer, name: str, probe: Callable[[], Awaitable[T]], not_yet: tuple[type[Exception], ...]
) -> T:
    """Call `probe` until it raises none of `not_yet`, and return its result.

    Raises EmbeddedError with the end of the server's log when the server ends or is not ready within a minute.
    """
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    return await probe()
                except not_yet:
                    if server.ended:
                        raise EmbeddedError(
                            f"{name} stopped while starting. The end of {server.log}:\n{server.log_tail()}"
                        ) from None
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise EmbeddedError(
            f"{name} was not ready after a minute. The end of {server.log}:\n{server.log_tail()}"
        ) from None


async def run(*command: str, what: str) -> str:
    """Run one short command in the servers' environment and return what it printed.

    Raises EmbeddedError, saying that `what` failed and with the command's error output, when its status is not 0.
    The command is killed when the caller is cancelled.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        start_new_session=True,  # Ctrl-C is for the caller, who then cancels
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise EmbeddedError(f"{what} failed:\n{(errors or output).decode(errors='replace').strip()}")
    return output.decode(errors="replace")


async def end_orphan(pid_file: Path, home: Path, stop_signal: signal.Signals) -> None:
    """Stop the server that an earlier, killed run may have left at work in `home`, its working directory.

    The first line of `pid_file` is its process id; a process of that id that works elsewhere is not touched, and the
    line is made to say that the server is gone. Raises EmbeddedError when it is still there after 20 seconds.
    """
    if not pid_file.exists():
        return
    import psutil  # of the extra `dev`, as the servers are; wanted only after a start that ended badly

    try:
        number, *rest = pid_file.read_text().split("\n")
        process = psutil.Process(int(number))
        if Path(process.cwd()) != home:
            # A server would take the process for itself. What else it looks for, what it left in memory, stays.
            pid_file.write_text("\n".join([str(_NOBODY), *rest]))
            return
        process.send_signal(stop_signal)
    except (OSError, ValueError, psutil.Error):
        return
    try:
        await asyncio.to_thread(process.wait, 20)
    except psutil.TimeoutExpired:
        raise EmbeddedError(f"process {process.pid} of an earlier start is still at work in {home}; stop it") from None


def socket_home(preferred: Path, name: str) -> tuple[Path, bool]:
    """Return the directory for the Unix socket `name`, and whether it is a temporary one, the caller's to remove.

    It is the preferred one unless a socket cannot be made there: the path is too long (about 100 bytes), or the file
    system has no sockets. A comma would be read as the end of the path in a PostgreSQL URL.
    """
    trial = preferred / ("t" * len(name))
    if "," not in str(preferred):
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(os.fsencode(trial))
            trial.unlink()
        except OSError:
            trial.unlink(missing_ok=True)
        else:
            return preferred, False
    return Path(tempfile.mkdtemp(prefix="gembackend-")), True
