"""Imports point from the later rooms to the earlier ones, and ``hessdiag --help`` needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hessdiag

PACKAGE = Path(hessdiag.__file__).resolve().parent
ROOMS = (
    "lazy",
    "errors",
    "files",
    "cost",
    "results",
    "findings",
    "simulation",
    "spec",
    "losses",
    "memory",
    "problem",
    "loading",
    "curvature",
    "estimators",
    "gates",
    "reports",
    "workflows",
    "nso",
    "cli",
)
LAZY = ("__init__", "__main__")  # the API's and the program's doors, which open on first use
NEVER = {
    "estimators": {"loading", "workflows", "nso", "cli"},
    "gates": {"loading", "workflows", "nso", "cli", "torch"},
    "reports": {"loading", "workflows", "nso", "cli", "torch"},
    "spec": {"torch"},
    "errors": {"torch"},
    "cost": {"torch"},
    "results": {"torch"},
    "lazy": {"torch"},
    "findings": {"torch"},
    "simulation": {"torch"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(source: str, package: str = "hessdiag") -> set[tuple[str, int]]:
    """What a file imports, inside functions too: ``hessdiag``'s rooms by their names, others by their first part."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            base = node.module or ""
            names = [f"{base}.{alias.name}" for alias in node.names] if base == package else [base]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == package:
                found.add((rest.partition(".")[0] or "__init__", node.lineno))
            else:
                found.add((first, node.lineno))
    return found


def faults(path: Path, source: str) -> list[str]:
    room, wrong = room_of(path), []
    for name, line in sorted(imported(source)):
        if name in ROOMS and ROOMS.index(name) > ROOMS.index(room):
            wrong.append(f"{path.relative_to(PACKAGE)}:{line}: {room} imports {name}, which comes after it")
        if name in NEVER.get(room, ()):
            wrong.append(f"{path.relative_to(PACKAGE)}:{line}: {room} must never import {name}")
    return wrong


def test_every_file_stands_in_a_known_room() -> None:
    assert {room_of(path) for path in FILES} - set(LAZY) <= set(ROOMS)


@pytest.mark.parametrize(
    "path", [p for p in FILES if room_of(p) not in LAZY], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_point_to_earlier_rooms(path: Path) -> None:
    assert faults(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("file", "source", "fault"),
    [
        ("problem/problem.py", "from hessdiag.curvature import HessianOperator", "problem imports curvature"),
        ("problem/problem.py", "def f():\n    import hessdiag.cli.app", "problem imports cli"),
        ("losses.py", "from hessdiag import nso", "losses imports nso"),
        ("reports/json.py", "import torch.nn", "reports must never import torch"),
        ("gates/verdict.py", "from torch import Tensor", "gates must never import torch"),
        ("estimators/trace.py", "from hessdiag.loading.models import x", "estimators must never import loading"),
    ],
)
def test_this_test_sees_wrong_imports(file: str, source: str, fault: str) -> None:
    assert any(fault in found for found in faults(PACKAGE / file, source))


def test_this_test_lets_right_imports_pass() -> None:
    source = "import torch\nfrom hessdiag.errors import DataError\nfrom hessdiag.problem import Problem"
    assert faults(PACKAGE / "curvature" / "hessian.py", source) == []


def loaded_modules(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nsys.stderr.write('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_the_package_itself_imports_no_torch() -> None:
    modules = loaded_modules("import hessdiag; import hessdiag.spec, hessdiag.results, hessdiag.errors")
    assert "hessdiag.spec" in modules
    assert "torch" not in modules


def test_the_program_begins_without_what_only_some_commands_need() -> None:
    modules = loaded_modules("import hessdiag.cli.app")
    assert not modules & {"hessdiag.reports", "rich.progress", "pydantic", "numpy", "torch"}


@pytest.mark.skipif(not (PACKAGE / "cli" / "app.py").exists(), reason="the command line is not there yet")
def test_help_needs_no_torch() -> None:
    program = "import sys\nsys.argv = ['hessdiag', '--help']\nfrom hessdiag.cli.app import main\n"
    modules = loaded_modules(f"{program}try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code")
    assert "hessdiag.cli.app" in modules
    assert "torch" not in modules
