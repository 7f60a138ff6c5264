"""The guard by itself, with small Python programs in the place of servers."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from gembackend.embedded import guard

# Says "ready", then what signal it got, and ends with status 7.
POLITE = (
    "import signal, sys\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])\n"
    "print('ready', flush=True)\n"
    "print(signal.sigwait([signal.SIGINT, signal.SIGTERM]).name, flush=True)\n"
    "sys.exit(7)\n"
)
# Says "ready" and heeds no signal but SIGKILL; ends by itself when nobody reads what it says.
STUBBORN = (
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('ready', flush=True)\n"
    "while True: time.sleep(60)\n"
)

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program under a guard; at the end every pipe is closed and every guard waited for."""
    with ExitStack() as guards:

        def start(*command: str, stop: signal.Signals = signal.SIGTERM, grace: float = 30) -> subprocess.Popen[str]:
            launch = [sys.executable, "-I", "-S", guard.__file__, str(int(stop)), str(grace), *command]
            pipe = subprocess.PIPE
            process = subprocess.Popen(launch, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
            return guards.enter_context(process)

        yield start


def line(process: subprocess.Popen[str]) -> str:
    """The next line that the program under the guard prints."""
    assert process.stdout
    return process.stdout.readline().strip()


def test_a_server_that_ends_by_itself_ends_its_guard_with_its_status(start: Start) -> None:
    assert start(sys.executable, "-c", "raise SystemExit(3)").wait() == 3


def test_a_server_that_dies_of_a_signal_is_reported_as_a_shell_would(start: Start) -> None:
    assert start(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)").wait() == 128 + 9


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_end_of_the_pipe_sends_the_chosen_signal_and_waits(start: Start, stop: signal.Signals) -> None:
    process = start(sys.executable, "-c", POLITE, stop=stop)
    assert line(process) == "ready"
    assert process.stdin
    process.stdin.close()
    assert line(process) == stop.name
    assert process.wait() == 7


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_guard_stops_the_server_in_its_own_way(start: Start, sent: signal.Signals) -> None:
    process = start(sys.executable, "-c", POLITE, stop=signal.SIGINT)
    assert line(process) == "ready"
    process.send_signal(sent)
    assert line(process) == "SIGINT"
    assert process.wait() == 7


def test_a_server_that_does_not_heed_the_signal_is_killed(start: Start) -> None:
    process = start(sys.executable, "-c", STUBBORN, grace=0.05)
    assert line(process) == "ready"
    assert process.stdin
    process.stdin.close()
    assert process.wait() == 128 + 9


def test_words_in_the_pipe_are_not_its_end(start: Start) -> None:
    process = start(sys.executable, "-c", POLITE)
    assert process.stdin
    process.stdin.write("anything")
    process.stdin.flush()
    assert line(process) == "ready"
    assert process.poll() is None
    process.stdin.close()
    assert line(process) == "SIGTERM"


def test_a_program_that_is_not_there_is_named(start: Start) -> None:
    process = start("/no/such/program")
    assert process.stderr
    assert process.stderr.read() == "cannot run /no/such/program: No such file or directory\n"
    assert process.wait() == 127
