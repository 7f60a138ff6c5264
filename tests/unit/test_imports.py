"""Who may import whom, and how large a module and a constructor may be, held by walking the syntax trees."""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import gembackend

ROOT = Path(gembackend.__file__).parent

FLOORS = (
    {"environment", "config", "actors", "plumbing"},
    {"web"},
    {"gemini", "quota", "live"},
    {"users"},
    {"auth", "chatrooms", "billing"},
    {"messages"},
    {"prompts"},
    {"embedded", "checks"},
    {"app", "check", "dead_letters"},
    {"lifecycle"},
    {"cli"},
    {"__main__"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
PURE = ("rules.py", "outcome.py")
LONGEST_MODULE = 300
MOST_PARTS = 7


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT), ast.parse(path.read_text())


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name


def room_of(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def own(names: Iterator[str]) -> Iterator[list[str]]:
    for name in names:
        parts = name.split(".")
        if parts[0] == "gembackend" and len(parts) > 1 and parts[1] != "__version__":
            yield parts[1:]


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path, _ in modules()} - {"__init__"} <= set(FLOOR_OF)


def test_nothing_imports_what_is_above_it() -> None:
    upward = [
        f"{path} imports {'.'.join(target)}"
        for path, tree in modules()
        if room_of(path) != "__init__"
        for target in own(imported(tree))
        if FLOOR_OF[target[0]] > FLOOR_OF[room_of(path)]
    ]
    assert upward == []


def test_rooms_of_one_floor_do_not_know_each_other() -> None:
    sideways = [
        f"{path} imports {'.'.join(target)}"
        for path, tree in modules()
        for target in own(imported(tree))
        if FLOOR_OF.get(room_of(path), 0) > 1
        and target[0] != room_of(path)
        and FLOOR_OF[target[0]] == FLOOR_OF[room_of(path)]
    ]
    assert sideways == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    names = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): tree for path, tree in modules()}
    needs = {
        name: {
            part
            for target in own(imported(ast.Module(at_once(tree), [])))
            for part in (".".join(target), ".".join(target[:-1]))
            if part in names and part != name
        }
        for name, tree in names.items()
    }
    TopologicalSorter(needs).prepare()


def at_once(tree: ast.Module) -> list[ast.stmt]:
    """The imports of a module that are carried out when it is imported itself."""
    return [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]


def test_only_routes_and_the_composition_root_know_the_web() -> None:
    knowing = [
        str(path)
        for path, tree in modules()
        for target in own(imported(tree))
        if target[0] == "web" and room_of(path) not in ("web", "app") and not path.name.endswith("routes.py")
    ]
    assert knowing == []


def test_only_routes_and_the_web_know_aiohttp_servers() -> None:
    knowing = [
        str(path)
        for path, tree in modules()
        if any(name.startswith("aiohttp.web") for name in imported(tree))
        and room_of(path) not in ("web", "embedded")
        and not path.name.endswith("routes.py")
    ]
    assert knowing == []


def test_nobody_uses_another_rooms_routes() -> None:
    used = [
        f"{path} imports {'.'.join(target)}"
        for path, tree in modules()
        for target in own(imported(tree))
        if target[1:2] and target[1].endswith("routes") and room_of(path) not in ("app", target[0])
    ]
    assert used == []


def test_the_pure_core_needs_nothing_but_the_standard_library() -> None:
    impure = [
        f"{path} imports {name}"
        for path, tree in modules()
        if path.name in PURE
        for name in imported(tree)
        if name.split(".")[0] not in sys.stdlib_module_names
    ]
    assert impure == []


def test_the_environment_is_read_in_one_place() -> None:
    readers = [
        str(path)
        for path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and path.name != "environment.py"
    ]
    assert readers == []


def test_opentelemetry_has_one_door() -> None:
    knowing = {
        str(path)
        for path, tree in modules()
        for name in imported(tree)
        if name.split(".")[0] == "opentelemetry" or name.startswith("gembackend.plumbing.otel")
    }
    assert knowing == {"plumbing/otel.py", "plumbing/traces.py"}


def test_sql_is_written_in_stores() -> None:
    words = ("SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ")
    writers = {
        str(path)
        for path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip().startswith(words)
    }
    assert {path for path in writers if not path.endswith("store.py")} <= {
        "plumbing/pooler.py",
        "plumbing/postgres.py",
        "embedded/postgres.py",
    }


def test_a_module_fits_in_the_head() -> None:
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path, _ in modules()}
    assert {str(path): lines for path, lines in lengths.items() if lines > LONGEST_MODULE} == {}


def test_nothing_is_made_of_more_parts_than_can_be_told_apart() -> None:
    parts = {
        f"{path} {made.name}": len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs) - 1
        for path, tree in modules()
        for made in ast.walk(tree)
        if isinstance(made, ast.ClassDef)
        for node in made.body
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    }
    assert {name: number for name, number in parts.items() if number > MOST_PARTS} == {}
