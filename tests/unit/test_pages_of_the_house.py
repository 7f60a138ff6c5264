"""The pages for people: the README stays short, no link leads nowhere, and the words are those of the code."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("ops/**/*.md"))]


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


def test_every_link_leads_to_a_file_and_to_a_heading_of_it() -> None:
    lost = []
    for page in PAGES:
        for path, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
            target = page.parent / path if path else page
            if not target.exists() or (heading and heading not in _anchors(target)):
                lost.append(f"{page.relative_to(ROOT)}: {path}#{heading}")
    assert lost == []


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_decision_is_one_page_and_in_the_list() -> None:
    pages = {page.name for page in (ROOT / "ops/decisions").glob("*.md")} - {"README.md"}
    assert pages == set(re.findall(r"\]\((\w[\w-]*\.md)\)", (ROOT / "ops/decisions/README.md").read_text()))
    for name in pages:
        text = (ROOT / "ops/decisions" / name).read_text()
        assert len(text.splitlines()) <= 16, name
        assert re.findall(r"(?m)^\*\*([^*]+)\.\*\*", text) == ["Decided", "Why", "Costs", "Would change it"], name


def test_what_the_page_on_contributing_names_is_there() -> None:
    text = (ROOT / "ops/CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:gembackend|tests|ops|sql)/[\w./]+)`", text))
    assert len(named) > 5
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_a_word_of_the_glossary_is_the_word_of_the_schema_the_metrics_and_the_api() -> None:
    rows = re.findall(r"(?m)^\| ([\w -]+) \| [^|]+ \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", _words())
    assert len(rows) > 15
    api = "".join(path.read_text() for path in (ROOT / "gembackend").rglob("*.py") if _is_api(path))
    places = ((ROOT / "sql/schema.sql").read_text(), (ROOT / "gembackend/plumbing/metrics.py").read_text(), api)
    for word, *names in rows:
        for name, text in zip(names, places, strict=True):
            known = name == "–" or re.search(rf"\b{re.escape(name.strip('`'))}\b", text)
            assert known, f"{word}: nothing is called {name}"


def _words() -> str:
    return (ROOT / "ops/CONTRIBUTING.md").read_text().partition("## Words")[2].partition("| --- |")[2]


def _is_api(path: Path) -> bool:
    return path.name in ("models.py", "params.py") or path.name.endswith("routes.py")


def test_the_hooks_before_a_commit_are_what_the_one_command_runs_first() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    first = (ROOT / "ops/test").read_text().partition("== pytest")[0]
    run = re.findall(r'(?m)^"\$bin/python" (.+)$', first)
    assert len(run) == 3
    assert [hook["entry"] for hook in repository["hooks"]] == [f".venv/bin/python {step}" for step in run]
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in repository["hooks"])
