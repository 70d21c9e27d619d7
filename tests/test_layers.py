"""The house: which room may import which.  Imports point down, rooms on one floor do not import each other."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = [
    {"errors", "database_urls", "config", "system"},
    {"settings", "sums"},
    {"options", "judgement"},
    {"sources"},
    {"newcomers"},
    {"memory", "losses", "id_table"},
    {"preprocessing_utils", "model", "splits", "evaluation", "storage"},
    {"dataset", "encoder_files", "snapshot", "importers", "exporters", "map_tables", "doctor", "health"},
    {"preparation"},  # the steps of preprocessing, a file each
    {"preprocessing", "engine", "audio_features"},
    {"serving", "train"},
    {"jobs", "web", "manage"},
    {"api"},
    {"flask_app"},
    {"cli", "wsgi", "gunicorn.conf"},  # `cli.py serve` starts the service, and so does gunicorn
]
FLOOR_OF = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}

# Whatever these rooms import, directly or not, the listed packages stay out of the process.
FORBIDDEN = {
    "sums": {"storage", "psycopg", "sqlalchemy", "flask"},
    "sources": {"storage", "psycopg", "sqlalchemy", "flask"},
    "newcomers": {"storage", "psycopg", "sqlalchemy", "flask"},
    "memory": {"storage", "psycopg", "sqlalchemy", "flask"},
    "model": {"storage", "psycopg", "sqlalchemy", "flask"},
    "dataset": {"storage", "psycopg", "sqlalchemy", "flask"},
    "snapshot": {"torch", "storage", "psycopg", "sqlalchemy", "flask"},
    "splits": {"torch", "storage", "psycopg", "sqlalchemy", "flask"},
    "engine": {"storage", "psycopg", "sqlalchemy", "flask"},
    "evaluation": {"storage", "psycopg", "sqlalchemy", "flask"},
    "storage": {"torch", "flask"},
    "importers": {"torch", "flask"},
    "exporters": {"torch", "flask"},
    "preprocessing_utils": {"torch", "flask"},
    "encoder_files": {"torch", "flask"},
    "id_table": {"torch", "flask"},
    "preparation": {"torch", "flask"},
    "preprocessing": {"torch", "flask"},
    "health": {"torch", "numpy", "flask"},  # asked every few seconds
    "web": {"torch", "numpy", "storage", "psycopg", "sqlalchemy"},  # its data comes from /v1, through the browser
    "api": {"train", "engine.schedule", "engine.progress", "engine.processes"},
    "flask_app": {"train", "engine.schedule", "engine.progress", "engine.processes"},
}


def files_of(room: str) -> list[Path]:
    single = ROOT / f"{room}.py"
    return [single] if single.exists() else sorted((ROOT / room).rglob("*.py"))


def imports_of(path: Path) -> set[tuple[str, bool]]:
    """(first part of the imported name, whether the import stands inside a function) for each import of a file."""
    found = set()

    def visit(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update((alias.name.split(".")[0], inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
                found.add((child.module.split(".")[0], inside))
            visit(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    visit(ast.parse(path.read_text(encoding="utf-8")), inside=False)
    return found


ROOMS = sorted(room for room in FLOOR_OF if files_of(room))  # the same in every process that shares the tests


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_down(room):
    wrong = {
        f"{path.relative_to(ROOT)} imports {target}"
        for path in files_of(room)
        for target, _ in imports_of(path)
        if target in FLOOR_OF and target != room and FLOOR_OF[target] >= FLOOR_OF[room] and FLOOR_OF[room] > 0
    }
    assert wrong == set()


@pytest.mark.parametrize("room", ROOMS)
def test_no_import_of_ours_hides_inside_a_function(room):
    hidden = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files_of(room)
        for name, inside in imports_of(path)
        if inside and name in FLOOR_OF
    }
    assert hidden == set()


def test_the_floors_are_those_that_contributors_read_of():
    rows = re.findall(r"^\| (\d+) \| (`.+`) \|$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    told = {int(height): set(re.findall(r"`(.+?)`", rooms)) for height, rooms in rows}
    assert told == dict(enumerate(FLOORS))


def test_every_room_has_a_floor():
    rooms = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert rooms - set(FLOOR_OF) - {"tests", "benchmarks"} == set()


@pytest.mark.parametrize("room", [room for room in FORBIDDEN if files_of(room)])
def test_what_a_room_loads_stays_within_its_purpose(room):
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in files_of(room)
        if path.suffix == ".py"
    ]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {modules!r}]; print('\\n'.join(sys.modules))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    )
    assert loaded & FORBIDDEN[room] == set()
