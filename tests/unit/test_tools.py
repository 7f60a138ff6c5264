"""What a missing tool leaves out is told in one line at the end of a run, also of one in several processes."""

import os
import subprocess
import sys

import pytest

from tests.processes import ROOT
from tests.tools import lacking, left_out


def reason(name: str, package: str | None) -> str:
    """The reason that a report gives of a test that was skipped for want of a program."""
    with pytest.raises(pytest.skip.Exception) as skipped:
        lacking(name, package)
    return f"Skipped: {skipped.value}"


def test_one_line_names_every_tool_that_is_missing_and_what_to_install() -> None:
    promtool, nginx = reason("promtool", "prometheus"), reason("nginx", "nginx")
    assert left_out([promtool, nginx, promtool, reason("kubectl", None)]) == (
        "left out: 4 tests, because kubectl, nginx, promtool are not installed here (apt-get install nginx prometheus)"
    )
    assert left_out([nginx]) == "left out: 1 test, because nginx is not installed here (apt-get install nginx)"
    assert left_out([nginx, "Skipped: no\nnamespaces here"]) == (
        "left out: 2 tests, because nginx is not installed here; no namespaces here (apt-get install nginx)"
    )
    assert left_out([]) is None


def test_it_is_the_last_line_of_a_run_in_several_processes() -> None:
    command = [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", "-k", "kustomize"]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, "tests/acceptance/test_deploy_manifests.py"],
        cwd=ROOT,
        env=ours | {"PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "left out: 1 test, because kubectl is not installed here", done.stdout
