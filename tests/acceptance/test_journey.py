"""A newcomer's first minutes: ./ops/run, the README's lines pasted into a shell, Ctrl-C."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """./ops/run with a data directory and a port of its own, and its URL."""
    environment = {**os.environ, "GEMBACKEND_DATA_DIR": str(tmp_path / "data"), "SERVER_PORT": "0"}
    process = subprocess.Popen(
        [ROOT / "ops/run"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if ready := re.search(r"gembackend is ready at (\S+)", line):
            yield process, ready[1]
            break
    else:
        pytest.fail("".join(said))
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def shell(script: str, directory: Path) -> str:
    """What a shell prints for lines that are pasted in a directory."""
    done = subprocess.run(["/bin/sh", "-eu", "-c", script], capture_output=True, text=True, timeout=60, cwd=directory)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_lines_of_the_readme_do_what_it_says(dev: tuple[subprocess.Popen[str], str], tmp_path: Path) -> None:
    process, url = dev
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    script = "echo; echo ----\n".join(["".join(blocks[:2]), *blocks[2:4]])
    assert "API=http://127.0.0.1:3000\n" in script
    printed = shell(script.replace("API=http://127.0.0.1:3000", f"API={url}"), tmp_path)
    answers, events, more = printed.split("----\n")
    signed_up, first, second, messages, me = _documents(answers)
    assert signed_up["user"]["name"] == "Ada"
    assert first["status"] == "answered"
    assert "stand-in" in first["reply"]["content"]
    assert second["status"] == "answered"
    assert "2 earlier messages" in second["reply"]["content"]
    assert [message["role"] for message in messages["messages"]] == ["user", "assistant", "user", "assistant"]
    assert me["usage"]["prompts_today"] == 2
    told = re.findall(r"event: (\S+)", events)
    assert told[:3] == ["prompt.queued", "prompt.running", "reply.delta"] and told[-1] == "prompt.answered"
    again, found = _documents(more)
    assert (again["status"], again["prompt"]) == ("queued", "And on Mars?")
    assert {message["prompt_id"] for message in found["messages"]} >= {second["id"]}
    exported = json.loads((tmp_path / "room.json").read_text())
    assert exported["chatroom"]["name"] == "First steps" and len(exported["messages"]) >= 6

    started = psutil.Process(process.pid).children(recursive=True)
    assert {"postgres", "redis-server"} <= {child.name() for child in started}
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert psutil.wait_procs(started, timeout=10)[1] == []


def _documents(printed: str) -> Iterator[dict[str, Any]]:
    """The JSON documents in what was printed, one after another."""
    decoder, position = json.JSONDecoder(), 0
    while position < len(printed.rstrip()):
        document, position = decoder.raw_decode(printed, position)
        yield document
        while position < len(printed) and printed[position].isspace():
            position += 1
