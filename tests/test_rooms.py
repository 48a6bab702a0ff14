"""The rooms of lab/: each imports only those before it, and what trains draws nothing."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ["outcome", "training", "pictures", "output", "command_line", "live"]
FILES = sorted((ROOT / "lab").rglob("*.py"))
# What the learner reads and changes; the other files beside them are scripts.
SHARED = {"data", "models", "optimizers", "settings", "spaces", "surfaces", "tasks", "training"}
OURS = {path.stem for path in [*ROOT.glob("*.py"), *ROOT.glob("*/__init__.py")]}


def imports_of(path):
    """Return the modules that a file imports, with all that it takes from them."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports by a relative name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_of(names):
    return {name.split(".")[1] for name in names if name.startswith("lab.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_those_before_it_and_no_script(path):
    imported = imports_of(path)
    if path == ROOT / "lab" / "__init__.py":  # it ends the import of torch quietly
        assert {name for name in imported if name.startswith("lab")} == {"lab.output.interruption"}
        return
    room = path.relative_to(ROOT / "lab").parts[0].removesuffix(".py")
    assert rooms_of(imported) <= set(ROOMS[: ROOMS.index(room) + 1])
    assert {name.split(".")[0] for name in imported} & OURS <= SHARED | {"lab"}


def modules_after(names):
    """Return what a new process has imported once it has these modules."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {', '.join(names)}; print(*sys.modules)"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_the_first_room_imports_neither_torch_nor_matplotlib():
    assert not modules_after(["lab.outcome"]) & {"torch", "matplotlib"}


def test_what_trains_draws_nothing():
    files = (ROOT / "lab" / "training").glob("*.py")
    names = [f"lab.training.{path.stem}" for path in files if path.stem != "__init__"]
    assert "lab.training.train" in names
    assert "matplotlib" not in modules_after(names)
