"""Keeps a server from outliving the process that wanted it, also when that one is killed with SIGKILL.

Run as ``python guard.py SIGNAL GRACE COMMAND...`` with the read end of a pipe as standard input. The guard starts the
command; when the pipe reaches its end (whoever held the other end closed it or died), or on SIGTERM, SIGINT or SIGHUP,
it sends the command SIGNAL (a number), kills it after GRACE seconds, and exits with its status. When the command ends
by itself the guard exits with its status at once. It uses the standard library alone and starts in milliseconds.
"""

import os
import select
import signal
import subprocess
import sys
import time


def guard(stop_signal: int, grace: float, command: list[str]) -> int:
    """Run the command until it ends or is no longer wanted; return its exit status, 128 + N for a death by signal N."""
    wakeup, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
        return 127
    _wait_until_unwanted(server, wakeup)
    if server.poll() is None:
        server.send_signal(stop_signal)
        _wait_for_end(server, wakeup, grace)
        server.kill()
    status = server.wait()
    return 128 - status if status < 0 else status


def _wait_until_unwanted(server: subprocess.Popen[bytes], wakeup: int) -> None:
    """Return when the server has ended, the pipe on standard input has, or a signal asks to stop."""
    while server.poll() is None:
        readable, _, _ = select.select([0, wakeup], [], [])
        if 0 in readable and not os.read(0, 4096):
            return
        if wakeup in readable and any(number != signal.SIGCHLD for number in os.read(wakeup, 4096)):
            return


def _wait_for_end(server: subprocess.Popen[bytes], wakeup: int, seconds: float) -> None:
    """Return when the server has ended or the time is over."""
    deadline = time.monotonic() + seconds
    while server.poll() is None and (left := deadline - time.monotonic()) > 0:
        if select.select([wakeup], [], [], left)[0]:
            os.read(wakeup, 4096)


if __name__ == "__main__":
    sys.exit(guard(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
