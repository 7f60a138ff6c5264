"""`ops/audit` against a vulnerability service: the real pip-audit, over real HTTP, with a stand-in of OSV's API."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ops import audit
from tests.processes import ROOT

HASHES = " \\\n    --hash=sha256:" + 64 * "0" + "\n"
KNOWN = {
    audit.CANARY: ["CVE-2014-0012"],
    ("protobuf", "3.0.0"): ["CVE-2022-1941"],
    ("protobuf", "4.0.0"): ["CVE-2025-4565"],
}


class Osv(ThreadingHTTPServer):
    """OSV's query API over what is `known`; `status` is what it answers with."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Query)
        self.known: dict[tuple[str, str], list[str]] = dict(KNOWN)
        self.status = 200
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self.server_port}/v1/query"

    def answer(self, name: str, version: str) -> dict[str, Any]:
        """What it knows of a version; an empty object when nothing, as the real one."""
        self.asked.append((name, version))
        vulns = [
            {
                "id": f"GHSA-of-{cve}",
                "aliases": [cve],
                "summary": f"What is wrong in {name}",
                "affected": [
                    {
                        "package": {"name": name, "ecosystem": "PyPI"},
                        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "5.29.5"}]}],
                    }
                ],
            }
            for cve in self.known.get((name, version), ())
        ]
        return {"vulns": vulns} if vulns else {}


class _Query(BaseHTTPRequestHandler):
    server: Osv

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps(self.server.answer(query["package"]["name"], query["version"])).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def osv() -> Iterator[Osv]:
    """A vulnerability service."""
    with Osv() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """A lock file that pins what nothing is known against."""
    path = tmp_path / "requirements.lock"
    path.write_text(
        f"# by ops/lock\nidna==3.20{HASHES}    # via yarl\ncolorama==0.4.6 ; sys_platform == 'win32'{HASHES}"
    )
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the audit as ops/audit does."""
    command = [sys.executable, "-m", "ops.audit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def ignoring(path: Path, days: int, cve: str = "CVE-2022-1941", reason: str = "No client reaches it.") -> Path:
    """A list of ignored findings with one entry, good for so many days."""
    until = (datetime.now(UTC) + timedelta(days=days)).date()
    path.write_text(f'[[ignored]]\nid = "{cve}"\npackage = "protobuf"\nreason = "{reason}"\nuntil = {until}\n')
    return path


def test_packages_that_nothing_is_known_against_pass_and_each_was_asked_about(osv: Osv, lock: Path) -> None:
    done = run("--service", osv.url, lock)
    assert (done.returncode, done.stderr) == (audit.CLEAN, "")
    assert done.stdout == "Nothing that applies is known against 2 pinned packages.\n"
    assert sorted(osv.asked) == [("colorama", "0.4.6"), ("idna", "3.20"), audit.CANARY]


def test_a_vulnerability_fails_and_is_named_with_what_fixes_it_and_where_it_is_pinned(osv: Osv, lock: Path) -> None:
    lock.write_text(lock.read_text() + f"protobuf==3.0.0{HASHES}")
    other = lock.with_name("requirements-dev.lock")
    other.write_text(f"protobuf==4.0.0{HASHES}")
    done = run("--service", osv.url, lock, other)
    assert done.returncode == audit.FOUND
    first = "VULNERABLE  protobuf 3.0.0  CVE-2022-1941 GHSA-of-CVE-2022-1941  fixed in 5.29.5  (requirements.lock)"
    second = "VULNERABLE  protobuf 4.0.0  CVE-2025-4565 GHSA-of-CVE-2025-4565  fixed in 5.29.5  (requirements-dev.lock)"
    assert {first, second} <= set(done.stdout.splitlines())
    assert "What is wrong in protobuf" in done.stdout
    assert "jinja2" not in done.stdout


def test_a_service_that_is_not_there_is_told_loudly_and_is_no_finding(lock: Path) -> None:
    with Osv() as gone:
        closed = gone.url
    done = run("--service", closed, lock)
    assert done.returncode == audit.NOT_ASKED
    assert f"NOT AUDITED: {closed} could not be asked" in done.stderr
    assert "Connection refused" in done.stderr
    assert done.stdout == ""


def test_a_service_in_trouble_is_no_finding_either(osv: Osv, lock: Path) -> None:
    osv.status = 503
    done = run("--service", osv.url, lock)
    assert (done.returncode, done.stdout) == (audit.NOT_ASKED, "")
    assert "NOT AUDITED" in done.stderr


def test_a_service_that_knows_nothing_against_anything_is_not_believed(osv: Osv, lock: Path) -> None:
    osv.known.clear()
    done = run("--service", osv.url, lock)
    assert (done.returncode, done.stdout) == (audit.NOT_ASKED, "")
    assert "knows nothing against jinja2==2.4.1" in done.stderr


def test_a_finding_that_is_ignored_passes_with_its_reason(osv: Osv, lock: Path, tmp_path: Path) -> None:
    lock.write_text(f"protobuf==3.0.0{HASHES}")
    done = run("--service", osv.url, "--ignored", ignoring(tmp_path / "ignored.toml", 0), lock)
    assert done.returncode == audit.CLEAN
    assert done.stdout.startswith("ignored     protobuf 3.0.0  CVE-2022-1941: No client reaches it. (until ")


@pytest.mark.parametrize(
    ("days", "cve", "said"),
    [(-1, "CVE-2022-1941", "It was ignored until"), (30, "CVE-2025-4565", "not needed  CVE-2025-4565 of protobuf")],
    ids=["no longer", "another finding of the package"],
)
def test_what_is_ignored_covers_one_finding_until_its_day(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], days: int, cve: str, said: str
) -> None:
    pin = ("protobuf", "3.0.0")
    finding = audit.Finding(pin, ("GHSA-of-it", "CVE-2022-1941"), ("5.29.5",), "What is wrong")
    exempt = audit.exemptions(ignoring(tmp_path / "ignored.toml", days, cve), datetime.now(UTC).date())
    assert audit.report([finding], {pin: ["requirements.lock"]}, exempt) == audit.FOUND
    printed = capsys.readouterr().out
    assert "VULNERABLE  protobuf 3.0.0" in printed and said in printed


@pytest.mark.parametrize(("days", "reason"), [(30, " "), (400, "No client reaches it.")], ids=["no reason", "too long"])
def test_nothing_is_ignored_without_a_reason_or_for_good(lock: Path, tmp_path: Path, days: int, reason: str) -> None:
    done = run("--ignored", ignoring(tmp_path / "ignored.toml", days, reason=reason), lock)
    assert done.returncode == audit.USAGE
    assert "CVE-2022-1941 needs a reason and" in done.stderr


@pytest.mark.parametrize(
    "text", [f"idna>=3{HASHES}", "idna==3.20\n", "idna==3.20 \\\n    # via yarl\n"], ids=["range", "bare", "no hash"]
)
def test_what_is_not_pinned_with_its_hashes_fails(lock: Path, text: str) -> None:
    lock.write_text(f"# by ops/lock\n{text}")
    done = run(lock)
    assert done.returncode == audit.USAGE
    assert done.stderr.startswith(f"ops/audit: {lock}:2: not a version pinned with its hashes")


def test_every_lock_file_here_can_be_read_and_what_is_ignored_too() -> None:
    locks = sorted((ROOT / "ops").glob("*.lock"))
    assert len(locks) == 4
    assert all(audit.pins(each) for each in locks)
    audit.exemptions(ROOT / "ops/audit-ignored.toml", datetime.now(UTC).date())


def test_pip_audit_is_not_among_what_the_service_runs_with() -> None:
    assert "pip-audit" not in dict(audit.pins(ROOT / "ops/requirements.lock"))


@pytest.mark.parametrize(
    ("audited", "tested", "status"), [(0, 0, 0), (3, 0, 0), (1, 0, 1), (2, 0, 2), (0, 1, 1), (1, 7, 7)]
)
def test_continuous_integration_fails_on_a_finding_but_not_on_a_closed_network_and_runs_every_test(
    tmp_path: Path, audited: int, tested: int, status: int
) -> None:
    (tmp_path / ".ci").mkdir()
    (tmp_path / "ops").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci")
    for name, ends in (("audit", audited), ("test", tested)):
        (tmp_path / "ops" / name).write_text(f"#!/bin/sh\necho ran {name}\nexit {ends}\n")
        (tmp_path / "ops" / name).chmod(0o755)
    (tmp_path / "bin").mkdir()
    for name in ("sh", "id", "dirname"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)
    done = subprocess.run(
        ["/bin/sh", tmp_path / ".ci/run"],
        env={"PATH": str(tmp_path / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (status, "ran audit\nran test\n")
