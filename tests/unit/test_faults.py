"""The codes of faults: one registry, names that mypy checks, and a status for each kind."""

import ast
import re
from pathlib import Path
from typing import get_args

from mypy import api

import gembackend
from gembackend.plumbing.faults import CODES, CodeName, Family
from gembackend.web.problems import STATUSES

MISSPELT = """
from gembackend.plumbing.faults import CodeName, Fault
Fault("rate_limited", "as it is written")
Fault("rate_limit", "in a call")
errors: tuple[CodeName, ...] = ("busy", "bussy")
"""


def test_a_misspelt_code_is_found_by_mypy(tmp_path: Path) -> None:
    (tmp_path / "misspelt.py").write_text(MISSPELT)
    options = ["--config-file", "", "--strict", "--cache-dir", str(tmp_path / "cache"), "--follow-imports", "silent"]
    found, broken, _ = api.run([*options, str(tmp_path / "misspelt.py")])
    assert broken == ""
    assert re.findall(r"misspelt.py:(\d+): error", found) == ["4", "5"], found


def test_the_registry_has_every_name_and_no_other() -> None:
    assert get_args(CodeName) == tuple(CODES)
    assert all(name == code.name for name, code in CODES.items())


def test_every_kind_of_fault_has_a_status_and_a_code() -> None:
    assert set(STATUSES) == set(Family) == {code.family for code in CODES.values()}
    assert len(set(STATUSES.values())) == len(STATUSES)


def test_what_tells_of_faults_knows_no_status_and_no_header() -> None:
    path = Path(gembackend.__file__).parent / "plumbing/faults.py"
    constants = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    assert [value for value in constants if isinstance(value, int) and not isinstance(value, bool)] == []
    assert [value for value in constants if isinstance(value, str) and ("HTTP" in value or "-After" in value)] == []
