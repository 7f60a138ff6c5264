"""The operators' own tools, found on this machine or fetched; a test that needs one that cannot be had is skipped, and
the last line of a run tells what was left out."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import pytest

NEWMAN = "6.2.2"
SERVERS = "/usr/local/sbin:/usr/sbin"
"""Where Debian puts servers, which is on the path of root alone."""


def on_path(name: str, package: str | None) -> str:
    """A program, of a Debian package if there is one; skips the test where it is not installed."""
    return shutil.which(name) or shutil.which(name, path=SERVERS) or lacking(name, package)


def lacking(name: str, package: str | None) -> NoReturn:
    """Skip the test for want of a program, in the words that `left_out` reads."""
    pytest.skip(f"{name} is not installed here" + (f" (Debian: apt-get install {package})" if package else ""))


def left_out(reasons: Iterable[str]) -> str | None:
    """One line on so many skipped tests with these reasons: what to install, or why else; None when there are none."""
    reasons = list(reasons)
    found = [re.search(r"(\S+) is not installed here(?: \(Debian: apt-get install (\S+)\))?", text) for text in reasons]
    tools = sorted({match[1] for match in found if match})
    packages = sorted({match[2] for match in found if match and match[2]})
    others = sorted({text.removeprefix("Skipped: ") for text, match in zip(reasons, found, strict=True) if not match})
    if not reasons:
        return None
    why = [f"{', '.join(tools)} {'is' if len(tools) == 1 else 'are'} not installed here"] if tools else []
    remedy = f" (apt-get install {' '.join(packages)})" if packages else ""
    number = "1 test" if len(reasons) == 1 else f"{len(reasons)} tests"
    return " ".join(f"left out: {number}, because {'; '.join(why + others)}{remedy}".split())


def newman() -> list[str]:
    """The command line of newman: the one installed here, or one that npm puts into the user's cache directory."""
    if found := shutil.which("newman"):
        return [found]
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        lacking("npm", "npm")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = caches / "gembackend" / f"newman-{NEWMAN}"
    script = kept / "node_modules" / "newman" / "bin" / "newman.js"
    if not script.exists():
        _install(npm, f"newman@{NEWMAN}", kept)
    return [node, str(script)]


def _install(npm: str, package: str, target: Path) -> None:
    """Put an npm package into a directory that is there completely or not at all; skips the test where npm cannot."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as made:
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "--fetch-retries=0"]
        done = subprocess.run(
            [npm, "install", "--prefix", made, *options, package], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"npm could not install {package}: {done.stderr.strip()[-300:]}")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(made, target)
        os.mkdir(made)


def failures_of(report: Path) -> list[str]:
    """What failed in a run of newman, from its JSON report."""
    run = json.loads(report.read_text())["run"]
    return [f"{failure['source'].get('name')}: {failure['error']['message']}" for failure in run["failures"]]
