"""The operators' own tools, found on this machine or fetched; a test that needs one that cannot be had is skipped."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

NEWMAN = "6.2.2"
SERVERS = "/usr/local/sbin:/usr/sbin"
"""Where Debian puts servers, which is on the path of root alone."""


def on_path(name: str, package: str) -> str:
    """A program of a Debian package; skips the test where it is not installed."""
    found = shutil.which(name) or shutil.which(name, path=SERVERS)
    if found is None:
        pytest.skip(f"{name} is not installed here (Debian: apt-get install {package})")
    return found


def newman() -> list[str]:
    """The command line of newman: the one installed here, or one that npm puts into the user's cache directory."""
    if found := shutil.which("newman"):
        return [found]
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("newman needs Node.js and npm, which are not installed here")
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
