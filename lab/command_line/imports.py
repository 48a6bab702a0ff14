"""How a user's own file is imported: nobody else's numbers change, and an error is one line."""

import ast
import contextlib
import importlib
import importlib.util
import io
import os
import random
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from lab.outcome import (
    HERE,
    OUR_NAMES,
    RaisedError,
    as_exceptions,
    describe,
    hushed,
    is_of_a_user,
    nearest,
    place_of,
)

import numpy
import torch

P = ParamSpec("P")
T = TypeVar("T")

Defaults = tuple[torch.dtype, torch.device, Path]  # the last one is the working directory
defaults_of: dict[str, Defaults] = {}  # that a module has set for itself
versions: dict[str, tuple[int, int]] = {}  # of the files that were imported: time and size


def hint_at_form(text: str) -> str:
    """Return what to write in place of a text that names nothing: what people often mean by it."""
    usual = unicodedata.normalize("NFKC", text)
    if usual != text:  # typed while the keyboard was set to Chinese
        return f"; with the letters of an English keyboard it is {usual}"
    bare = re.sub(r"\(.*?\)", "", text)
    if "," in bare and text.count("(") == text.count(")"):
        return f"; leave out the commas: {' '.join(re.findall('[^ ,]+', bare))}"
    if hint := hint_at_file(text.partition("(")[0].rpartition("=")[2].strip()):
        return hint
    if "|" in bare or "&" in bare:
        return '; two as one are in quotes, with one bar, as "Muon | AdamW"'
    if "+" in bare:
        return '; put a sum in quotes, as "Adam + StepLR(step_size=4)"'
    return '; put what has brackets in quotes, as "Adam(lr=0.1)"'


def is_here(name: str) -> bool:
    """Tell whether the working directory has a file of that name, however long that is."""
    return Path(name) in Path().iterdir()


def hint_at_module(name: str) -> str:
    """Return what to write where a name alone is that of a file here, or may be of one."""
    if is_here(f"{name}.py"):
        return f"; of the file {name}.py, write {name}.NAME"
    return ""


def hint_at_file(name: str) -> str:
    """Return what to write, where a name is that of a file, or the file has no name for Python."""
    head, _, attribute = name.rpartition(".")
    if is_here(name) and attribute != "py":
        return f"; to read the file {name}, see docs/your_own.md"
    module_name = head.removesuffix(".py").replace("\\", "/").rpartition("/")[2]
    if module_name and attribute.isidentifier():
        if not all(part.isidentifier() for part in module_name.split(".")):
            return f"; Python cannot import {module_name}.py by that name: rename it, as my_file.py"
        if f"{module_name}.{attribute}" != name:
            example = "NAME" if attribute == "py" else attribute
            return f"; write {module_name}.{example}, without folder and .py"
    return ""


def find(module_name: str, name: str) -> Any:
    """Return what a module, installed or in the working directory, has by that name.

    ValueError says in a line why it cannot be had.
    """
    if ".py." in f"{module_name}." or (name != "py" and is_here(f"{module_name}.{name}")):
        raise ValueError(
            f"{module_name}.{name} is not a name{hint_at_file(f'{module_name}.{name}')}"
        )
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    module = import_anew(module_name)
    if not hasattr(module, name):
        names = [
            key
            for key, value in vars(module).items()
            if not (key.startswith("_") or isinstance(value, ModuleType))
        ]
        hint = nearest(name, names)
        if name == "py" and names:
            hint = f"; write {module_name}.{names[-1]}, without .py"
        raise ValueError(f"{module_name} has no {name!r}{hint}")
    return getattr(module, name)


def import_anew(module_name: str) -> ModuleType:
    """Import a module; once more if its file has changed, as in a notebook."""
    refuse_our_names(module_name)
    shown = io.StringIO()
    try:
        was_there = module_name in sys.modules
        with as_if_alone(module_name), hushed(), contextlib.redirect_stderr(shown), as_exceptions():
            importlib.invalidate_caches()
            module = importlib.import_module(module_name)
            version = version_of(module)
            if was_there and version and versions.get(module_name, version) != version:
                module = importlib.reload(module)
    except RaisedError as error:
        why = describe(error)
        if isinstance(error.__cause__, SystemExit):  # after a message of its own, as argparse's
            said = shown.getvalue().strip().rpartition("\n")[2] or "it calls exit()"
            why = f"{said}{place_of(error.__cause__)}"
        raise ValueError(f"cannot import {module_name}: {why}") from error
    except Exception as error:  # a learner's own file may fail in any way
        raise ValueError(f"cannot import {module_name}: {describe(error)}") from error
    if version:
        versions[module_name] = version
    return module


@contextlib.contextmanager
def as_if_alone(module_name: str) -> Iterator[None]:
    """Import in the block as if nothing had run before, and leave all as it was.

    So what a file draws at random does not depend on the process, and the defaults of dtype and
    device, and the working directory, that it sets are its own: see `under_own_defaults`. That it
    wants no gradients, as after `torch.set_grad_enabled(False)`, ends with it: to train takes
    gradients.
    """
    if module_name not in sys.modules:
        defaults_of.pop(module_name, None)
    before = defaults()
    states = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        random.seed(0)
        numpy.random.seed(0)
        try:
            yield
            after = defaults()
            if after != before:
                defaults_of[module_name] = after
        finally:
            random.setstate(states[0])
            numpy.random.set_state(states[1])
            use_defaults(before)


def defaults() -> Defaults:
    return torch.get_default_dtype(), torch.get_default_device(), Path.cwd()


def use_defaults(defaults: Defaults) -> None:
    dtype, device, folder = defaults
    os.chdir(folder)
    torch.set_default_dtype(dtype)
    if torch.get_default_device() != device:
        torch.set_default_device(None if device.type == "cpu" else device)


def under_own_defaults(module_name: str, function: Callable[P, T]) -> Callable[P, T]:
    """Return a function of a module that runs under the defaults which the module has set."""
    if module_name not in defaults_of:
        return function

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        before = defaults()
        use_defaults(defaults_of[module_name])
        try:
            return function(*args, **kwargs)
        finally:
            use_defaults(before)

    return run


def version_of(module: ModuleType) -> tuple[int, int] | None:
    """Return what changes with a user's file; None for what is ours or installed."""
    file = Path(getattr(module, "__file__", None) or "")
    if not is_of_a_user(file):
        return None
    return file.stat().st_mtime_ns, file.stat().st_size


def refuse_our_names(module_name: str) -> None:
    """Refuse a file that imports a neighbour whose name is one of ours: it would get ours."""
    path = Path(*module_name.split(".")).with_suffix(".py")
    if Path.cwd().resolve() == HERE or not path.is_file():
        return
    taken = {name for name in OUR_NAMES if Path(f"{name}.py").exists()}
    if path.stem in taken:
        raise ValueError(f"{path} has a name of this repository's: call it otherwise")
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # the import will tell
        return
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in names:
            if name in taken:
                raise ValueError(
                    f"{path} imports {name}, and {name}.py beside it has the name of a file of "
                    "this repository's, which comes first: call it otherwise"
                )
