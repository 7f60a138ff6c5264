"""The audit behind `ops/audit`: what is known against the packages that the lock files pin.

pip-audit does the asking. What it is asked about includes one package with vulnerabilities that every service knows:
a service that does not name them, a mirror that answers with nothing for example, is not believed about the others.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from ops.install import HARMFUL

ROOT = Path(__file__).resolve().parents[1]
SERVICE = "https://api.osv.dev/v1/query"
CANARY = ("jinja2", "2.4.1")
LONGEST = timedelta(days=184)
"""A finding is ignored for no longer than this before somebody looks again."""
SECONDS = 600
"""How long asking about everything may take."""

CLEAN, FOUND, USAGE, NOT_ASKED = range(4)

_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)( ;.*)? \\")

Pin = tuple[str, str]


class UnreadableError(Exception):
    """A lock file, or the list of what is ignored, is not as it has to be."""


class NotAskedError(Exception):
    """The service, or pip-audit itself, could not be had."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A vulnerability that is known in a version. `ids` begins with the name that the service gives it."""

    pin: Pin
    ids: tuple[str, ...]
    fixed_in: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Exemption:
    """A finding that does not apply, until a day."""

    id: str
    package: str
    reason: str
    until: date

    def covers(self, finding: Finding) -> bool:
        """Whether this is about that finding."""
        return self.package == finding.pin[0] and self.id in finding.ids


def pins(lock: Path) -> list[Pin]:
    """Every package of a lock file with its version, for whatever platform; each must have its hashes."""
    try:
        lines = lock.read_text().splitlines()
    except OSError as error:
        raise UnreadableError(f"{lock}: {error.strerror}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith((" ", "#")):
            continue
        pin = _PIN.fullmatch(line)
        if pin is None or not lines[number : number + 1] or "--hash=" not in lines[number]:
            raise UnreadableError(f"{lock}:{number}: not a version pinned with its hashes; ops/lock writes these files")
        found.append((pin[1].lower(), pin[2]))
    return found


def exemptions(path: Path, today: date) -> list[Exemption]:
    """What the file says does not apply."""
    try:
        entries = tomllib.loads(path.read_text()).get("ignored", [])
        found = [Exemption(**entry) for entry in entries]
    except (OSError, TypeError, tomllib.TOMLDecodeError) as error:
        raise UnreadableError(f"{path}: {error}") from None
    for each in found:
        if not str(each.reason).strip() or type(each.until) is not date or each.until > today + LONGEST:
            raise UnreadableError(
                f"{path}: {each.id} needs a reason and, in `until`, a day at most {LONGEST.days} days off"
            )
    return found


def tool() -> Path:
    """The directory that pip-audit is installed in, filled the first time."""
    lock = ROOT / "ops/requirements-audit.lock"
    place = ROOT / ".venv/audit"
    if (place / "lock").exists() and (place / "lock").read_bytes() == lock.read_bytes():
        return place
    with tempfile.TemporaryDirectory(dir=ROOT / ".venv") as directory:
        made = Path(directory) / "audit"
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary=:all:"]
        command = [sys.executable, "-m", "pip", "install", *options, f"--target={made}", f"--requirement={lock}"]
        environment = {name: value for name, value in os.environ.items() if name not in HARMFUL}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotAskedError(f"pip-audit could not be installed: {_end_of(done.stderr)}")
        shutil.copy(lock, made / "lock")
        shutil.rmtree(place, ignore_errors=True)
        made.rename(place)
    return place


def ask(wanted: Iterable[Pin], service: str) -> list[Finding]:
    """What the service knows against these versions; all of them were answered for when this returns."""
    versions: dict[str, list[str]] = {}
    for name, version in dict.fromkeys(wanted):
        versions.setdefault(name, []).append(version)
    findings = []
    while versions:  # pip-audit takes one version of a package at a time; more are rare
        findings += _ask([(name, left.pop()) for name, left in versions.items()], service)
        versions = {name: left for name, left in versions.items() if left}
    return findings


def _ask(wanted: Sequence[Pin], service: str) -> list[Finding]:
    with tempfile.TemporaryDirectory() as directory:
        listed = Path(directory) / "requirements.txt"
        listed.write_text("".join(f"{name}=={version}\n" for name, version in (*wanted, CANARY)))
        options = ["--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off", f"--cache-dir={directory}"]
        options += ["--vulnerability-service=osv", f"--osv-url={service}", f"--requirement={listed}"]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pip_audit", *options],
                env={**os.environ, "PYTHONPATH": str(tool())},
                capture_output=True,
                text=True,
                check=False,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise NotAskedError(f"no answer within {SECONDS} s") from None
    try:
        answers = {(each["name"], each.get("version")): each for each in json.loads(done.stdout)["dependencies"]}
    except (ValueError, KeyError):
        raise NotAskedError(_end_of(done.stderr)) from None
    if not answers.get(CANARY, {}).get("vulns"):
        raise NotAskedError(f"it knows nothing against {'=='.join(CANARY)}, so its word on the others is worth nothing")
    if left_out := [pin for pin in wanted if "vulns" not in answers.get(pin, {})]:
        raise NotAskedError("it did not answer for " + ", ".join("==".join(pin) for pin in left_out))
    return [
        Finding(pin, (each["id"], *each["aliases"]), tuple(each["fix_versions"]), each["description"])
        for pin in wanted
        for each in answers[pin]["vulns"]
    ]


def _end_of(text: str) -> str:
    """The last line of what a program said: of a traceback, what it was about."""
    return (text.strip().splitlines() or ["it said nothing"])[-1][:500]


def report(findings: Sequence[Finding], where: Mapping[Pin, Sequence[str]], exempt: Sequence[Exemption]) -> int:
    """Tell a person what was found, and return the exit status."""
    today = _today()
    status = CLEAN
    for finding in findings:
        name, version = finding.pin
        covering = [each for each in exempt if each.covers(finding)]
        if any(each.until >= today for each in covering):
            print(f"ignored     {name} {version}  {finding.ids[0]}: {covering[0].reason} (until {covering[0].until})")
            continue
        status = FOUND
        fixed, locks = " or ".join(finding.fixed_in) or "no version yet", ", ".join(where[finding.pin])
        print(f"VULNERABLE  {name} {version}  {' '.join(finding.ids)}  fixed in {fixed}  ({locks})")
        print(f"            {finding.text[:300]}")
        for each in covering:
            print(f"            It was ignored until {each.until}: {each.reason}")
    for each in exempt:
        if not any(each.covers(finding) for finding in findings):
            print(f"not needed  {each.id} of {each.package} is not found any more; take it out of the ignored ones")
    if status == CLEAN:
        print(f"Nothing that applies is known against {len(where)} pinned packages.")
    return status


def _today() -> date:
    return datetime.now(UTC).date()


def main(arguments: Sequence[str]) -> int:
    """Audit, print what there is to say, and return the exit status; `ops/audit --help` describes all of it."""
    parser = argparse.ArgumentParser(prog="ops/audit", add_help=False)
    parser.add_argument("--service", default=SERVICE)
    parser.add_argument("--ignored", type=Path, default=ROOT / "ops/audit-ignored.toml")
    parser.add_argument("locks", nargs="*", type=Path)
    options = parser.parse_args(arguments)
    try:
        exempt = exemptions(options.ignored, _today())
        where: dict[Pin, list[str]] = {}
        for lock in options.locks or sorted((ROOT / "ops").glob("*.lock")):
            for pin in pins(lock):
                where.setdefault(pin, []).append(lock.name)
        return report(ask(where, options.service), where, exempt)
    except UnreadableError as error:
        print(f"ops/audit: {error}", file=sys.stderr)
        return USAGE
    except NotAskedError as error:
        rule = "*" * 100
        print(
            f"{rule}\nNOT AUDITED: {options.service} could not be asked about vulnerabilities.\n{error}",
            file=sys.stderr,
        )
        print(f"Nothing is known about the pinned packages, for good or ill.\n{rule}", file=sys.stderr)
        return NOT_ASKED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
