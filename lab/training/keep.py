"""What is trained once and kept: in a folder, under a name made of all that its numbers depend on.

The name is made of the data themselves, of the first weights, of versions, and of all code that
takes part: our own, and of a task's or an optimizer's functions and classes the whole file, with
all files of yours that it imports, and the values that they have from outside (closures, defaults,
globals). What cannot be named surely is trained anew and not kept. What a function of yours reads
from a file while the net trains is in no name.
"""

import ast
import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import pickle
import platform
import sys
import uuid
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from inspect import getattr_static
from pathlib import Path
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

from lab.outcome import HERE, describe, is_installed
from lab.training.adapt import MakeOptimizer
from lab.training.datasets import is_plain
from lab.training.runs import Training, state_of

import torch
from torch import Tensor

from tasks import Task

T = TypeVar("T")
Record = dict[str, Any]  # tensors and plain values, by name

# What a task has beside that moves no weight; and its data, which are named by what they are.
NOT_OF_A_TRAINING = {"make_data", "metric", "target", "lesson", "source"}


DIGEST = 32  # bytes, with which a file begins: of all that follows, as torch.save wrote it


class Keep:
    """A folder of records, each a file that is written whole or not at all.

    `remarks` are what a reader has to know: files that were passed over, what cannot be kept.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.remarks: dict[str, None] = {}  # each once, in order
        self.taken = self.added = 0

    def load(self, name: str, read: Callable[[Record], T]) -> T | None:
        """Return what `read` makes of the record of that name, if there is one that it can read."""
        path = self.folder / f"{name}.pt"
        try:
            whole = path.read_bytes()
            written = whole[DIGEST:]
            if whole[:DIGEST] != hashlib.sha256(written).digest():
                raise ValueError("it is not as it was written")
            record = torch.load(io.BytesIO(written), weights_only=True)  # runs nobody's code
            if record.pop("name") != name:
                raise ValueError("it has another name")
            result = read(record)
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever a damaged or foreign file makes of torch.load
            reason = describe(error).split(". ")[0][:100]
            self.remarks[f"passed over {path}, as it is damaged or foreign ({reason})"] = None
            return None
        self.taken += 1
        return result

    def save(self, name: str, record: Record) -> None:
        """Keep the record, whole or not at all; remark why it cannot be."""
        file = io.BytesIO()
        torch.save(record | {"name": name}, file)
        written = file.getvalue()
        temporary = self.folder / f".{uuid.uuid4().hex}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(hashlib.sha256(written).digest() + written)
            temporary.replace(self.folder / f"{name}.pt")
            self.added += 1
        except OSError as error:
            self.remarks[f"cannot keep it in {self.folder}: {error.strerror}"] = None
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


# ---------------------------------------------------------------- names


class Unnamed(Exception):  # noqa: N818 (a finding, not an error)
    """What cannot be named surely; the message says what, and why."""


def name_of_code(task: Task, make_optimizer: MakeOptimizer) -> str:
    """Return a name of all code that trains with this optimizer, or raise Unnamed."""
    parts = {
        field.name: getattr(task, field.name)
        for field in dataclasses.fields(task)
        if field.name not in NOT_OF_A_TRAINING
    }
    if hasattr(make_optimizer, "optimizer_class"):  # a Spec: what it is called moves nothing
        spec: Any = make_optimizer
        return name_of(surroundings(), parts, *spec.parts)
    return name_of(surroundings(), parts, make_optimizer)


def name_of_start(task: Task, training: Training) -> str:
    """Return a name of what a seed gives: data and first weights. Or raise Unnamed."""
    datasets = [tensors_of(data) for data in (training.dataset, training.held_out)]
    return name_of(training.seed, datasets, state_of(training.make_net(task)))


def tensors_of(dataset: Any) -> object:
    """Return what a data set holds, where it is sure to serve just that."""
    if is_plain(dataset):
        return dataset.tensors
    if isinstance(dataset, list | tuple):
        return dataset
    raise Unnamed(f"its data are a {type(dataset).__name__}, not tensors")


@cache
def surroundings() -> tuple[object, ...]:
    """Return what all numbers depend on: versions, the kind of processor, our code."""
    ours = [
        *sorted((HERE / "lab" / "training").glob("*.py")),
        *sorted((HERE / "optimizers").glob("*.py")),  # whose formulas may stand for torch's
        HERE / "training.py",
        HERE / "data.py",
    ]
    kind = platform.system(), platform.machine(), torch.backends.cpu.get_cpu_capability()
    return torch.__version__, sys.version, kind, [path.read_bytes() for path in ours]


def name_of(*parts: object) -> str:
    """Return a short name of values, classes and functions, or raise Unnamed."""
    written = io.BytesIO()
    try:
        Namer(written).dump(parts)
    except Unnamed:
        raise
    except Exception as error:  # whatever cannot be pickled
        raise Unnamed(describe(error)) from error
    return hashlib.sha256(written.getbuffer()).hexdigest()


class Namer(pickle.Pickler):
    """Writes down values as pickle does, and in place of a class or a function all of its code."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.fast = True  # what is equal is written alike, whether it is one object or two
        self.seen: set[int] = set()

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return tuple, ((value.dtype, str(value.device), tuple(value.shape), hash_of(value)),)
        if isinstance(value, ModuleType):
            return tuple, ((source_of(value.__name__),),)
        if isinstance(value, FunctionType | type) and value not in (tuple, str):
            if id(value) in self.seen:
                return str, (value.__qualname__,)
            self.seen.add(id(value))
            if isinstance(value, type):
                return tuple, (parts_of_class(value),)
            return tuple, (parts_of_function(value),)
        if getattr_static(value, "__wrapped__", None) is not None:  # as functools.cache has it
            return tuple, ((value.__wrapped__,),)
        return NotImplemented


def parts_of_class(value: type) -> tuple[object, ...]:
    """Return what a class is made of: where it stands, and of one of yours what its methods use."""
    where = source_of(value.__module__)
    parts: list[object] = [where, value.__qualname__]
    if isinstance(where, list):
        parts += value.__bases__
        for name, item in vars(value).items():
            function = getattr(item, "__func__", getattr(item, "fget", item))  # of a property
            if isinstance(function, FunctionType):
                parts += [name, parts_of_function(function)]
    return tuple(parts)


def parts_of_function(value: FunctionType) -> tuple[object, ...]:
    """Return what a function is made of: where it stands, and the values from outside."""
    code = value.__code__
    cells = [cell.cell_contents for cell in value.__closure__ or () if cell_is_full(cell)]
    parts = (value.__qualname__, value.__defaults__, value.__kwdefaults__, cells)
    where = source_of(value.__module__)
    if not is_written_here(code.co_filename):
        return where, *parts
    there = value.__globals__
    used = {name: there[name] for name in sorted(names_in(code)) if name in there}
    plain = [constant for constant in code.co_consts if not isinstance(constant, CodeType)]
    return where, *parts, code.co_firstlineno, code.co_code, plain, used


def cell_is_full(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def names_in(code: CodeType) -> set[str]:
    """Return all names that code uses, with the code within it."""
    inner = [names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return {*code.co_names}.union(*inner)


def hash_of(tensor: Tensor) -> str:
    """Return a name of a tensor's values."""
    values = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(values.view(torch.uint8).numpy().data).hexdigest()


# ---------------------------------------------------------------- source


def source_of(module_name: str) -> list[tuple[str, object]] | str:
    """Return the contents of a module's file, with all files of yours that it imports.

    Of an installed package it is the version. Raises Unnamed where there is no file.
    """
    files: dict[str, object] = {}
    collect_source(module_name, files)
    version = files[module_name]
    return version if isinstance(version, str) else sorted(files.items())


def collect_source(module_name: str, files: dict[str, object]) -> None:
    """Add a module's contents, and those of what it imports, to `files`."""
    path = path_of(module_name)
    if not is_written_here(path) or module_name.startswith("lab."):
        files[module_name] = version_of(module_name.partition(".")[0])
        return
    files[module_name] = source = Path(path).read_bytes()
    for name in imports_in(source, module_name) if path.endswith(".py") else ():
        if name not in files:
            collect_source(name, files)


def path_of(module_name: str) -> str:
    """Return the path of a module's file; where it has none, what stands in its place."""
    module = sys.modules.get(module_name)
    if path := getattr(module, "__file__", None):
        return str(path)
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError):
        return ""
    return (spec and spec.origin) or ""


def is_written_here(path: str) -> bool:
    """Tell whether a file is no installed package's and not Python's own."""
    resolved = Path(path).resolve()
    return resolved.is_file() and not is_installed(resolved)


@cache
def packages() -> Mapping[str, list[str]]:
    """Return which distributions have each package: half a second's work."""
    return metadata.packages_distributions()


@cache
def version_of(package: str) -> str:
    """Return the version of an installed package, or raise Unnamed."""
    if package in sys.stdlib_module_names or package in ("torch", "lab"):
        return package  # these are in every name
    try:
        distribution = packages()[package][0]
        return f"{package} {metadata.version(distribution)}"
    except LookupError:
        raise Unnamed(f"{package} has neither a file nor a version") from None


def imports_in(source: bytes, module_name: str) -> set[str]:
    """Return the names of all modules that a file imports, wherever in it."""
    names: set[str] = set()
    module = sys.modules.get(module_name)
    package = getattr(module, "__package__", None) or ""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            head = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names |= {head, *(f"{head}.{alias.name}" for alias in node.names)}
    return {name for name in names if path_of(name) not in ("", "built-in", "frozen")}
