"""The map in docs/design.md, held to the tree."""

import re
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
SECTIONS = dict(
    section.split("\n", 1)
    for section in (ROOT / "docs/design.md").read_text(encoding="utf-8").split("\n## ")[1:]
)


def paths_of_the_map():
    """Return the paths that the map names: four columns of indentation are a folder's contents."""
    paths, folders = [], []
    for spaces, name in re.findall(
        r"^    ((?:    )*)(\S+)  +\S", SECTIONS["The map"], re.MULTILINE
    ):
        folders = [*folders[: len(spaces) // 4], name]
        paths.append(PurePosixPath(*folders))
    return paths


def test_each_path_of_the_map_is_in_the_tree_once():
    paths = paths_of_the_map()
    assert len(paths) > 40
    assert len(set(paths)) == len(paths)
    assert [str(path) for path in paths if not (ROOT / path).exists()] == []


def test_each_script_module_and_folder_is_in_the_map():
    named = {ROOT / path for path in paths_of_the_map()}
    scripts = {*ROOT.glob("*.py"), *ROOT.glob("*.ipynb")}
    modules = {path for path in ROOT.glob("lab/**/*.py") if path.name != "__init__.py"}
    folders = {path.parent for path in ROOT.glob("*/*.py")} | {path.parent for path in modules}
    assert {*scripts, *modules, *folders} - named == set()


def test_the_modules_of_the_walk_have_what_it_names():
    steps = re.findall(r"^    \W*(\w+)  +([\w/]+\.py)", SECTIONS["The walk"], re.MULTILINE)
    assert len(steps) == 4
    for function, path in steps:
        assert f"\ndef {function}(" in (ROOT / path).read_text(encoding="utf-8"), path
