"""What of this checkout goes into the image's build, and that the reader of Dockerfiles reads them."""

import pytest

from tests.dockerfile import Ignored, instructions
from tests.processes import ROOT


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("gembackend/app.py", True),
        ("gembackend/web/docs_assets/x.js", True),
        ("sql/migrations/0001_x.sql", True),
        ("ops/requirements.lock", True),
        ("ops/requirements-dev.lock", False),
        ("gembackend/__pycache__", False),
        ("gembackend/web/__pycache__/body.cpython-311.pyc", False),
        ("gembackend/stray.pyc", False),
        (".env", False),
        (".data/jwt.key", False),
        (".git/config", False),
        ("tests/conftest.py", False),
    ],
)
def test_the_builder_gets_what_the_image_needs_and_no_secret(path: str, sent: bool) -> None:
    assert Ignored((ROOT / ".dockerignore").read_text()).sends(path) is sent


def test_steps_are_read_without_comments_and_with_their_continued_lines() -> None:
    text = '# FROM nothing\nFROM one AS build\nRUN a \\\n    # why\n    && b\n\ncmd ["x", \\\n  "y"]\n'
    found = [(name, " ".join(rest.split())) for name, rest in instructions(text)]
    assert found == [("FROM", "one AS build"), ("RUN", "a && b"), ("CMD", '["x", "y"]')]
