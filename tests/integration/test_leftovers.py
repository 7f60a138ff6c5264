"""What a test run leaves behind when it is killed, and who clears it up."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT
from tests.servers import Home

OWNER = """
import sys
from tests.servers import Home
home = Home("test", sys.argv[1])
print(home.path, flush=True)
sys.stdin.read()
"""


def test_the_directory_of_a_run_that_was_killed_is_removed_by_the_next_and_that_of_one_at_work_is_not(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as other:
        assert other.stdout
        at_work = Path(other.stdout.readline().strip())
        (at_work / "postgres").mkdir()
        mine = Home("test", str(tmp_path))
        assert at_work.is_dir() and mine.path.is_dir()
        other.send_signal(signal.SIGKILL)
    third = Home("break", str(tmp_path))
    assert not at_work.exists()
    assert mine.path.is_dir(), "its owner lives, although it is the same one"
    mine.remove()
    third.remove()
    assert list(tmp_path.iterdir()) == []
